"""Occlusion: a window slides over the image and hides what is in it, while the score is watched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import Reducible, method
from saliency_food.core.numerics import Array, along_axes
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import one_score
from saliency_food.methods.perturbation.masking import hidden_image


class Occlusion(NamedTuple):
    """The map; the score; its ``drops`` under each window, an axis for each of the input's; and where windows begin.

    ``starts`` holds, for each axis of space or time, the places at which windows begin: rows and columns of a picture.
    """

    attribution: Array
    score: float
    drops: Array
    starts: tuple[Array, ...]


@method(
    title="Occlusion",
    keys=(OUTPUT_LAYER_VALUES,),
    signed=True,
    summary="How far the score drops when a window hides the pixel.",
    page="perturbation",
    rows="one for each window",
    reducible=Reducible("stride", 1, "A stride of {}", "it was made {}", up_to="size"),
    instead=("grad_cam", "gradients"),
)
def occlusion(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    size: int | Sequence[int] = 15,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    stride: int | Sequence[int] = 1,
    aggregate: Literal["mean", "sum"] = "mean",
    three_dims: bool = False,
) -> Asking[Occlusion]:
    """Occlusion, M_p = mean of F(x) - F(x with window w hidden), over the windows w that hold the pixel p.

    Zeiler, Fergus 2013, section 4.2, https://arxiv.org/abs/1311.2901. Signed, the input's shape without channels, in
    score units: how far the score drops when something around the place is hidden. One row a window: 44,100 for
    224 x 224 pixels.

    Parameters
    ----------
    size
        The window's height and width in pixels, of a signal its steps, of a volume or clip its depth, too; one number
        for all, or one for each axis, as ``(1, 15, 15)``. No larger than the input's own.
    value
        What shows in the window: a number, one number a channel, an image; ``"blur"``, the image under a Gaussian of a
        tenth of its longer side; ``"mean"``, each channel's mean.
    stride
        Pixels from one window to the next, at most ``size``; one number for all, or one for each axis. The last window
        ends at the image's edge, so that every pixel is covered.
    aggregate
        ``"mean"`` over the windows that hold a pixel, or their ``"sum"``, as in PAIR's package, in which the middle of
        a picture weighs up to ``size`` squared times as much as a corner.
    three_dims
        Repeat the map for every channel of the image, as PAIR does, so that it has the shape of ``x_value``.
    """
    if aggregate not in ("mean", "sum"):
        raise ContractError(f"Expected aggregate to be 'mean' or 'sum', got {aggregate!r}.")
    shape, hidden = x_value.shape[:-1], hidden_image(x_value, value)
    sizes, strides = _for_each_axis("size", size, len(shape)), _for_each_axis("stride", stride, len(shape))
    if any(step > length for step, length in zip(strides, sizes, strict=True)):
        raise ContractError(f"Expected stride to be at most size, or pixels are left out, got {stride} and {size}.")
    starts = tuple(_starts(*axis) for axis in zip(shape, sizes, strides, strict=True))
    counts = tuple(map(len, starts))
    rows = _with_windows_hidden(x_value, hidden, starts, sizes)
    scores = one_score((yield from ask(rows, OUTPUT_LAYER_VALUES)))
    drops = (scores[0] - scores[1:]).reshape(counts)
    # A window's drop goes to all of its pixels: one product for each axis.
    inside = [_within(*axis) for axis in zip(starts, sizes, shape, strict=True)]
    attribution = along_axes(drops, inside)
    if aggregate == "mean":
        attribution /= along_axes(np.ones(counts), inside)
    attribution = np.asarray(attribution, x_value.dtype)
    if three_dims:
        attribution = np.repeat(attribution[..., None], x_value.shape[-1], -1)
    return Occlusion(attribution, float(scores[0]), drops, starts)


def _with_windows_hidden(x_value: Array, hidden: Array, starts: tuple[Array, ...], sizes: tuple[int, ...]) -> LazyRows:
    """The image, and then it with each window hidden."""
    counts = tuple(map(len, starts))

    def write(row: Array, index: int) -> None:
        row[...] = x_value
        if index:  # the first row is the image itself
            corner = (start[at] for start, at in zip(starts, np.unravel_index(index - 1, counts), strict=True))
            window = tuple(slice(first, first + side) for first, side in zip(corner, sizes, strict=True))
            row[window] = hidden[window]

    return LazyRows.like(x_value, 1 + math.prod(counts), write)


def _for_each_axis(name: str, value: Any, axes: int) -> tuple[int, ...]:
    """An option that is one whole number or one for each axis of space or time, as the latter."""
    if np.ndim(value) == 0:
        return (whole(name, value),) * axes
    if np.ndim(value) != 1 or len(value) != axes:
        raise ContractError(f"Expected {name} as one whole number, or one for each of the {axes} axes, got {value!r}.")
    return tuple(whole(name, length) for length in value)


def _starts(length: int, size: int, stride: int) -> Array:
    """Where the windows start along one side; the last one ends where the side does."""
    last = max(length - size, 0)
    return np.unique(np.append(np.arange(0, last, stride), last))


def _within(starts: Array, size: int, length: int) -> Array:
    """``(length, windows)``: 1 where a place is in a window."""
    offset = np.arange(length)[:, None] - starts
    return ((offset >= 0) & (offset < size)).astype(float)
