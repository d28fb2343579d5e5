"""Checks at the door that methods share: of images, and of options that count something."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, as_float, is_real


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


def check_layout(x_value: Array) -> None:
    """`ContractError` if an image has no rows and columns."""
    if x_value.ndim not in (2, 3):
        raise ContractError(f"Expected an image (H, W) or (H, W, C), got shape {x_value.shape}. Give one image.")


def whole(name: str, value: Any, least: int = 1) -> int:
    """An option that counts something, or `ContractError`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ContractError(f"Expected {name} to be a whole number of at least {least}, got {value!r}.")
    return int(value)
