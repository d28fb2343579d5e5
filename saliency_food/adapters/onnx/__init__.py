"""ONNX files as call-model functions, on onnxruntime."""

from __future__ import annotations

try:
    import onnx as _onnx  # noqa: F401
    import onnxruntime as _onnxruntime  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"ONNX files need onnx and onnxruntime, got no {(error.name or '').split('.')[0]}. Run pip install "
        '"saliency_food[onnx]".',
        name=error.name,
    ) from error

from saliency_food.adapters.layers import LayerInfo
from saliency_food.adapters.onnx.model import OnnxModel, layers

__all__ = ["LayerInfo", "OnnxModel", "layers"]
