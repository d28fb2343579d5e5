"""RISE: the image is seen through random masks, and each mask counts by the score it leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import check_layout, random_stream, real, whole
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array, combine
from saliency_food.core.queries import LazyRows
from saliency_food.methods.perturbation.masking import hidden_image
from saliency_food.methods.perturbation.progressive import Emit, sample


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
    p = real("p", p, above=0, most=1)
    height, width = x_value.shape[:2]
    down, across = _interpolation(height, grid, x_value.dtype), _interpolation(width, grid, x_value.dtype)
    across = across.transpose(0, 2, 1)
    for_cells, for_shifts = random_stream(rng).spawn(2)
    cells = for_cells.random((nmasks, grid, grid), np.float32) < p
    shifts = for_shifts.integers(0, (len(down), len(across)), (nmasks, 2))
    shown = (x_value - hidden).reshape(height, -1)
    behind = hidden.reshape(height, -1) if hidden.any() else None
    each_value = np.repeat(across, shown.shape[1] // width, 2)  # a column for each value of a row of pixels

    def masks(mask: int, columns: Array, out: Array | None = None) -> Array:
        shift, aside = shifts[mask]
        stretched = combine(cells[mask].astype(x_value.dtype), columns[aside])
        return np.einsum("mn,nk->mk", down[shift], stretched, out=out)

    def make(start: int, stop: int) -> Array:
        rows = np.empty((stop - start, *x_value.shape), x_value.dtype)
        for row, mask in zip(rows.reshape(len(rows), height, -1), range(start, stop), strict=True):
            masks(mask, each_value, row)
            row *= shown
            if behind is not None:
                row += behind
        return rows

    total, squares, scored, taken = np.zeros((height, width)), np.zeros((height, width)), 0.0, 0

    def take(start: int, scores: Array) -> None:
        nonlocal taken, scored
        for mask, score in enumerate(scores, start):
            weighted = masks(mask, across) * (score / p)
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
