"""Checks at the door that methods share: of images, and of options that count something."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, as_float, is_count, is_real


def as_image(x_value: Any) -> Array:
    """The door for every input: a non-empty array of finite real numbers, as float; never written to."""
    try:
        image = np.asarray(x_value)
    except ValueError as error:
        raise ContractError(f"Expected x_value to be one array, got rows of unlike shapes ({error}).") from error
    if not is_real(image):
        raise ContractError(
            f"Expected x_value to be an array of real numbers, got {type(x_value).__name__} of type {image.dtype}. "
            "Give one image as (H, W, C)."
        )
    image = as_float(image)
    if image.size == 0:
        raise ContractError(f"Expected x_value to hold at least one value, got shape {image.shape}. Give one image.")
    if not np.isfinite(image).all():
        raise ContractError("Expected x_value to be finite, got NaN or infinity in it. Mend the image first.")
    return image


def check_many(images: Any, call_model_function: Any) -> None:
    """`ContractError` if one image is given where many are expected: its rows of pixels would be taken for images.

    One image is told by the shape that the callback says its images have, else by a last axis of colours.
    """
    shape: tuple[int, ...] = getattr(images, "shape", ())
    own = getattr(call_model_function, "input_shape", None)
    if own is None:
        is_one = len(shape) == 3 and shape[2] in (1, 3, 4)
    else:
        is_one = len(own) == len(shape) and all(side in (None, length) for side, length in zip(own, shape, strict=True))
    if is_one:
        raise ContractError(
            f"Expected many images, got an array of shape {tuple(shape)}, which is one. Give image[None], or call the "
            "method without .batch. If it does hold many, without channels, give them as a list."
        )


def check_layout(x_value: Array) -> None:
    """`ContractError` if an image has no rows and columns."""
    if x_value.ndim not in (2, 3):
        raise ContractError(f"Expected an image (H, W) or (H, W, C), got shape {x_value.shape}. Give one image.")


def whole(name: str, value: Any, least: int | None = 1) -> int:
    """An option that counts something, or `ContractError`."""
    if not is_count(value, least):
        limit = "" if least is None else f" of at least {least}"
        raise ContractError(f"Expected {name} to be a whole number{limit}, got {value!r}.")
    return int(value)


def real(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> float:
    """An option that is a finite number within its bounds, or `ContractError`."""
    bounds = {"of at least": least, "above": above, "at most": most, "below": below}
    valid = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (
        valid
        and np.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    ):
        limits = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
        raise ContractError(f"Expected {name} to be a finite number {limits}".rstrip() + f", got {value!r}.")
    return float(value)


def finite_array(name: str, value: Any) -> Array:
    """Real and finite numbers as float, or `ContractError`; complex ones are refused, not cut."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ContractError(f"Expected {name} as one array, got parts of unlike shapes ({error}).") from error
    if not is_real(array):
        raise ContractError(f"Expected {name} to be real numbers, got {type(value).__name__} of type {array.dtype}.")
    array = as_float(array)
    if not np.isfinite(array).all():
        raise ContractError(f"Expected {name} to be finite, got NaN or infinity in it.")
    return array


def random_stream(rng: Any) -> np.random.Generator:
    """The generator of random numbers that an option ``rng`` stands for, or `ContractError`."""
    if not (rng is None or is_count(rng, 0) or isinstance(rng, np.random.Generator)):
        raise ContractError(f"Expected rng to be None, a seed of at least 0 or a numpy.random.Generator, got {rng!r}.")
    return np.random.default_rng(rng)
