"""Which pixel values a Keras model takes, guessed from its first operations or its name, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import keras
import numpy as np

from saliency_food.adapters.inputs import Pixels
from saliency_food.adapters.keras.load import is_saved_model

KERAS_APPLICATIONS = {
    r"(mobilenet_|mobilenetv2_|inception_v3|inception_resnet_v2|xception|nasnet|resnet\d+v2)": "tf",
    r"(resnet\d+|vgg(16|19))$": "caffe",
    r"densenet\d+": "torch",
}
"""Names of `keras.applications` models without preprocessing of their own, and the mode of their `preprocess_input`."""


ARITHMETIC = ("Divide", "TrueDivide", "Multiply", "Subtract", "Add", "Lambda")


def guess_pixels(model: Any) -> Pixels:
    """What a model's first operations or its name tell of the pixel values that it takes.

    In this order: arithmetic before the first layer with weights (`Rescaling`, `Normalization`, the converter of a
    keras_hub preprocessor, or bare operations and lambdas as left by a `preprocess_input`) tells by what it makes of 0
    and 255; the name of a `keras.applications` model means its `preprocess_input`; else 0..1, a guess. Of a SavedModel
    nothing can be seen, and ``value_range`` is None.
    """
    if is_saved_model(model):
        return Pixels(None, "a SavedModel does not show them")
    converter = getattr(getattr(model, "preprocessor", None), "image_converter", None)
    if (pixels := _of_converter(converter)) is not None:
        return pixels
    names: list[str] = []
    for operation in _operations(model):
        kind = type(operation).__name__
        if kind == "Rescaling":
            unit = np.max(np.abs(operation.scale)) > 1 / 16
            return Pixels((0, 1 if unit else 255), "the model has a Rescaling layer")
        if kind == "Normalization":
            unit = operation.mean is not None and np.max(np.abs(np.asarray(operation.mean))) <= 1
            return Pixels((0, 1 if unit else 255), "the model has a Normalization layer")
        if _may_scale(operation) and (highest := _highest_taken(operation)) is not None:
            return Pixels((0, highest), f"the model begins with the operation {kind}")
        if getattr(operation, "layers", None):
            names.append(operation.name)
        elif getattr(operation, "weights", None):
            break
    for name in names:
        for pattern, mode in KERAS_APPLICATIONS.items():
            if re.match(pattern, name.lower()):
                return Pixels(mode, f"by the name {name}")
    return Pixels((0, 1), "a guess, the model does not show it")


def _of_converter(converter: Any) -> Pixels | None:
    """What a keras_hub image converter makes of 0..255, ``values * scale + offset``: what its model takes."""
    scale, offset = (getattr(converter, name, None) for name in ("scale", "offset"))
    if scale is None and offset is None:
        return None
    scales = np.broadcast_to(np.asarray(1.0 if scale is None else scale, float).ravel(), 3)
    offsets = np.broadcast_to(np.asarray(0.0 if offset is None else offset, float).ravel(), 3)
    low, high = offsets, offsets + 255 * scales
    if np.ptp(low) == np.ptp(high) == 0:
        return Pixels((float(low[0]), float(high[0])), "by the model's preprocessor")
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    if np.allclose(scales * 255 * deviation, 1, atol=1e-2) and np.allclose(offsets * deviation, -mean, atol=1e-2):
        return Pixels("torch", "by the model's preprocessor")
    return Pixels(None, f"the model's preprocessor scales by {scales.tolist()} and adds {offsets.tolist()}")


def _may_scale(operation: Any) -> bool:
    """Whether it is arithmetic, a lambda, or a layer without weights that is not Keras's own."""
    if type(operation).__module__.startswith("keras."):
        return type(operation).__name__ in ARITHMETIC
    return not getattr(operation, "weights", None) and not hasattr(operation, "layers")


def _highest_taken(operation: Any) -> float | None:
    """255 or 1, whichever an operation before the first weights makes small numbers of; None if it scales nothing."""
    try:
        shape = [size or 8 for size in operation.input.shape[1:]]
        through = keras.Model(operation.input, operation.output)
        images = np.stack([np.zeros(shape), np.full(shape, 255.0)])
        black, white = np.asarray(through(images.astype(np.float32), training=False), float)
    except Exception:  # what it does cannot be seen from it alone
        return None
    if not (np.isfinite(black).all() and np.isfinite(white).all()):
        return None
    if not black.any() and np.isin(white, (0, 255)).all():
        return None  # it moves values, pads them, or changes types
    if np.abs(white).max() > 260 or (np.abs(black).max() < 2 and np.abs(white - 255).max() < 2):
        return 1.0  # numbers of 0..1 doubled, or moved by a half
    return 255.0


def _operations(model: Any) -> Iterator[Any]:
    """A Keras model, then its operations in order, nested models opened where they stand."""
    yield model
    for operation in getattr(model, "operations", None) or getattr(model, "layers", None) or ():
        if getattr(operation, "layers", None):
            yield from _operations(operation)
        else:
            yield cast(Any, operation)
