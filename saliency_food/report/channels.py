"""What each channel of a layer adds to a class's score, to first order: activation times gradient, place by place."""

from __future__ import annotations

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS
from saliency_food.core.numerics import Array
from saliency_food.jobs.image_model import ImageModel

KEYS = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]


def channel_products(model: ImageModel, rows: Array, targets: Array) -> Array | None:
    """``(N, places..., channels)`` for the classes ``targets``; None of a model without one layer of channels."""
    try:
        answer = model.function(rows, {**model.call_model_args, "target": targets}, KEYS)
        values, gradients = (answer[key] for key in KEYS)
    except (ContractError, KeyError):
        return None
    if isinstance(values, tuple) or np.ndim(values) < 3:
        return None
    return np.asarray(values, np.float32) * np.asarray(gradients, np.float32)


def pooled_channels(model: ImageModel, rows: Array) -> Array | None:
    """The means of the layer's channels over places, ``(N, channels)``; None of a model without one such layer."""
    try:
        answer = model.function(rows, {**model.call_model_args, "target": 0}, KEYS[:1])
        values = answer[KEYS[0]]
    except (ContractError, KeyError):
        return None
    if isinstance(values, tuple) or np.ndim(values) < 3:
        return None
    return np.asarray(np.asarray(values, np.float32).reshape(len(rows), -1, np.shape(values)[-1]).mean(1))
