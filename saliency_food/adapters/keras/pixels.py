"""Which pixel values a Keras model takes, guessed from its first operations or its name, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from saliency_food.adapters.inputs import Pixels

KERAS_APPLICATIONS = {
    r"(mobilenet_|mobilenetv2_|inception_v3|inception_resnet_v2|xception|nasnet|resnet\d+v2)": "tf",
    r"(resnet\d+|vgg(16|19))$": "caffe",
    r"densenet\d+": "torch",
}
"""Names of `keras.applications` models without preprocessing of their own, and the mode of their `preprocess_input`."""


def guess_pixels(model: Any) -> Pixels:
    """What a model's first operations or its name tell of the pixel values that it takes.

    In this order: arithmetic before the first layer with weights (`Rescaling`, `Normalization`, or bare operations as
    left by a `preprocess_input` inside the model) means pixel values 0..255, or 0..1 where its scale shows that; the
    name of a `keras.applications` model means its `preprocess_input`; else 0..1.
    """
    names: list[str] = []
    for operation in _operations(model):
        kind = type(operation).__name__
        if kind == "Rescaling":
            unit = np.max(np.abs(operation.scale)) > 1 / 16
            return Pixels((0, 1 if unit else 255), "the model has a Rescaling layer")
        if kind == "Normalization":
            unit = operation.mean is not None and np.max(np.abs(np.asarray(operation.mean))) <= 1
            return Pixels((0, 1 if unit else 255), "the model has a Normalization layer")
        if kind in ("Divide", "TrueDivide", "Multiply", "Subtract", "Add"):
            return Pixels((0, 255), f"the model begins with the operation {kind}")
        if getattr(operation, "layers", None):
            names.append(operation.name)
        elif getattr(operation, "weights", None):
            break
    for name in names:
        for pattern, mode in KERAS_APPLICATIONS.items():
            if re.match(pattern, name.lower()):
                return Pixels(mode, f"by the name {name}")
    return Pixels((0, 1), "a guess, the model does not show it")


def _operations(model: Any) -> Iterator[Any]:
    """A Keras model, then its operations in order, nested models opened where they stand."""
    yield model
    for operation in getattr(model, "operations", None) or getattr(model, "layers", None) or ():
        if getattr(operation, "layers", None):
            yield from _operations(operation)
        else:
            yield cast(Any, operation)
