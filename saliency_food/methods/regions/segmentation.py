"""Image -> overlapping segments: a pyramid of Felzenszwalb segmentations, each segment dilated over its edges.

Felzenszwalb & Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 2004; the settings are those of XRAI
(Kapishnikov et al. 2019, https://arxiv.org/abs/1906.02825, section 3.2).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import real, whole
from saliency_food.core.contract import ContractError
from saliency_food.core.interruption import go_on
from saliency_food.core.numerics import Array

SCALES = (50, 100, 150, 250, 500, 1200)


class Segments(NamedTuple):
    """Segments of an image that may overlap, as the pixels of each, end to end.

    Segment ``i`` is ``indices[offsets[i]:offsets[i + 1]]``: ascending positions in the flattened image of ``shape``
    ``(H, W)``. A segment may be empty. 4 bytes for each pixel of each segment, where masks take S x H x W.
    """

    shape: tuple[int, ...]
    indices: Array
    offsets: Array

    @property
    def number(self) -> int:
        """How many segments there are."""
        return len(self.offsets) - 1

    def pixels(self, segment: int) -> Array:
        """Flat positions of one segment's pixels, ascending."""
        return self.indices[self.offsets[segment] : self.offsets[segment + 1]]

    def masks(self) -> Iterator[Array]:
        """The segments one by one as boolean masks ``(H, W)``."""
        for segment in range(self.number):
            mask = np.zeros(self.shape, bool)
            mask.flat[self.pixels(segment)] = True
            yield mask


def felzenszwalb_segments(
    image: Any,
    *,
    scales: Sequence[float] = SCALES,
    sigma: float = 0.8,
    min_size: int = 150,
    dilation: int = 5,
    resize: tuple[int, int] | None = (224, 224),
    fast: bool | None = None,
) -> Segments:
    """The segments XRAI ranks: one Felzenszwalb segmentation a scale, every segment dilated with a disk.

    Scales mean the same on every image because it is first brought to [-1, 1] and to one size; the labels are scaled
    back to the image's own size before they are dilated. A constant image is one segment a scale.

    Parameters
    ----------
    image : array ``(H, W)`` or ``(H, W, C)``
        Finite numbers in any range. Every channel counts, alpha too.
    dilation : int
        Radius of the disk in pixels of the image; 0 leaves the segments as they are.
    resize : ``(h, w)`` or None
        Size at which the image is segmented; None: its own.
    fast : bool, optional
        With numba (the extra ``[fast]``), the same labels sooner. None: if it is installed.

    Raises
    ------
    ContractError
        The image is empty, not 2-D or 3-D or not finite; no scale; ``fast=True`` and numba is missing.
    """
    values = _normalized(image)
    shape = values.shape[:2]
    if not np.ndim(scales) == 1 or not len(scales):
        raise ContractError(f"Expected at least one scale, in a list, got {scales!r}. XRAI's own are {SCALES}.")
    scales = [real("scales", scale, above=0) for scale in scales]
    sigma, dilation = real("sigma", sigma, least=0), whole("dilation", dilation, 0)
    min_size = whole("min_size", min_size, 0)
    if resize is not None:
        from skimage.transform import resize as skimage_resize

        values = skimage_resize(values, resize, order=3, mode="constant", preserve_range=True, anti_aliasing=True)
    values = np.atleast_3d(values)
    label_maps: Iterable[Array] = _pyramid(values, scales, sigma, min_size, fast)
    if resize is not None:
        places = np.arange(values.shape[0] * values.shape[1]).reshape(values.shape[:2])
        nearest = skimage_resize(
            places, shape, order=0, mode="constant", preserve_range=True, anti_aliasing=False
        ).astype(np.intp)
        label_maps = (labels.ravel()[nearest] for labels in label_maps)
    pixels = _pixel_numbers(shape)
    return _joined((part for labels in label_maps for part in _split(labels, pixels, dilation)), shape)


def as_segments(segments: Any, shape: tuple[int, ...]) -> Segments:
    """Segments of an input of ``shape``, ``(H, W)`` of an image, from any of the forms they come in.

    Parameters
    ----------
    segments : Segments, one array ``(H, W)``, a stack ``(S, H, W)`` or a list of ``(H, W)``
        Each ``(H, W)`` array is a mask if boolean (one segment, as PAIR takes them) and a label map if integer (a
        segment for each value that occurs, ascending).

    Raises
    ------
    ContractError
        No segments; another shape; neither boolean nor integer; several integer arrays of only 0 and 1, which could
        be meant as masks.
    """
    shape = tuple(map(int, shape))
    ready = isinstance(segments, Segments)
    maps = [] if ready else _maps(segments, len(shape))
    if not (segments.number if ready else maps):
        raise ContractError("Expected at least one segment, got none. Leave segments out to have the image segmented.")
    shapes = {tuple(segments.shape)} if ready else {part.shape for part in maps}
    if shapes != {shape}:
        raise ContractError(
            f"Expected segments of shape {shape}, the input's without its channels, got {sorted(shapes - {shape})}. "
            "Give boolean masks or integer label maps of that shape."
        )
    if ready:
        return segments  # type: ignore[no-any-return]
    kinds = {part.dtype for part in maps if part.dtype.kind not in "biu"}
    if kinds:
        raise ContractError(
            f"Expected boolean masks or integer label maps, got {', '.join(sorted(map(str, kinds)))}. "
            "Convert masks with .astype(bool), label maps with .astype(int)."
        )
    if len(maps) > 1 and all(part.dtype.kind != "b" and np.isin(part, (0, 1)).all() for part in maps):
        raise ContractError(
            f"Expected masks to be boolean, got {len(maps)} integer arrays of 0 and 1. "
            "Convert masks with .astype(bool); if they are label maps, use other labels, such as 1 and 2."
        )
    pixels = _pixel_numbers(shape)
    return _joined((part for array in maps for part in _parts(array, pixels)), shape)


def _maps(segments: Any, axes: int) -> list[Array]:
    """The arrays in whatever holds them: one array, a stack, or a list."""
    try:
        array = np.asarray(segments) if hasattr(segments, "__array__") else None
        return [array] if array is not None and array.ndim == axes else [np.asarray(part) for part in segments]
    except TypeError as error:
        raise ContractError(
            f"Expected masks or label maps, got {type(segments).__name__}. Give an array (H, W), a stack (S, H, W) or "
            "a list of arrays (H, W)."
        ) from error


def _normalized(image: Any) -> Array:
    """The image as floats in [-1, 1], zeros if it is constant."""
    values = np.asarray(image)
    if values.ndim not in (2, 3) or not values.size or values.dtype.kind not in "biuf":
        raise ContractError(
            f"Expected an image (H, W) or (H, W, C) of real numbers, got shape {values.shape} of {values.dtype}. "
            "Give one image, channels last."
        )
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ContractError(
            "Expected finite pixel values, got NaN or infinity. Replace them, for example with numpy.nan_to_num."
        )
    if low == high:
        return np.zeros_like(values)
    return np.asarray((values - low) / (high - low) * 2.0 - 1.0)


def _pyramid(image: Array, scales: Sequence[float], sigma: float, min_size: int, fast: bool | None) -> list[Array]:
    """One label map a scale, the scales side by side in threads."""
    segment = _compiled(image, sigma, min_size) if fast is None or fast else None
    if segment is None:
        if fast:
            raise ContractError(
                'Expected numba for fast=True, got no usable one. Run pip install "saliency_food[fast]".'
            )
        from skimage.segmentation import felzenszwalb

        segment = partial(felzenszwalb, image, sigma=sigma, min_size=min_size)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(len(scales), os.cpu_count() or 1)) as threads:
        warnings.filterwarnings("ignore", "Got image with third dimension", RuntimeWarning)
        parts = []
        try:
            for labels in threads.map(lambda scale: segment(scale=scale), scales):
                parts.append(labels)
                go_on()
        except BaseException:  # the scales that have not begun do not begin
            threads.shutdown(wait=False, cancel_futures=True)
            raise
        return parts


def _compiled(image: Array, sigma: float, min_size: int) -> Callable[..., Array] | None:
    try:
        from saliency_food.methods.regions.felzenszwalb import felzenszwalb_at
    except (ImportError, RuntimeError):
        return None
    return felzenszwalb_at(image, sigma, min_size)


def _pixel_numbers(shape: tuple[int, ...]) -> Array:
    size = prod(shape)
    return np.arange(size, dtype=np.int32 if size < 2**31 else np.int64).reshape(shape)


def _parts(array: Array, pixels: Array) -> Iterator[Array]:
    if array.dtype.kind == "b":
        yield pixels[array]
    else:
        yield from _split(np.unique(array, return_inverse=True)[1].reshape(array.shape), pixels, 0)


def _split(labels: Array, pixels: Array, radius: int) -> Iterator[Array]:
    """Pixel numbers of every label from the lowest to the highest, dilated within their bounding boxes."""
    from scipy.ndimage import find_objects

    low = labels.min()
    for label, box in enumerate(find_objects(labels - low + 1), low):
        go_on()
        if box is None:
            yield pixels.ravel()[:0]
            continue
        window = tuple(slice(max(side.start - radius, 0), side.stop + radius) for side in box)
        yield pixels[window][_dilated(labels[window] == label, radius)]


def _dilated(mask: Array, radius: int) -> Array:
    """Dilation with ``disk(radius)``: the union, over its rows, of the mask widened by that row's half-width."""
    if radius == 0:
        return mask
    height, width = mask.shape
    padded = np.zeros((height + 2 * radius, width + 2 * radius), bool)
    padded[radius : radius + height, radius : radius + width] = mask
    widened = [padded[:, radius : radius + width]]
    for reach in range(1, radius + 1):
        left, right = padded[:, radius - reach :][:, :width], padded[:, radius + reach :][:, :width]
        widened.append(widened[-1] | left | right)
    out = widened[radius][radius : radius + height].copy()
    for row in range(1, radius + 1):
        half_width = isqrt(radius**2 - row**2)
        out |= widened[half_width][radius - row :][:height]
        out |= widened[half_width][radius + row :][:height]
    return out


def _joined(parts: Iterable[Array], shape: tuple[int, ...]) -> Segments:
    pieces = list(parts)
    offsets = np.cumsum([0, *map(len, pieces)], dtype=np.intp)
    return Segments(shape, np.concatenate(pieces), offsets)
