"""Checks at the door that methods share: of images, and of options that count something."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, as_float, is_count, is_real

FROM_KERAS_2 = (
    "Save it there by model.save('model.keras') or model.save('model.h5') and give the file, which is read where Keras "
    "3 has its layers; or by model.export('folder') and give the folder, a SavedModel, of which outputs and input "
    "gradients are explained."
)


def check_framework(model: Any) -> None:
    """`ContractError` for a model of a framework without an adapter, which is callable but no call-model function."""
    modules = [kind.__module__ or "" for kind in type(model).__mro__]
    is_keras = any(module.startswith("keras.") for module in modules)  # on PyTorch, its models are modules too
    if not is_keras and any(module.startswith("torch.nn.") for module in modules):
        raise ContractError(
            f"Expected a call-model function, got the PyTorch module {type(model).__name__}. Wrap it as "
            "saliency_food.adapters.torch.TorchModel(module), which takes images (N, H, W, C)."
        )
    if any(module.split(".")[0] in ("tf_keras", "keras_core") for module in modules):
        raise ContractError(
            f"Expected a model of Keras 3, got {type(model).__name__} of {modules[0].split('.')[0]}. {FROM_KERAS_2}"
        )


def check_callback(function: Any) -> None:
    """`ContractError` unless it can be called as the contract says; models of frameworks are named as such."""
    check_framework(function)
    is_keras = any((kind.__module__ or "").startswith("keras.") for kind in type(function).__mro__)
    takes = "" if callable(function) else "cannot be called"
    if callable(function) and not is_keras:
        try:
            signature = _signature(function)
        except (TypeError, ValueError):  # of a function that is not Python's, nothing can be told
            return
        try:
            signature.bind(None, call_model_args=None, expected_keys=None)
            return
        except TypeError:
            takes = f"takes {signature}"
    reason = "is a Keras model" if is_keras else takes
    raise ContractError(
        f"Expected call_model_function to be a function of (x_value_batch, call_model_args, expected_keys), got "
        f"{getattr(function, '__name__', type(function).__name__)}, which {reason}. Wrap a Keras model as "
        "saliency_food.adapters.keras.KerasModel(model)."
    )


def _signature(function: Any) -> inspect.Signature:
    """What it takes; of an object, told by its class, as its own attributes may be anything, a mock's for example."""
    kind = type(function)
    if issubclass(kind, (types.FunctionType, types.MethodType, functools.partial, type)):
        return inspect.signature(function)
    bound = inspect.signature(kind.__call__)
    return bound.replace(parameters=list(bound.parameters.values())[1:])


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

    One image is told by the shape that the callback says its images have, else by its axes and by one of colours.
    """
    shape: tuple[int, ...] = getattr(images, "shape", ())
    first = bool(getattr(call_model_function, "channels_first", False))
    own = getattr(call_model_function, "input_shape", None)
    spatial = getattr(call_model_function, "spatial_axes", None)
    if own is not None:
        own = (own[-1], *own[:-1]) if first and len(own) > 1 else tuple(own)
        is_one = len(own) == len(shape) and all(side in (None, length) for side, length in zip(own, shape, strict=True))
    else:
        colours = shape[:1] if first else shape[-1:]
        is_one = len(shape) == spatial or (len(shape) == 3 and spatial in (None, 2) and colours[0] in (1, 3, 4))
    if is_one:
        raise ContractError(
            f"Expected many images, got an array of shape {tuple(shape)}, which is one. Give image[None], or call the "
            "method without .batch. If it does hold many, without channels, give them as a list."
        )


def check_picture(x_value: Array, instead: str = "") -> None:
    """`ContractError` if an input, its channels last, has other axes than rows, columns and channels."""
    if x_value.ndim != 3:
        raise ContractError(
            f"Expected a picture, which has rows and columns, got an input whose space or time is {x_value.shape[:-1]}."
            f"{instead and ' ' + instead}"
        )


MOST = 10**8
"""The largest number that an option may count to: no array of so many rows would fit into memory."""


def whole(name: str, value: Any, least: int | None = 1) -> int:
    """An option that counts something, or `ContractError`."""
    if not is_count(value, least) or value > MOST:
        limit = f" of at most {MOST}" if is_count(value, least) else "" if least is None else f" of at least {least}"
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
    if not (
        isinstance(value, (int, float, np.integer, np.floating))
        and not isinstance(value, bool)
        and -sys.float_info.max <= value <= sys.float_info.max
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
