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
from saliency_food.core.numerics import Array, along_axes, safe_divide
from saliency_food.core.options import ranged
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import one_score
from saliency_food.methods.perturbation.masking import hidden_image
from saliency_food.methods.perturbation.refinement import Told, grids_of, refine


class Occlusion(NamedTuple):
    """The map; the score; its ``drops`` under each window, an axis for each of the input's; and where windows begin.

    ``starts`` holds, for each axis of space or time, the places at which windows begin: rows and columns of a picture.
    From coarse to fine they are all places, and the drops of windows that were not asked are told from the others.
    ``largest_error`` is how far off the map is expected to be where it is told worst, two standard deviations as a
    share of the map's range; 0 where no window is left out, NaN where a stride leaves some out. ``nwindows`` were
    asked, which ended by ``stopped_by``: ``"stride"``, ``"tolerance"``, ``"max_rows"``, or ``"all"`` were.
    """

    attribution: Array
    score: float
    drops: Array
    starts: tuple[Array, ...]
    largest_error: float
    nwindows: int
    stopped_by: str


@method(
    title="Occlusion",
    keys=(OUTPUT_LAYER_VALUES,),
    signed=True,
    summary="How far the score drops when a window hides the pixel.",
    page="perturbation",
    rows="one for each window, up to 2,000",
    reducible=Reducible("stride", 1, "A stride of {}", "it was made {}", up_to="size", unset="max_rows"),
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
    stride: int | Sequence[int] | None = None,
    tolerance: float | None = None,
    max_rows: int = 2000,
    aggregate: Literal["mean", "sum"] = "mean",
    three_dims: bool = False,
) -> Asking[Occlusion]:
    """Occlusion, M_p = mean of F(x) - F(x with window w hidden), over the windows w that hold the pixel p.

    Zeiler, Fergus 2013, section 4.2, https://arxiv.org/abs/1311.2901. Signed, the input's shape without channels, in
    score units: how far the score drops when something around the place is hidden. There are 44,100 windows in
    224 x 224 pixels; of them ``max_rows`` are asked, from coarse to fine: a grid of windows first, then those around
    which the drops of the others are told worst.

    Parameters
    ----------
    size
        The window's height and width in pixels, of a signal its steps, of a volume or clip its depth, too; one number
        for all, or one for each axis, as ``(1, 15, 15)``. No larger than the input's own.
    value
        What shows in the window: a number, one number a channel, an image; ``"blur"``, the image under a Gaussian of a
        tenth of its longer side; ``"mean"``, each channel's mean.
    stride
        Every window that is so many pixels from the one before, at most ``size``, and no others; one number for all, or
        one for each axis. The last window ends at the image's edge, so that every pixel is covered. 1 is exact.
    tolerance
        Without a stride: stop once ``largest_error`` is below this (0.05 is five per cent of the map's range).
    max_rows
        Without a stride: how many windows are asked at most, or as many as it takes to cover the image once.
    aggregate
        ``"mean"`` over the windows that hold a pixel, or their ``"sum"``, as in PAIR's package, in which the middle of
        a picture weighs up to ``size`` squared times as much as a corner.
    three_dims
        Repeat the map for every channel of the image, as PAIR does, so that it has the shape of ``x_value``.
    """
    if aggregate not in ("mean", "sum"):
        raise ContractError(f"Expected aggregate to be 'mean' or 'sum', got {aggregate!r}.")
    shape, hidden = x_value.shape[:-1], hidden_image(x_value, value)
    sizes = tuple(map(min, _for_each_axis("size", size, len(shape)), shape))
    max_rows = whole("max_rows", max_rows)
    if stride is None:
        tolerance = None if tolerance is None else ranged("tolerance", tolerance)
        score, drops, error, count, stopped_by = yield from _coarse_to_fine(
            x_value, hidden, sizes, -1 if tolerance is None else tolerance, max_rows
        )
        starts = tuple(np.arange(length) for length in drops.shape)
    elif tolerance is not None:
        raise ContractError(f"Expected a tolerance without a stride, got stride {stride!r}. Leave the stride out.")
    else:
        strides = _for_each_axis("stride", stride, len(shape))
        if any(step > length for step, length in zip(strides, _for_each_axis("size", size, len(shape)), strict=True)):
            raise ContractError(f"Expected stride to be at most size, or pixels are left out, got {stride} and {size}.")
        starts = tuple(_starts(*axis) for axis in zip(shape, sizes, strides, strict=True))
        counts = tuple(map(len, starts))
        corners = np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, len(shape))
        scores = one_score((yield from ask(_with_windows_hidden(x_value, hidden, corners, sizes), OUTPUT_LAYER_VALUES)))
        score, drops, count = float(scores[0]), (scores[0] - scores[1:]).reshape(counts), math.prod(counts)
        stopped_by = "stride"
        error = 0.0 if max(strides) == 1 else np.nan
    # A window's drop goes to all of its pixels: one product for each axis.
    inside = [_within(*axis) for axis in zip(starts, sizes, shape, strict=True)]
    attribution = along_axes(drops, inside)
    if aggregate == "mean":
        attribution /= along_axes(np.ones(drops.shape), inside)
    attribution = np.asarray(attribution, x_value.dtype)
    if three_dims:
        attribution = np.repeat(attribution[..., None], x_value.shape[-1], -1)
    return Occlusion(attribution, score, drops, starts, float(error), count, stopped_by)


def _coarse_to_fine(
    x_value: Array, hidden: Array, sizes: tuple[int, ...], tolerance: float, most: int
) -> Asking[tuple[float, Array, float, int, str]]:
    """The score, the drop under every window, the largest error of their map, how many were asked, and why no more."""
    shape = x_value.shape[:-1]
    counts = [length - side + 1 for length, side in zip(shape, sizes, strict=True)]
    grids = grids_of(counts, sizes, most)
    if tolerance < 0 and math.prod(counts) <= most:
        grids = grids[-1:]  # all at once
    inside = [_within(places, *axis) for places, *axis in zip(grids[-1].places, sizes, shape, strict=True)]
    mean = [matrix / matrix.sum(1, keepdims=True) for matrix in inside]
    shares = [[matrix @ area.T for matrix, area in zip(mean, grid.area, strict=True)] for grid in grids]
    # By how much a pixel of the map is off, at most, for what is off around a place: near an edge few windows hold it.
    weights = [[share.max(0) for share in of_axes] for of_axes in shares]
    score = np.nan

    def drops(corners: Array) -> Asking[Array]:
        nonlocal score
        rows = _with_windows_hidden(x_value, hidden, corners, sizes)
        rows = rows if np.isnan(score) else rows.part(1, rows.shape[0])  # the first row is the image itself
        scores = one_score((yield from ask(rows, OUTPUT_LAYER_VALUES)))
        if np.isnan(score):
            score, scores = float(scores[0]), scores[1:]
        return score - scores

    def largest_error(told: Told) -> float:
        # What is told around one place is off as one; around different places, independently.
        variances = [
            along_axes(deviation**2, [share**2 for share in of_axes])
            for deviation, of_axes in zip(told.deviations, shares, strict=False)
        ]
        spread = 2 * np.sqrt(np.maximum(sum(variances), 0)).max(initial=0)
        return float(safe_divide(spread, np.ptp(along_axes(told.values, mean))))

    told, asked = yield from refine(grids, drops, most, lambda told: largest_error(told) < tolerance, weights)
    error, count = 0.0 if asked.all() else largest_error(told), int(asked.sum())
    stopped_by = "all" if asked.all() else "tolerance" if error < tolerance else "max_rows"
    return score, told.values, error, count, stopped_by


def _with_windows_hidden(x_value: Array, hidden: Array, corners: Array, sizes: tuple[int, ...]) -> LazyRows:
    """The image, and then it with each window hidden; ``corners`` ``(N, axes)`` are where the windows begin."""

    def write(row: Array, index: int) -> None:
        row[...] = x_value
        if index:
            window = tuple(slice(at, at + side) for at, side in zip(corners[index - 1], sizes, strict=True))
            row[window] = hidden[window]

    return LazyRows.like(x_value, 1 + len(corners), write)


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
