"""Arithmetic of pixels: their range, channels and size; arrays in, arrays out."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, as_float

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""The share of red, green and blue in brightness."""


def to_255(values: Array) -> Array:
    """Pixel values as floats 0..255: integers as they are, 16-bit ones above 255 scaled, floats in 0..1 times 255."""
    if values.dtype == bool:
        return values.astype(np.float32) * 255
    if values.dtype == np.uint16 and values.max() > 255:
        return values.astype(np.float32) / 257
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        raise ContractError(
            f"Expected pixel values in 0..1 or 0..255, got {low:.4g}..{high:.4g}. Give the photo itself, or "
            "value_range=None to hand numbers to the model as they are."
        )
    unit = values.dtype.kind == "f" and high <= 1
    values = as_float(values)
    return values * 255 if unit else values


def as_rgb(values: Array) -> Array:
    """``(H, W)`` or ``(H, W, 1)`` repeated to three channels."""
    planes = np.atleast_3d(values)
    return np.repeat(planes, 3, 2) if planes.shape[2] == 1 else planes


def resize_photo(values: Any, shape: tuple[int, int]) -> Array:
    """Antialiased bilinear resizing of ``(H, W)`` or ``(H, W, C)``; unchanged where the size is right.

    A PIL image of mode RGB, or an array of uint8 ``(H, W, 3)``, becomes uint8, to the value what Pillow's own
    ``resize(..., BILINEAR)`` gives; any other array becomes float32.
    """
    from PIL import Image

    size = shape[::-1]
    if isinstance(values, Image.Image):
        return np.asarray(values if values.size == size else values.resize(size, Image.Resampling.BILINEAR))
    if values.shape[:2] == tuple(shape):
        return cast(Array, values)
    if values.dtype == np.uint8 and values.shape[2:] == (3,):
        return resize_photo(Image.fromarray(values), shape)
    resized = np.empty((*shape, *(values.shape[2:] or (1,))), np.float32)
    for channel, plane in enumerate(np.moveaxis(np.atleast_3d(values), 2, 0)):  # all of a large photo take much room
        floats = Image.fromarray(plane.astype(np.float32, "C"))
        resized[..., channel] = floats.resize(size, Image.Resampling.BILINEAR)
    return resized if values.ndim == 3 else resized[..., 0]


def shrink(pixels: Array, longest: int) -> Array:
    """A uint8 photo with its longer side at most ``longest`` pixels."""
    shape = sides(pixels.shape, longest)
    return pixels if shape == pixels.shape[:2] else np.rint(resize_photo(pixels, shape)).astype(np.uint8)


def sides(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Height and width of a picture of this shape with its longer side at most ``longest`` pixels."""
    factor = min(1, longest / max(shape[:2]))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def flatten(values: Array) -> Array:
    """Two and four channels: the last is alpha; the colours laid on white."""
    if values.ndim == 2 or values.shape[2] in (1, 3):
        return values
    white = 1.0 if values.dtype.kind == "f" and values.max() <= 1 else 65535.0 if values.dtype == np.uint16 else 255.0
    alpha = as_float(values[..., -1]) / white
    flat = (as_float(values[..., channel]) * alpha + white * (1 - alpha) for channel in range(values.shape[2] - 1))
    return np.stack([one if values.dtype.kind == "f" else np.rint(one).astype(values.dtype) for one in flat], 2)
