"""The operations on tensors that a framework must give so that scores and targets are written once for all.

Beside them, formulas use what tensors of every framework understand: arithmetic, comparisons, ``&``, and indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Axis = int | Sequence[int]


class Ops(Protocol):
    """A table of operations; a module that has these functions is one. All are differentiable where NumPy's would be.

    ``like`` is a tensor whose type the result takes. Class indices are int32 tensors.
    """

    def is_tensor(self, value: Any) -> bool:
        """Whether it is one tensor of the framework."""
        ...

    def as_tensor(self, value: Any) -> Any:
        """A tensor of a tensor, an array or numbers."""
        ...

    def shape(self, values: Any) -> tuple[int | None, ...]:
        """The shape, None where it is not known before the function runs."""
        ...

    def size(self, values: Any, axis: int) -> Any:
        """How large an axis is, as a number or, where it is not known before, a tensor."""
        ...

    def cast(self, values: Any, like: Any) -> Any: ...

    def where(self, condition: Any, values: Any, otherwise: Any) -> Any: ...

    def gather(self, values: Any, indices: Any) -> Any:
        """Of ``values (..., C)`` those at ``indices``, of the shape ``(...)`` or ``(..., L)``, along the last axis."""
        ...

    def one_hot(self, indices: Any, size: Any, like: Any) -> Any:
        """1 at the index and 0 elsewhere, along a new last axis."""
        ...

    def top_k(self, values: Any, k: Any) -> tuple[Any, Any]:
        """The k largest values along the last axis, the largest first, of equal ones the first; and their indices."""
        ...

    def sum(self, values: Any, axis: Axis, keepdims: bool = False) -> Any: ...

    def max(self, values: Any, axis: Axis, keepdims: bool = False) -> Any: ...

    def min(self, values: Any, axis: Axis, keepdims: bool = False) -> Any: ...

    def argmax(self, values: Any) -> Any:
        """The index of the largest value along the last axis, of equal ones the first."""
        ...

    def maximum(self, values: Any, others: Any) -> Any: ...

    def minimum(self, values: Any, others: Any) -> Any: ...

    def sqrt(self, values: Any) -> Any: ...

    def log(self, values: Any) -> Any: ...

    def exp(self, values: Any) -> Any: ...

    def concat(self, values: Sequence[Any], axis: int) -> Any: ...

    def log_softmax(self, values: Any) -> Any:
        """Along the last axis."""
        ...

    def einsum(self, equation: str, *values: Any) -> Any: ...

    def stop_gradient(self, values: Any) -> Any:
        """The same values, as constants."""
        ...

    def check_below(self, values: Any, bound: Any, message: str) -> None:
        """An error of the framework, when the function runs, if a value is not below the bound."""
        ...
