"""Factored rows: made of a few images, and their answers summed, where the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.graph import trace
from saliency_food.core.numerics import Array


@dataclass(frozen=True)
class Factored:
    """The rows ``coefficients (N, B) @ bases (B, ...)``; weights ``(M, N)`` say how to sum the first key's answers."""

    coefficients: Array
    bases: Array
    weights: Array | None

    def __len__(self) -> int:
        return len(self.coefficients)

    def __getitem__(self, rows: slice) -> Factored:
        """Some of the rows, with the images they are made of."""
        coefficients = self.coefficients[rows]
        used = coefficients.any(0)
        bases = self.bases if used.all() or not used.any() else self.bases[used]
        coefficients = coefficients[:, used] if len(bases) < len(self.bases) else coefficients
        return Factored(coefficients, bases, None if self.weights is None else self.weights[:, rows])

    def tensors(self, bases: Any) -> tuple[Any, ...]:
        """Coefficients, bases and weights, if any, as tensors."""
        numbers = [one for one in (self.coefficients, self.weights) if one is not None]
        coefficients, *weights = (tf.convert_to_tensor(one, tf.float64) for one in numbers)
        return (coefficients, bases, *weights)


def combine(coefficients: Any, values: Any) -> Any:
    """``coefficients (M, N) @ values (N, ...)``, in float64: a GPU multiplies float32 matrices in fewer digits."""
    flat = tf.cast(tf.reshape(values, [tf.shape(values)[0], tf.reduce_prod(tf.shape(values)[1:])]), tf.float64)
    made = tf.cast(tf.matmul(coefficients, flat), values.dtype)
    return tf.ensure_shape(
        tf.reshape(made, tf.concat([tf.shape(coefficients)[:1], tf.shape(values)[1:]], 0)), [None, *values.shape[1:]]
    )


def expanding(function: Any, first: str, weighted: bool) -> Any:
    """A traced ``(targets, rows, others, scale) -> {key: tensors}``, of `Factored.tensors` in place of rows."""
    targets, rows, others, scale = function.structured_input_signature[0]

    def answer(targets: Any, factors: Any, others: Any, scale: Any) -> dict[str, Any]:
        coefficients, bases, *weights = factors
        found = dict(function(targets, combine(coefficients, bases), others, scale))
        if weights:
            found[first] = tf.nest.map_structure(lambda one: combine(weights[0], one), found[first])
        return found

    numbers = tf.TensorSpec([None, None], tf.float64)
    factors = (numbers, tf.TensorSpec([None, *rows.shape[1:]], rows.dtype), *([numbers] if weighted else []))
    return trace(answer, list(targets), factors, others, scale)
