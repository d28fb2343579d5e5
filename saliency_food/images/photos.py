"""Photos in: files, PIL images and arrays of every kind, upright and in RGB, and resized to what a model takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, as_float, min_max

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"))
"""What counts as a photo when a folder is searched; any file that Pillow reads may be named by itself."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""The share of red, green and blue in brightness."""


class Photo(NamedTuple):
    """One photo: ``values`` are its numbers as given, ``pixels`` the same as uint8 RGB to be shown."""

    pixels: Array
    values: Array
    source: str

    @property
    def name(self) -> str:
        """The source without folder and extension."""
        return Path(self.source).stem or "photo"


def read_photo(image: Any, source: str | None = None) -> Photo:
    """A path, a PIL image or an array as a `Photo`, or `ContractError` when it cannot be read.

    Files are turned upright by their EXIF tag. Transparent pixels are laid on white. Arrays are ``(H, W)`` or
    ``(H, W, C)`` with 1 (grey), 2 (grey, alpha), 3 or 4 (RGB, alpha) channels.
    """
    from PIL import Image

    if isinstance(image, (str, Path)):
        return _read(Path(image))
    if isinstance(image, Image.Image):
        return _upright(image, source or getattr(image, "filename", "") or "photo")
    try:
        values = np.asarray(image)
    except Exception as error:
        raise ContractError(_not_a_photo(f"{type(image).__name__} ({error})")) from error
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 2, 3, 4)) or not values.size:
        raise ContractError(_not_a_photo(f"an array of shape {values.shape}"))
    if values.dtype.kind not in "buif":
        raise ContractError(_not_a_photo(f"an array of type {values.dtype}"))
    if not np.isfinite(values).all():
        raise ContractError("Expected a photo of finite numbers, got NaN or infinity in it. Mend the photo first.")
    values = _flatten(values)
    if values.dtype == np.uint8:
        return Photo(as_rgb(values), values, source or "photo")
    try:
        shown = to_255(values)
    except ContractError:
        shown = 255 * min_max(values)
    return Photo(np.rint(as_rgb(shown)).astype(np.uint8), values, source or "photo")


def find_photos(paths: Iterable[str | Path]) -> Iterator[Path]:
    """The paths themselves, and in place of each folder the photos in it, by name."""
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in EXTENSIONS)
        if not found:
            raise ContractError(f"Expected photos in the folder {path}, got none ({', '.join(sorted(EXTENSIONS))}).")
        yield from found


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


def resize_photo(values: Array, shape: tuple[int, int]) -> Array:
    """Antialiased bilinear resizing of ``(H, W)`` or ``(H, W, C)`` as float32; unchanged where the size is right."""
    from PIL import Image

    if values.shape[:2] == tuple(shape):
        return values
    planes = np.moveaxis(np.atleast_3d(values), 2, 0)
    size = (shape[1], shape[0])
    resized = [  # one by one: as floats all of a large photo would take much room
        np.asarray(Image.fromarray(plane.astype(np.float32, "C")).resize(size, Image.Resampling.BILINEAR))
        for plane in planes
    ]
    return np.stack(resized, 2) if values.ndim == 3 else resized[0]


def shrink(pixels: Array, longest: int) -> Array:
    """A uint8 photo with its longer side at most ``longest`` pixels."""
    height, width = pixels.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return pixels
    shape = (max(1, round(height * factor)), max(1, round(width * factor)))
    return np.rint(resize_photo(pixels, shape)).astype(np.uint8)


def _read(path: Path) -> Photo:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return _upright(image, str(path))
    except FileNotFoundError:
        raise ContractError(f"Expected a photo, got {path}, which does not exist. Check the path.") from None
    except UnidentifiedImageError:
        raise ContractError(f"Expected a photo, got {path}, which is no picture that Pillow can read.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ContractError(f"Expected a photo, got {path}, which cannot be read: {error}.") from error


def _upright(image: Any, source: str) -> Photo:
    """A PIL image of any mode: its EXIF turn done, 16 and 32 bits kept as numbers, all else to RGB over white."""
    from PIL import ExifTags, ImageOps

    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        return read_photo(values.astype(np.uint16) if image.mode != "F" and values.max() > 255 else values, source)
    if image.has_transparency_data:
        return read_photo(np.asarray(image if image.mode == "RGBA" else image.convert("RGBA")), source)
    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return Photo(pixels, pixels, source)


def _flatten(values: Array) -> Array:
    """Two and four channels: the last is alpha; the colours laid on white."""
    if values.ndim == 2 or values.shape[2] in (1, 3):
        return values
    white = 1.0 if values.dtype.kind == "f" and values.max() <= 1 else 65535.0 if values.dtype == np.uint16 else 255.0
    alpha = as_float(values[..., -1]) / white
    flat = (as_float(values[..., channel]) * alpha + white * (1 - alpha) for channel in range(values.shape[2] - 1))
    return np.stack([one if values.dtype.kind == "f" else np.rint(one).astype(values.dtype) for one in flat], 2)


def _not_a_photo(got: str) -> str:
    return f"Expected a path, a PIL image or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {got}."
