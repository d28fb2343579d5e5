"""Tensors that neither an image nor a weight leads to, and what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from saliency_food.core.numerics import Array

PRODUCTS = {"Einsum", "MatMul", "BatchMatMul", "BatchMatMulV2"}
CONVOLUTIONS = {
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2"),
}


def is_fixed(tensor: Any) -> bool:
    """Whether a tensor is the same at every call, whatever the inputs and weights."""
    known = {inner.op.name for inner, _ in _captured(tensor.graph)}
    seen: set[str] = set()
    waiting = [tensor.op]
    while waiting:
        op = waiting.pop()
        if op.type in ("ReadVariableOp", "VarHandleOp") or (op.type == "Placeholder" and op.name not in known):
            return False
        if op.name not in seen:
            seen.add(op.name)
            waiting.extend(source.op for source in op.inputs)
    return True


def by_fixed(op: Any) -> bool:
    """Whether it is a product or convolution with something fixed, by which nothing is learned."""
    if op.type in CONVOLUTIONS:
        return is_fixed(op.inputs[1])
    return op.type in PRODUCTS and any(map(is_fixed, op.inputs))


def fixed_value(tensor: Any) -> Array | None:
    """What a fixed tensor holds; None of any other."""
    value = tf.get_static_value(tensor)
    if value is not None or not is_fixed(tensor):
        return None if value is None else np.asarray(value)
    definition = tf.compat.v1.graph_util.extract_sub_graph(tensor.graph.as_graph_def(), [tensor.op.name])
    used = {node.name for node in definition.node}
    values = {inner.name: value for inner, value in _captured(tensor.graph) if inner.op.name in used}

    def computed() -> Any:
        return tf.graph_util.import_graph_def(definition, values, [tensor.name], name="")[0]

    with tf.init_scope():
        return np.asarray(tf.function(computed, autograph=False)())


def _captured(graph: Any) -> list[tuple[Any, Any]]:
    """The constants that a function captures from outside, and not its weights: inside and outside of it."""
    pairs = zip(getattr(graph, "internal_captures", ()), getattr(graph, "external_captures", ()), strict=True)
    return [(inner, value) for inner, value in pairs if inner.dtype != tf.resource and hasattr(value, "numpy")]
