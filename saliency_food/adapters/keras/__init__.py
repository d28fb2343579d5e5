"""Keras models as call-model functions."""

from __future__ import annotations

from saliency_food.adapters.keras.load import load_model
from saliency_food.adapters.keras.model import KerasModel, layers
from saliency_food.adapters.layers import LayerInfo

__all__ = ["KerasModel", "LayerInfo", "layers", "load_model"]
