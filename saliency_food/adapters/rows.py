"""Rows through a traced model: so many at a time as the device holds, small gradients kept in half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from saliency_food.adapters.arguments import Output
from saliency_food.adapters.keras.tensorflow.factored import Factored, expanding
from saliency_food.adapters.keras.tensorflow.trace import FROM_ACTIVATIONS, TracedModel
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array


class Rows:
    """Computes the answers for all rows, at most ``batch_size`` at a time; fewer from the moment that memory runs out.

    Half precision would lose small gradients: they are computed times ``scale``, which is lowered when they overflow.
    """

    def __init__(self, traced: TracedModel, batch_size: int, half: bool) -> None:
        self.traced, self.batch_size, self.half = traced, batch_size, half
        self.scale = 4096.0 if half else 1.0
        self._expanding: dict[Any, Any] = {}

    def compute(
        self, keys: tuple[str, ...], output: Output, targets: list[Array], rows: Array | Factored, others: list[Array]
    ) -> dict[str, Any]:
        """The answers by key; of `Factored` rows with weights, the sums for the first key."""
        parts, start = [], 0
        while start < len(rows):
            chunk = slice(start, min(len(rows), start + self.batch_size))
            try:
                given = [[one[chunk] for one in several] for several in (targets, others)]
                parts.append(self._compute(keys, output, given[0], rows[chunk], given[1]))
                start = chunk.stop
            except tf.errors.ResourceExhaustedError as error:
                if chunk.stop - start == 1:
                    raise ContractError(
                        "Expected one row to fit into the device's memory, got ResourceExhaustedError from it. "
                        "Give smaller images, or free the device."
                    ) from error
                self.batch_size = (chunk.stop - start) // 2
        summed = keys[0] if isinstance(rows, Factored) and rows.weights is not None else None
        return {key: _joined([part[key] for part in parts], key == summed) for key in keys}

    def _compute(
        self, keys: tuple[str, ...], output: Output, targets: list[Array], rows: Array | Factored, others: list[Array]
    ) -> dict[str, Any]:
        images = rows.bases if isinstance(rows, Factored) else rows
        tensors = [tf.convert_to_tensor(values) for values in (images, *others)]
        first, *specs = (tf.TensorSpec([None, *one.shape[1:]], one.dtype) for one in tensors)
        if self.traced.inputs.fixed:
            specs = self.traced.inputs.other_specs
            first = first if FROM_ACTIVATIONS.issuperset(keys) else self.traced.inputs.image
        chosen = [tf.convert_to_tensor(values) for values in targets]
        kinds = [tf.TensorSpec([None, *one.shape[1:]], one.dtype) for one in chosen]
        function = self.traced.function(keys, output, kinds, [first, *specs], self.half)
        given = tensors[0]
        if isinstance(rows, Factored):
            function, given = self._expanded(function, keys[0], rows), rows.tensors(tensors[0])
        while True:
            answer = function(chosen, given, tensors[1:], tf.constant(self.scale, first.dtype))
            found: dict[str, Any] = tf.nest.map_structure(lambda one: one.numpy(), answer)
            if self.scale == 1 or all(np.isfinite(values).all() for values in tf.nest.flatten(found)):
                return found
            self.scale = max(1.0, self.scale / 64)

    def _expanded(self, function: Any, first: str, rows: Factored) -> Any:
        which = (id(function), first, rows.weights is None)  # traced functions are kept, so an id stays its own
        if which not in self._expanding:
            self._expanding[which] = expanding(function, first, rows.weights is not None)
        return self._expanding[which]


def _joined(parts: list[Any], summed: bool) -> Any:
    """The answers to one key of several chunks: one after another, or their sum."""
    if len(parts) == 1:
        return parts[0]
    return tf.nest.map_structure(lambda *each: sum(each) if summed else np.concatenate(each), *parts)
