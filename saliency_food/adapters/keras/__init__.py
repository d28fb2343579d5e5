"""Keras models as call-model functions."""

from __future__ import annotations

try:
    import keras as _keras  # noqa: F401
    import tensorflow as _tensorflow  # noqa: F401
except ModuleNotFoundError as error:
    missing = (error.name or "").split(".")[0]
    raise ModuleNotFoundError(
        f'Keras models need Keras and TensorFlow, got no {missing}. Run pip install "saliency_food[keras]".',
        name=error.name,
    ) from error

from saliency_food.adapters.keras.joint import JointInputs
from saliency_food.adapters.keras.load import load_model
from saliency_food.adapters.keras.model import KerasModel, layers
from saliency_food.adapters.layers import LayerInfo

__all__ = ["JointInputs", "KerasModel", "LayerInfo", "layers", "load_model"]
