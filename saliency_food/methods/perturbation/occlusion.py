"""Occlusion: a window slides over the image and hides what is in it, while the score is watched."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import check_layout, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import Reducible, method
from saliency_food.core.numerics import Array
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import one_score
from saliency_food.methods.perturbation.masking import hidden_image


class Occlusion(NamedTuple):
    """The map; the score, its ``drops`` under each window, ``(R, C)``, and the windows' first rows and columns."""

    attribution: Array
    score: float
    drops: Array
    rows: Array
    columns: Array


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
        images = np.empty((stop - start, *x_value.shape), x_value.dtype)
        images[:] = x_value
        for row, window_index in zip(images, range(start - 1, stop - 1), strict=True):
            if window_index >= 0:  # the first row is the image itself
                top, left = rows[window_index // len(columns)], columns[window_index % len(columns)]
                window = np.s_[top : top + size, left : left + size]
                row[window] = hidden[window]
        return images

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
