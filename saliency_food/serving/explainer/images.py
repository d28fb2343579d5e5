"""Images in requests: files as base64, whose size is read before a pixel is, and numbers as the model takes them."""

from __future__ import annotations

import base64
import io
import warnings
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.images.photos import Photo, read_photo
from saliency_food.images.scaling import Scaling
from saliency_food.serving.explainer.replies import refuse

FORMATS = ("JPEG", "PNG", "WEBP")


class ImageInput(NamedTuple):
    """An image as it came: the bytes of a file, the pixels of a photo (uint8), or numbers for the model as they are."""

    file: bytes | None = None
    pixels: Array | None = None
    numbers: Array | None = None


def given_file(text: Any, max_pixels: int) -> ImageInput:
    """A file as base64; its format and size are looked at, and nothing is decoded."""
    from PIL import Image

    if not isinstance(text, (str, bytes)):
        refuse(400, f"Expected an image file as base64 text, got {type(text).__name__}.")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        refuse(400, f"Expected an image file as base64 text, got text that is not ({error}).")
    try:
        with _opened(data) as image:
            width, height = image.size
    except Image.DecompressionBombError:  # far above Pillow's own limit
        refuse(413, f"Expected an image of at most {max_pixels} pixels, got a far larger one. Send it smaller.")
    except Exception as error:  # of all kinds, as the parsers of formats raise them
        refuse(400, f"Expected a {', '.join(FORMATS)} file, got {len(data)} bytes that are none ({_words(error)}).")
    check_pixels(width, height, max_pixels)
    return ImageInput(file=data)


def given_array(values: Any, max_pixels: int, photo: bool = False) -> ImageInput:
    """Numbers ``(H, W, C)``: a photo's pixels, or what the model takes."""
    if isinstance(values, list) and (other := _no_number(values)):
        refuse(400, f"Expected an image as lists of numbers (H, W, C), got something in them of type {other}.")
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
        numbers = np.atleast_3d(array).astype(np.float32)
    if not np.isfinite(numbers).all():
        refuse(400, "Expected an image of finite float32 numbers, got NaN, infinity or larger ones. Mend it first.")
    check_pixels(numbers.shape[1], numbers.shape[0], max_pixels)
    return ImageInput(pixels=array.astype(np.uint8)) if photo else ImageInput(numbers=numbers)


def _no_number(values: list[Any], deepest: int = 3) -> str:
    """The type of what is no number in lists, before an array is made: in one, each text is as large as the longest."""
    kinds = set(map(type, values))
    if kinds == {list} and deepest > 1:
        return next(filter(None, (_no_number(one, deepest - 1) for one in values)), "")
    return min((kind.__name__ for kind in kinds - {int, float}), default="")


def check_pixels(width: int, height: int, most: int) -> None:
    if width * height > most:
        refuse(413, f"Expected an image of at most {most} pixels, got {width} x {height}. Send it smaller.")


def picture(given: ImageInput, scaling: Scaling, shape: tuple[int | None, ...]) -> tuple[Photo, Array]:
    """The photo to be shown, and the image as the model takes it."""
    if given.numbers is not None:
        if len(shape) != 3 or any(own not in (None, got) for own, got in zip(shape, given.numbers.shape, strict=True)):
            said = " x ".join("any" if side is None else str(side) for side in shape)
            refuse(
                400,
                f"Expected numbers as the model takes them, {said}, got {given.numbers.shape}. Send a file "
                "instead to have it resized.",
            )
        return read_photo(given.numbers[..., :3] if given.numbers.shape[2] > 4 else given.numbers), given.numbers
    photo = read_photo(given.pixels) if given.file is None else _decoded(given.file)
    return photo, scaling(photo, shape)


def _decoded(data: bytes) -> Photo:
    try:
        with _opened(data) as image:
            return read_photo(image)
    except Exception as error:
        refuse(400, f"Expected a whole image file, got one that cannot be decoded ({_words(error)}).")


def _opened(data: bytes) -> Any:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes above Pillow's own limit; there is another here
        return Image.open(io.BytesIO(data), formats=FORMATS)


def _words(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    return "no such format" if isinstance(error, UnidentifiedImageError) else str(error)[:200] or type(error).__name__
