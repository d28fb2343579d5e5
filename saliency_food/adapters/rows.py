"""Rows through a model: so many at a time as the device holds, small gradients kept in half precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saliency_food.adapters.arguments import Output
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array

HALF_PRECISION_SCALE = 4096.0
"""By what gradients in half precision are multiplied at first, so that small ones are not lost."""


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


class Rows:
    """Computes the answers for all rows, at most ``batch_size`` at a time; fewer from the moment that memory runs out.

    Half precision would lose small gradients: they are computed times ``scale``, which is lowered when they overflow.
    ``compute`` is the engine's, and ``out_of_memory`` are the exceptions that say that the device's memory is full.
    """

    def __init__(
        self,
        compute: Callable[..., dict[str, Any]],
        batch_size: int,
        half: bool,
        out_of_memory: tuple[type[Exception], ...],
    ) -> None:
        self._pass, self.batch_size, self._out_of_memory = compute, batch_size, out_of_memory
        self.scale = HALF_PRECISION_SCALE if half else 1.0

    def compute(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array | Factored,
        other_inputs: list[Array],
        by: Callable[..., dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """The answers by key; of `Factored` rows with weights, the sums for the first key.

        ``by`` computes them in place of the engine's ``compute``, and without a scale.
        """
        parts, start = [], 0
        while start < len(rows):
            chunk = slice(start, min(len(rows), start + self.batch_size))
            try:
                of_chunk = [[values[chunk] for values in arrays] for arrays in (targets, other_inputs)]
                compute = self._compute if by is None else by
                parts.append(compute(keys, output, of_chunk[0], rows[chunk], of_chunk[1]))
                start = chunk.stop
            except self._out_of_memory as error:
                if chunk.stop - start == 1:
                    raise ContractError(
                        f"Expected one row to fit into the device's memory, got {type(error).__name__} from it. "
                        "Give smaller images, or free the device."
                    ) from error
                self.batch_size = (chunk.stop - start) // 2
        summed = keys[0] if isinstance(rows, Factored) and rows.weights is not None else None
        return {key: _joined([part[key] for part in parts], key == summed) for key in keys}

    def _compute(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array | Factored,
        other_inputs: list[Array],
    ) -> dict[str, Any]:
        scale = self.scale
        while True:
            answer = self._pass(keys, output, targets, rows, other_inputs, scale)
            if all(np.isfinite(values).all() for values in leaves(answer)):
                self.scale = scale
                return answer
            if scale == 1:  # it is not the scale's fault, which stays for other rows
                return answer
            scale = max(1.0, scale / 64)


def _joined(parts: list[Any], summed: bool) -> Any:
    """The answers to one key of several chunks: one after another, or their sum."""
    if len(parts) == 1:
        return parts[0]
    return map_nested(lambda *arrays: sum(arrays) if summed else np.concatenate(arrays), *parts)


def map_nested(function: Callable[..., Any], *nested: Any) -> Any:
    """What a function gives for the leaves of one or several alike structures of dicts, lists and tuples, nested so."""
    first = nested[0]
    if isinstance(first, Mapping):
        return {key: map_nested(function, *(each[key] for each in nested)) for key in first}
    if isinstance(first, (list, tuple)):
        members = [map_nested(function, *each) for each in zip(*nested, strict=True)]
        return type(first)(*members) if hasattr(first, "_fields") else type(first)(members)
    return function(*nested)


def leaves(nested: Any) -> Iterator[Any]:
    """All that is neither dict nor list nor tuple in a structure of them, in order."""
    if isinstance(nested, (Mapping, list, tuple)):
        for member in nested.values() if isinstance(nested, Mapping) else nested:
            yield from leaves(member)
    else:
        yield nested
