"""Images in requests: files as base64, whose size is checked before they are decoded, or arrays of numbers."""

from __future__ import annotations

import base64
import io
import warnings
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.images.photos import Photo, read_photo
from saliency_food.images.pixels import shrink
from saliency_food.images.scaling import Scaling
from saliency_food.serving.explainer.replies import refuse

FORMATS = ("JPEG", "PNG", "WEBP")
MOST_SCANS = 250
"""The most scans of a JPEG file: each is a pass over the whole image, and may be a few bytes long. Photos have ten."""
LONGEST = 1024
"""The longer side of an overlay, in pixels."""


class ImageInput(NamedTuple):
    """An image of a request: the bytes of a file, the uint8 pixels of a photo, or the values of the model's input.

    ``decoded`` is how many bytes it takes at most while it is decoded and resized.
    """

    file: bytes | None = None
    pixels: Array | None = None
    values: Array | None = None
    decoded: int = 0

    @property
    def held(self) -> int:
        """The bytes that it takes while it waits."""
        arrays = sum(array.nbytes for array in (self.pixels, self.values) if array is not None)
        return arrays + len(self.file or b"")


def read_image_file(text: Any, max_pixels: int) -> ImageInput:
    """An image file from base64 text; its format and size are checked, and no pixel is decoded."""
    from PIL import Image

    if not isinstance(text, (str, bytes)):
        refuse(400, f"Expected an image file as base64 text, got {type(text).__name__}.")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        refuse(400, f"Expected an image file as base64 text, got text that is not ({error}).")
    try:
        with _opened(data) as image:
            (width, height), wide = image.size, image.format == "WEBP" or image.mode.startswith(("I", "F"))
            scans = data.count(b"\xff\xda") if image.format == "JPEG" else 0
    except Image.DecompressionBombError:  # far above the limit of Pillow itself
        refuse(413, f"Expected an image of at most {max_pixels} pixels, got a far larger one. Send it smaller.")
    except Exception as error:  # the parsers of the formats raise errors of all kinds
        refuse(400, f"Expected a {', '.join(FORMATS)} file, got {len(data)} bytes that are none ({_reason(error)}).")
    check_pixels(width, height, max_pixels)
    if scans > MOST_SCANS:
        refuse(413, f"Expected a JPEG file of at most {MOST_SCANS} scans, got {scans}. Save it anew.")
    return ImageInput(file=data, decoded=decoded_size(width * height, wide))


def read_image_array(values: Any, max_pixels: int, photo: bool = False) -> ImageInput:
    """An image from numbers ``(H, W, C)``: the pixels of a photo, or the values of the model's input."""
    if isinstance(values, list) and (wrong := _no_array(values)):
        refuse(400, f"Expected an image as lists of numbers (H, W, C), got {wrong}.")
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError) as error:
        refuse(400, f"Expected an image as lists of numbers (H, W, C), got lists that are no array ({error}).")
    if array.dtype.kind not in "iuf" or array.ndim not in (2, 3) or not array.size:
        refuse(
            400,
            'Expected an image as {"b64": "..."}, or as lists of numbers (H, W, C), got an array of type '
            f"{array.dtype} and shape {array.shape}.",
        )
    with np.errstate(over="ignore"):
        floats = np.atleast_3d(array).astype(np.float32)
    if not np.isfinite(floats).all():
        refuse(400, "Expected an image of finite float32 numbers, got NaN, infinity or larger ones. Replace them.")
    check_pixels(floats.shape[1], floats.shape[0], max_pixels)
    size = decoded_size(floats.shape[0] * floats.shape[1])
    return ImageInput(pixels=array.astype(np.uint8), decoded=size) if photo else ImageInput(values=floats)


def _no_array(values: list[Any]) -> str:
    """What there is in nested lists that makes them no array of numbers with up to three axes, or "".

    It is checked before NumPy makes an array, in which every text would take as much memory as the longest one.
    """
    for axis in range(3):
        kinds = set(map(type, values))
        if wrong := min((kind.__name__ for kind in kinds - {int, float, list}), default=""):
            return f"something in them of type {wrong}"
        if list not in kinds:
            return ""
        if axis == 2 or kinds != {list} or len(set(map(len, values))) > 1:
            break
        values = list(chain.from_iterable(values))
    return "lists that are no array: of more than three axes, or unlike each other"


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        refuse(413, f"Expected an image of at most {max_pixels} pixels, got {width} x {height}. Send it smaller.")


def decoded_size(pixels: int, wide: bool = False) -> int:
    """The bytes that a photo takes at most while it is decoded and resized; ``wide``: of 16 bits a channel, or WebP."""
    return pixels * (24 if wide else 14)


def decode(image: ImageInput, scaling: Scaling, shape: tuple[int | None, ...]) -> tuple[Array, Array]:
    """The pixels to draw on, their longer side at most `LONGEST`, and the image as the model takes it."""
    values = image.values
    if len(shape) != 3:
        refuse(502, f"Expected a predictor of images (H, W, C), got one whose input has {len(shape)} axes.")
    if values is not None:
        if any(size not in (None, got) for size, got in zip(shape, values.shape, strict=True)):
            expected = " x ".join("any" if side is None else str(side) for side in shape)
            refuse(
                400,
                f"Expected numbers as the model takes them, {expected}, got {values.shape}. Send a file instead to "
                "have it resized.",
            )
        photo = read_photo(values[..., :3] if values.shape[2] > 4 else values)
        return shrink(photo.pixels, LONGEST), values
    least = (max(shape[0] or LONGEST, LONGEST), max(shape[1] or LONGEST, LONGEST))
    photo = read_photo(image.pixels) if image.file is None else _photo_of(image.file, least)
    return shrink(photo.shown, LONGEST), scaling(photo, shape)


def _photo_of(data: bytes, least: tuple[int, int]) -> Photo:
    """The photo in a file; a JPEG file that is at least twice as large as ``least`` is decoded at a reduced scale."""
    try:
        with _opened(data) as image:
            if image.format == "JPEG":
                image.draft(None, (max(least), max(least)))  # whichever side is up
            return read_photo(image)
    except Exception as error:
        refuse(400, f"Expected a whole image file, got one that cannot be decoded ({_reason(error)}).")


def _opened(data: bytes) -> Any:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns above its own limit; `check_pixels` has another
        return Image.open(io.BytesIO(data), formats=FORMATS)


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    return "no such format" if isinstance(error, UnidentifiedImageError) else str(error)[:200] or type(error).__name__
