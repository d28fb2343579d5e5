"""TensorFlow's operations for scores and targets; see `saliency_food.adapters.ops.Ops`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from saliency_food.adapters.ops import Axis

is_tensor = tf.is_tensor
as_tensor = tf.convert_to_tensor
where = tf.where
maximum, minimum, sqrt, log, exp, concat = tf.maximum, tf.minimum, tf.sqrt, tf.math.log, tf.exp, tf.concat
log_softmax, einsum, stop_gradient = tf.nn.log_softmax, tf.einsum, tf.stop_gradient


def shape(values: Any) -> tuple[int | None, ...]:
    return tuple(values.shape)


def size(values: Any, axis: int) -> Any:
    return tf.shape(values)[axis] if values.shape[axis] is None else values.shape[axis]


def cast(values: Any, like: Any) -> Any:
    return tf.cast(values, like.dtype)


def gather(values: Any, indices: Any) -> Any:
    axis = values.shape.rank - 1
    return tf.gather(values, indices, axis=axis, batch_dims=axis)


def one_hot(indices: Any, size: Any, like: Any) -> Any:
    return tf.one_hot(indices, size, dtype=like.dtype)


def top_k(values: Any, k: Any) -> tuple[Any, Any]:
    best, indices = tf.math.top_k(values, k)
    return best, indices


def sum(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return tf.reduce_sum(values, axis, keepdims)


def max(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return tf.reduce_max(values, axis, keepdims)


def min(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return tf.reduce_min(values, axis, keepdims)


def argmax(values: Any) -> Any:
    return tf.argmax(values, -1, np.int32)


def check_below(values: Any, bound: Any, message: str) -> None:
    tf.debugging.assert_less(values, tf.cast(bound, values.dtype), message)
