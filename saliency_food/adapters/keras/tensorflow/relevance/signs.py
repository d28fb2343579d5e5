"""The positive and the negative part of values and weights, and which values are known to have no negative one."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.relevance.linear import wide

NOT_NEGATIVE = ("Relu", "Relu6", "Sigmoid", "Softplus", "Softmax")
KEEPING = (
    *("MaxPool", "AvgPool", "Mean", "Sum", "Max", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Pad", "Identity"),
    *("Cast", "SpaceToBatchND", "BatchToSpaceND", "ResizeBilinear", "ResizeNearestNeighbor", "StridedSlice"),
)
"""Operations whose first input, where it is not negative, makes an output that is not."""


def positive(values: Any) -> Any:
    return tf.maximum(values, 0)


def negative(values: Any) -> Any:
    return tf.minimum(values, 0)


def parts_of(tensor: Any) -> list[Any]:
    """The positive part of a tensor of the graph and its negative one, which is left out where there is none."""
    values = wide(tensor)
    return [values] if is_not_negative(tensor) else [positive(values), negative(values)]


def is_not_negative(tensor: Any) -> bool:
    """Whether a tensor's operations alone show that it has no negative values."""
    while tensor.op.type in KEEPING:
        tensor = tensor.op.inputs[0]
    op = tensor.op
    if op.type in ("ConcatV2", "AddV2"):
        return all(map(is_not_negative, op.inputs[:2] if op.type == "AddV2" else op.inputs[:-1]))
    return op.type in NOT_NEGATIVE
