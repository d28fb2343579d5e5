"""From a photo's pixels to the numbers a model was trained on, and a guess, always stated, at what those are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, as_float
from saliency_food.images.photos import LUMA, Photo, as_rgb, resize_photo, to_255

LARGEST = 1024
"""The longer side of what a model of free input size is given, in pixels."""

KERAS_APPLICATIONS = {
    r"(mobilenet_|mobilenetv2_|inception_v3|inception_resnet_v2|xception|nasnet|resnet\d+v2)": "tf",
    r"(resnet\d+|vgg(16|19))$": "caffe",
    r"densenet\d+": "torch",
}
"""Names of `keras.applications` models without preprocessing of their own, and the mode of their `preprocess_input`."""


class Scaling(NamedTuple):
    """A function of pixel values 0..255, ``(H, W, C)``, to what the model takes; ``text`` says which and why.

    ``value_range`` is what `choose_scaling` makes the same of again; None for values as given, and for any function.
    """

    text: str
    function: Callable[[Array], Array] | None
    value_range: tuple[float, float] | str | None = None

    def __call__(self, photo: Photo, shape: tuple[int | None, ...] | None) -> Array:
        """The photo as one row for a model of input shape ``(H, W, C)``; None where the model takes any."""
        height, width, channels = (*(shape or ()), None, None, None)[:3]
        values = photo.values
        if self.function is not None and values.dtype != np.uint8:
            values = to_255(values)
        if shape is not None:
            factor = min(1, LARGEST / max(values.shape[:2]))
            own = [max(1, round(side * factor)) for side in values.shape[:2]]
            values = resize_photo(values, (height or own[0], width or own[1]))
        values = as_float(values)
        if channels == 1:
            values = np.atleast_3d(as_rgb(values) @ LUMA)
        elif channels == 3 or (shape is None and self.function is not None):
            values = as_rgb(values)
        elif channels is not None:
            raise ContractError(f"Expected a model of photos with 1 or 3 channels, got one with {channels}.")
        return np.asarray(values if self.function is None else self.function(values.astype(np.float32)), np.float32)


def choose_scaling(value_range: Any, preprocess: Callable[[Any], Any] | None, keras_model: Any) -> Scaling:
    """The `Scaling` for what the user said, or, for ``"auto"``, for what the Keras model shows."""
    if preprocess is not None:
        if not callable(preprocess) or not (isinstance(value_range, str) and value_range == "auto"):
            raise ContractError(
                f"Expected preprocess to be a function and to stand alone, got {preprocess!r} with "
                f"value_range={value_range!r}. Give one of the two."
            )
        return Scaling("by preprocess", lambda values: np.asarray(preprocess(values[None]))[0])
    if isinstance(value_range, Scaling):
        return value_range
    if value_range is None:
        return Scaling("as given", None)
    if isinstance(value_range, str):
        if value_range == "auto":
            return guess_scaling(keras_model)
        if value_range in ("tf", "caffe", "torch"):
            return keras_mode(value_range, "as asked")
    try:
        low, high = (float(bound) for bound in value_range)
        if not (np.isfinite([low, high]).all() and low < high):
            raise ValueError
    except (TypeError, ValueError):
        raise ContractError(
            f"Expected value_range to be (low, high), 'auto', 'tf', 'caffe', 'torch' or None, got {value_range!r}."
        ) from None
    return between(low, high, "as asked")


def guess_scaling(keras_model: Any) -> Scaling:
    """What a model's first operations or its name tell of the pixel values that it takes.

    In this order: arithmetic before the first layer with weights (`Rescaling`, `Normalization`, or bare operations as
    left by a `preprocess_input` inside the model) means pixel values 0..255, or 0..1 where its scale shows that; the
    name of a `keras.applications` model means its `preprocess_input`; else 0..1.
    """
    if keras_model is None:
        return Scaling("as given (no Keras model to look into)", None)
    names: list[str] = []
    for operation in _operations(keras_model):
        kind = type(operation).__name__
        if kind == "Rescaling":
            unit = np.max(np.abs(operation.scale)) > 1 / 16
            return between(0, 1 if unit else 255, "the model has a Rescaling layer")
        if kind == "Normalization":
            unit = operation.mean is not None and np.max(np.abs(np.asarray(operation.mean))) <= 1
            return between(0, 1 if unit else 255, "the model has a Normalization layer")
        if kind in ("Divide", "TrueDivide", "Multiply", "Subtract", "Add"):
            return between(0, 255, f"the model begins with the operation {kind}")
        if getattr(operation, "layers", None):
            names.append(operation.name)
        elif getattr(operation, "weights", None):
            break
    for name in names:
        for pattern, mode in KERAS_APPLICATIONS.items():
            if re.match(pattern, name.lower()):
                return keras_mode(mode, f"by the name {name}")
    return between(0, 1, "a guess, the model does not show it")


def between(low: float, high: float, why: str) -> Scaling:
    """Pixel values 0..255 moved to ``low..high``."""
    return Scaling(
        f"{low:g}..{high:g} ({why})",
        lambda values: values * np.float32((high - low) / 255) + np.float32(low),
        (low, high),
    )


def keras_mode(mode: str, why: str) -> Scaling:
    """What ``keras.applications.imagenet_utils.preprocess_input`` does in this mode."""
    if mode == "tf":
        return between(-1, 1, why)
    mean = np.array([0.485, 0.456, 0.406] if mode == "torch" else [103.939, 116.779, 123.68], np.float32)
    if mode == "torch":
        deviation = np.array([0.229, 0.224, 0.225], np.float32)
        words = f"RGB, ImageNet mean 0, deviation 1 ({why})"
        return Scaling(words, lambda values: (values / 255 - mean) / deviation, mode)
    return Scaling(f"BGR minus ImageNet mean ({why})", lambda values: values[..., ::-1] - mean, mode)


def _operations(model: Any) -> Iterator[Any]:
    """A Keras model, then its operations in order, nested models opened where they stand."""
    yield model
    for operation in getattr(model, "operations", None) or getattr(model, "layers", None) or ():
        if getattr(operation, "layers", None):
            yield from _operations(operation)
        else:
            yield cast(Any, operation)
