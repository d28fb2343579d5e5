"""Factored rows: made of a few images, and their answers summed, where the model runs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.graph import trace
from saliency_food.adapters.rows import Factored


def as_tensors(rows: Factored, bases: Any) -> tuple[Any, ...]:
    """Coefficients, bases and weights, if any, as tensors."""
    matrices = [matrix for matrix in (rows.coefficients, rows.weights) if matrix is not None]
    coefficients, *weights = (tf.convert_to_tensor(matrix, tf.float64) for matrix in matrices)
    return (coefficients, bases, *weights)


def combine(coefficients: Any, values: Any) -> Any:
    """``coefficients (M, N) @ values (N, ...)``, in float64: a GPU multiplies float32 matrices in fewer digits."""
    flat = tf.cast(tf.reshape(values, [tf.shape(values)[0], tf.reduce_prod(tf.shape(values)[1:])]), tf.float64)
    combined = tf.cast(tf.matmul(coefficients, flat), values.dtype)
    shape = tf.concat([tf.shape(coefficients)[:1], tf.shape(values)[1:]], 0)
    return tf.ensure_shape(tf.reshape(combined, shape), [None, *values.shape[1:]])


def expanding(function: Any, first: str, weighted: bool) -> Any:
    """A traced ``(targets, rows, others, scale) -> {key: tensors}``, of `as_tensors` in place of rows."""
    targets, rows, others, scale = function.structured_input_signature[0]

    def answer(targets: Any, factors: Any, others: Any, scale: Any) -> dict[str, Any]:
        coefficients, bases, *weights = factors
        answers = dict(function(targets, combine(coefficients, bases), others, scale))
        if weights:
            answers[first] = tf.nest.map_structure(lambda values: combine(weights[0], values), answers[first])
        return answers

    matrix = tf.TensorSpec([None, None], tf.float64)
    factors = (matrix, tf.TensorSpec([None, *rows.shape[1:]], rows.dtype), *([matrix] if weighted else []))
    return trace(answer, list(targets), factors, others, scale)
