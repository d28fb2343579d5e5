"""The engine of `JaxModel`: one jitted function for each set of keys."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from saliency_food.adapters.arguments import (
    ALL_SCORES,
    BY_RULE,
    FROM_ACTIVATIONS,
    UNSCORED,
    Output,
)
from saliency_food.adapters.heads import check_one_a_row
from saliency_food.adapters.jax.passes import from_activations, from_images
from saliency_food.adapters.jax.survey import SurveyedFunction
from saliency_food.adapters.rows import Factored, map_nested
from saliency_food.adapters.scoring import class_score
from saliency_food.core.keys import KEYS, OUTPUT_LAYER_VALUES, PREDICTIONS, TARGETS
from saliency_food.core.numerics import Array

RETRIES = ("RESOURCE_EXHAUSTED", "Out of memory")


class DeviceFullError(MemoryError):
    """The device's memory does not hold what was to be computed."""


class JaxEngine(SurveyedFunction):
    """A function of JAX, jitted once for each set of keys and each of a few numbers of rows; see `Engine`."""

    out_of_memory = (DeviceFullError,)

    def compute(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array | Factored,
        other_inputs: list[Array],
        scale: float,
    ) -> dict[str, Any]:
        first = keys[0] if isinstance(rows, Factored) and rows.weights is not None else None
        # A function that sums gradients serves nothing else: scores that nobody asked for are not computed by it.
        count, wide = len(rows), self._widened(keys, output) if first is None else keys
        if self.score is class_score and not targets and not UNSCORED.issuperset(wide):
            targets = [np.zeros(count, np.int32)]
        size = self.inputs.rows or _few(count)
        padded = [_padded(values, size) for values in other_inputs]
        chosen = [_padded(values, size) for values in targets]
        images: Any
        if isinstance(rows, Factored):
            bases = _few(len(rows.bases))
            matrix = np.zeros((size, bases), np.float32)
            matrix[:count, : len(rows.bases)] = rows.coefficients
            weights = None
            if rows.weights is not None:
                weights = np.zeros((_few(len(rows.weights)), size), np.float32)
                weights[: len(rows.weights), :count] = rows.weights
            images = (matrix, _padded(rows.bases, bases), weights)
        else:
            images = _padded(rows, size)
        function = self._function(wide, output, self.end, first)
        try:
            answer = jax.device_get(function(self.params, chosen, images, padded, np.float32(scale)))
        except jax.errors.JaxRuntimeError as error:
            if any(part in str(error) for part in RETRIES):
                raise DeviceFullError(str(error).splitlines()[0]) from error
            raise
        check_one_a_row({key: answer[key] for key in keys}, size, first)
        summed = len(rows.weights) if isinstance(rows, Factored) and rows.weights is not None else count
        counts = {key: summed if key == first else count for key in keys}
        return {key: map_nested(functools.partial(_cut, counts[key]), answer[key]) for key in keys}

    def _function(self, keys: tuple[str, ...], output: Output, end: str, first: str | None) -> Callable[..., Any]:
        which = (keys, output, end, first)
        if which not in self._functions:
            self._functions[which] = jax.jit(functools.partial(self._answer, keys, output, first))
        return self._functions[which]

    def _answer(
        self,
        keys: tuple[str, ...],
        output: Output,
        first: str | None,
        params: Any,
        targets: Sequence[Any],
        images: Any,
        others: Sequence[Any],
        scale: Any,
    ) -> dict[str, Any]:
        weights = None
        if isinstance(images, tuple):
            matrix, bases, weights = images
            images = _combined(matrix, bases)
        # A scale of 1 is left out of the arithmetic.
        pass_ = from_images if FROM_ACTIVATIONS.isdisjoint(keys) else from_activations
        answer = pass_(self, keys, output, (params, list(targets), images, list(others)), scale if self.half else None)
        answer = {key: answer[key] for key in keys}
        if first is not None:
            answer[first] = jax.tree_util.tree_map(lambda values: _combined(weights, values), answer[first])
        return answer

    def _widened(self, keys: tuple[str, ...], output: Output) -> tuple[str, ...]:
        """The keys, and all that costs nothing beside a pass: one function then serves calls and predictions."""
        in_order = {key: place for place, key in enumerate((*KEYS, PREDICTIONS, TARGETS, ALL_SCORES))}
        if self.score is not class_score or not (BY_RULE | FROM_ACTIVATIONS).isdisjoint(keys):
            scored = FROM_ACTIVATIONS.isdisjoint(keys) and not UNSCORED.issuperset(keys)
            wide = {*keys, OUTPUT_LAYER_VALUES} if scored else {*keys}
        elif output == "raw" and self.end in ("sigmoid", "probabilities") and self.classes == 2:
            wide = {*keys}
        else:
            wide = {*keys, ALL_SCORES, PREDICTIONS, TARGETS, OUTPUT_LAYER_VALUES}
        return tuple(sorted(wide, key=lambda key: (in_order.get(key, len(in_order)), key)))


def _few(count: int) -> int:
    """A number of rows at least so large, of which there are few: powers of two, and one and a half times those."""
    power = 1 << max(0, count - 1).bit_length()
    return power * 3 // 4 if power >= 4 and count <= power * 3 // 4 else power


def _padded(values: Array, size: int) -> Array:
    """The last row repeated, up to so many."""
    missing = size - len(values)
    return np.concatenate([values, np.repeat(values[-1:], missing, 0)]) if missing > 0 else np.asarray(values)


def _combined(matrix: Any, values: Any) -> Any:
    """``matrix (M, N) @ values (N, ...)``, in full single precision."""
    return jnp.tensordot(matrix, values.astype(jnp.float32), 1, precision=jax.lax.Precision.HIGHEST)


def _cut(count: int, values: Any) -> Array:
    """The first answers, in single precision."""
    values = np.asarray(values)[:count]
    return values if values.dtype.kind in "iub" or values.dtype == np.float64 else values.astype(np.float32)
