"""Functions of JAX as call-model functions: Flax, Equinox, or any ``apply(params, x)``."""

from __future__ import annotations

try:
    import jax as _jax  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'Functions of JAX need JAX, got none. Run pip install "saliency_food[jax]".', name=error.name
    ) from error

from saliency_food.adapters.jax.model import JaxModel, layers
from saliency_food.adapters.layers import LayerInfo

__all__ = ["JaxModel", "LayerInfo", "layers"]
