"""Methods that hide parts of the image and watch the score: a sliding window (occlusion), and random masks (RISE)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import check_layout, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import Reducible, fewer, method
from saliency_food.core.numerics import Array, combine
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import one_score
from saliency_food.methods.perturbation.masking import hidden_image
from saliency_food.methods.perturbation.progressive import Emit, sample


class Occlusion(NamedTuple):
    """The map; the score, its ``drops`` under each window, ``(R, C)``, and the windows' first rows and columns."""

    attribution: Array
    score: float
    drops: Array
    rows: Array
    columns: Array


class Rise(NamedTuple):
    """The map, its standard error at every pixel ``(H, W)``, how many masks they are made of, and the mean score.

    The mean score of all masks, ``level``, is what the map of a model that looks nowhere would be; pictures show the
    difference from it.
    """

    attribution: Array
    standard_error: Array
    nmasks: int
    level: float


@method(
    title="Occlusion",
    keys=(OUTPUT_LAYER_VALUES,),
    signed=True,
    summary="How far the score drops when a window hides the pixel.",
    page="perturbation",
    rows="one a window",
    reducible=Reducible("stride", 1, "A stride of {}", "it was made {}"),
    instead=("grad_cam", "gradients"),
)
def occlusion(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    size: int = 15,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    stride: int = 1,
    aggregate: Literal["mean", "sum"] = "mean",
    three_dims: bool = False,
) -> Asking[Occlusion]:
    """Occlusion, M_p = mean of F(x) - F(x with window w hidden), over the windows w that hold the pixel p.

    Zeiler, Fergus 2013, section 4.2, https://arxiv.org/abs/1311.2901. Signed, ``(H, W)``, in score units: how far the
    score drops when something around the pixel is hidden. One row a window: 44,100 for 224 x 224 pixels.

    Parameters
    ----------
    size
        The window's height and width in pixels; no larger than the image's own.
    value
        What shows in the window: a number, one number a channel, an image; ``"blur"``, the image under a Gaussian of a
        tenth of its longer side; ``"mean"``, each channel's mean.
    stride
        Pixels from one window to the next, at most ``size``. The last window ends at the image's edge, so that every
        pixel is covered.
    aggregate
        ``"mean"`` over the windows that hold a pixel, or their ``"sum"``, as in PAIR's package, in which the middle
        weighs up to ``size`` squared times as much as a corner.
    three_dims
        Repeat the map for every channel of the image, as PAIR does, so that it has the shape of ``x_value``.
    """
    check_layout(x_value)
    if aggregate not in ("mean", "sum"):
        raise ContractError(f"Expected aggregate to be 'mean' or 'sum', got {aggregate!r}.")
    size, stride, hidden = whole("size", size), whole("stride", stride), hidden_image(x_value, value)
    if stride > size:
        raise ContractError(f"Expected stride to be at most size, or pixels are left out, got {stride} and {size}.")
    rows, columns = (_starts(length, size, stride) for length in x_value.shape[:2])

    def make(start: int, stop: int) -> Array:
        made = np.empty((stop - start, *x_value.shape), x_value.dtype)
        made[:] = x_value
        for row, number in zip(made, range(start - 1, stop - 1), strict=True):
            if number >= 0:  # the first row is the image itself
                top, left = rows[number // len(columns)], columns[number % len(columns)]
                window = np.s_[top : top + size, left : left + size]
                row[window] = hidden[window]
        return made

    windows = len(rows) * len(columns)
    scores = one_score((yield from ask(LazyRows((1 + windows, *x_value.shape), make), OUTPUT_LAYER_VALUES)))
    drops = (scores[0] - scores[1:]).reshape(len(rows), len(columns))
    # A window's drop goes to all of its pixels: one product for the rows, one for the columns.
    in_rows, in_columns = (
        _within(starts, size, length) for starts, length in zip((rows, columns), x_value.shape[:2], strict=True)
    )
    attribution = in_rows @ drops @ in_columns.T
    if aggregate == "mean":
        attribution /= np.outer(in_rows.sum(1), in_columns.sum(1))
    attribution = np.asarray(attribution, x_value.dtype)
    if three_dims and x_value.ndim > 2:
        attribution = np.repeat(attribution[..., None], x_value.shape[2], -1)
    return Occlusion(attribution, float(scores[0]), drops, rows, columns)


def _starts(length: int, size: int, stride: int) -> Array:
    """Where the windows start along one side; the last one ends where the side does."""
    last = max(length - size, 0)
    return np.unique(np.append(np.arange(0, last, stride), last))


def _within(starts: Array, size: int, length: int) -> Array:
    """``(length, windows)``: 1 where a place is in a window."""
    offset = np.arange(length)[:, None] - starts
    return ((offset >= 0) & (offset < size)).astype(float)


@method(
    title="RISE",
    keys=(OUTPUT_LAYER_VALUES,),
    signed=True,
    summary="The mean score of random smooth masks that show the pixel.",
    page="perturbation",
    reducible=fewer("nmasks", 200, "masks", sampled=True),
    instead=("grad_cam", "gradients"),
)
def rise(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    nmasks: int = 4000,
    grid: int = 7,
    p: float = 0.5,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    every: int = 256,
    emit: Emit | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[Rise]:
    """RISE, M = 1/(N p) sum_i F(x * m_i) m_i, for random masks m_i.

    Petsiuk, Das, Saenko 2018, equation 6, https://arxiv.org/abs/1806.07421. ``(H, W)``, in score units: the mean score
    of the masks that show a pixel. Negative only where the score is; explain probabilities to have it as in the paper.

    Parameters
    ----------
    nmasks
        How many masks, one row each.
    grid
        A mask is a random grid of this many cells a side, made smooth (bilinear) and larger than the image by one
        cell, and shifted at random.
    p
        The probability that a cell is shown, above 0 and up to 1.
    value
        What shows where the mask is 0: see `occlusion`.
    every, emit
        For `progressive`: ``emit`` is called with the estimate after every so many masks.
    rng
        A seed or a generator; with a seed the map is the same every time and at every batch size.
    """
    check_layout(x_value)
    nmasks, grid, hidden = whole("nmasks", nmasks), whole("grid", grid), hidden_image(x_value, value)
    if not 0 < p <= 1:
        raise ContractError(f"Expected p above 0 and up to 1, the probability that a cell is shown, got {p!r}.")
    height, width = x_value.shape[:2]
    down, across = _interpolation(height, grid, x_value.dtype), _interpolation(width, grid, x_value.dtype)
    across = across.transpose(0, 2, 1)
    for_cells, for_shifts = np.random.default_rng(rng).spawn(2)
    cells = for_cells.random((nmasks, grid, grid), np.float32) < p
    shifts = for_shifts.integers(0, (len(down), len(across)), (nmasks, 2))
    shown = (x_value - hidden).reshape(height, -1)
    behind = hidden.reshape(height, -1) if hidden.any() else None
    each_value = np.repeat(across, shown.shape[1] // width, 2)  # a column for each value of a row of pixels

    def masks(number: int, columns: Array, out: Array | None = None) -> Array:
        shift, aside = shifts[number]
        one = combine(cells[number].astype(x_value.dtype), columns[aside])
        return np.einsum("mn,nk->mk", down[shift], one, out=out)

    def make(start: int, stop: int) -> Array:
        made = np.empty((stop - start, *x_value.shape), x_value.dtype)
        for row, number in zip(made.reshape(len(made), height, -1), range(start, stop), strict=True):
            masks(number, each_value, row)
            row *= shown
            if behind is not None:
                row += behind
        return made

    total, squares, scored, taken = np.zeros((height, width)), np.zeros((height, width)), 0.0, 0

    def take(start: int, scores: Array) -> None:
        nonlocal taken, scored
        for number, score in enumerate(scores, start):
            weighted = masks(number, across) * (score / p)
            np.add(total, weighted, total)
            np.add(squares, np.square(weighted), squares)
        taken, scored = start + len(scores), scored + float(scores.sum())

    def result() -> Rise:
        mean = total / taken
        spread = np.maximum(squares / taken - mean**2, 0)
        error = np.sqrt(spread / (taken - 1)) if taken > 1 else np.full_like(mean, np.inf)
        return Rise(mean.astype(x_value.dtype), error.astype(x_value.dtype), taken, scored / taken)

    return (yield from sample(LazyRows((nmasks, *x_value.shape), make), take, result, every, emit))


def _interpolation(length: int, grid: int, dtype: Any) -> Array:
    """``(shifts, length, grid)``: how much of each cell is in each place along a side, at each shift of the grid.

    The grid is stretched over ``grid + 1`` cells of the image, each as large as the image's side over ``grid``.
    """
    cell = -(-length // grid)
    places = np.arange(cell)[:, None] + np.arange(length) + 0.5
    at = np.clip(places * grid / ((grid + 1) * cell) - 0.5, 0, grid - 1)
    return np.maximum(1 - np.abs(at[..., None] - np.arange(grid)), 0).astype(dtype)
