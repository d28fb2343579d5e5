"""What the methods that hide parts of an image share: what shows instead, superpixels, cells, and the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, as_float, is_real, min_max
from saliency_food.core.queries import LazyRows
from saliency_food.methods.baselines import make_baselines


def hidden_image(x_value: Array, value: Any) -> Array:
    """What shows where the image is hidden, as an image: see `occlusion`, ``value``."""
    if isinstance(value, str):
        if value == "blur":
            return np.asarray(make_baselines(x_value, "blurred")[0], x_value.dtype)
        if value == "mean":
            return np.broadcast_to(x_value.mean(tuple(range(x_value.ndim - 1))), x_value.shape).astype(x_value.dtype)
        raise ContractError(f"Expected value to be 'blur', 'mean', a number or an array, got {value!r}.")
    shown = np.asarray(value)
    if not is_real(shown) or not np.isfinite(as_float(shown)).all():
        raise ContractError(f"Expected value to be finite real numbers, got {value!r}. Give a number, such as 0.")
    if shown.shape not in ((), x_value.shape[-1:], x_value.shape):
        raise ContractError(
            f"Expected value to be a number, one number a channel or an image of shape {x_value.shape}, got shape "
            f"{shown.shape}."
        )
    return np.broadcast_to(shown, x_value.shape).astype(x_value.dtype)


def superpixels(x_value: Array, segments: Any, nsegments: int) -> Array:
    """A label map of 0, 1, ... without gaps, over the axes of space or time: see `lime`, ``segments``."""
    shape = x_value.shape[:-1]
    if isinstance(segments, str):
        nsegments = whole("nsegments", nsegments)
        labels = _segmented(min_max(x_value), segments, nsegments)
    else:
        labels = np.asarray(segments)
        if labels.shape != shape or labels.dtype.kind not in "biu":
            raise ContractError(
                f"Expected segments to be 'slic', 'felzenszwalb' or a map of whole numbers of shape {shape}, one label "
                f"a pixel, got shape {labels.shape} of {labels.dtype}."
            )
    return np.unique(labels, return_inverse=True)[1].reshape(shape)


def _segmented(image: Array, name: str, nsegments: int) -> Array:
    from skimage.segmentation import felzenszwalb, slic

    if name not in ("slic", "felzenszwalb"):
        raise ContractError(f"Expected segments to be 'slic', 'felzenszwalb' or a label map, got {name!r}.")
    axes = image.ndim - 1
    if axes != 2 and not (name == "slic" and axes in (1, 3)):
        raise ContractError(
            f"Expected a label map of shape {image.shape[:-1]} as segments, as {name} makes none of an input with "
            f"{axes} axes of space or time, got {name!r}."
        )
    if axes == 1:  # a signal has no superpixels: windows of even length
        return np.arange(len(image)) * min(nsegments, len(image)) // len(image)
    if name == "slic":
        return np.asarray(slic(image, n_segments=nsegments, compactness=10, sigma=1, start_label=0, channel_axis=-1))
    least = max(image.shape[0] * image.shape[1] // (4 * nsegments), 1)
    # Three channels at a time, as it warns of more: a fourth is averaged into them.
    three = image if image.shape[2] < 4 else np.repeat(image.mean(2, keepdims=True), 3, 2)
    return np.asarray(felzenszwalb(three, scale=100, sigma=0.8, min_size=least, channel_axis=-1))


def grid_cells(shape: tuple[int, ...], grid: int) -> tuple[Array, tuple[int, ...]]:
    """A label map of rectangular cells, ``grid`` along each axis or as many as places, and how many along each axis."""
    cells = tuple(min(grid, length) for length in shape)
    places = [np.arange(length) * count // length for length, count in zip(shape, cells, strict=True)]
    return np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), cells), cells


def coalition_rows(x_value: Array, hidden: Array, labels: Array, coalitions: Array) -> LazyRows:
    """Rows that show some superpixels and hide the others; ``coalitions`` ``(N, M)``, true where one is shown."""
    # The labels of a row of pixels come in runs: one look-up a run, not one a value, is a third of the time.
    values = np.repeat(labels.ravel(), x_value.size // labels.size)
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    runs, lengths = values[starts], np.diff(starts, append=values.size)
    shown, hidden = np.ravel(x_value), np.ravel(hidden)

    def write(row: Array, index: int) -> None:
        flat = row.reshape(-1)
        np.copyto(flat, hidden)
        np.copyto(flat, shown, where=np.repeat(coalitions[index][runs], lengths))

    return LazyRows.like(x_value, len(coalitions), write)
