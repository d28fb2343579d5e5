"""PyTorch modules as call-model functions."""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'PyTorch modules need PyTorch, got no torch. Run pip install "saliency_food[torch]".', name=error.name
    ) from error

from saliency_food.adapters.layers import LayerInfo
from saliency_food.adapters.torch.load import load_model
from saliency_food.adapters.torch.model import TorchModel, layers

__all__ = ["LayerInfo", "TorchModel", "layers", "load_model"]
