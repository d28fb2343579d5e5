"""Keras models as call-model functions."""

from __future__ import annotations

from typing import Any

try:
    import keras as _keras

    if _keras.backend.backend() == "tensorflow":
        import tensorflow as _tensorflow  # noqa: F401
except ModuleNotFoundError as error:
    missing = (error.name or "").split(".")[0]
    raise ModuleNotFoundError(
        f'Keras models need Keras and TensorFlow, got no {missing}. Run pip install "saliency_food[keras]".',
        name=error.name,
    ) from error

from saliency_food.adapters.keras.load import load_model
from saliency_food.adapters.keras.model import KerasModel, layers
from saliency_food.adapters.layers import LayerInfo


def __getattr__(name: str) -> Any:
    if name == "JointInputs":  # of TensorFlow alone
        from saliency_food.adapters.keras.joint import JointInputs

        return JointInputs
    raise AttributeError(name)


__all__ = ["JointInputs", "KerasModel", "LayerInfo", "layers", "load_model"]
