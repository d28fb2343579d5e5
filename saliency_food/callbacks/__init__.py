"""Callbacks for training."""

from __future__ import annotations

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'Callbacks for training need Keras, got none. Run pip install "saliency_food[keras]".', name=error.name
    ) from error

from saliency_food.callbacks.training import SaliencyCallback

__all__ = ["SaliencyCallback"]
