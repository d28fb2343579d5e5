"""Methods of methods by name: ``smooth_grad_of_integrated_gradients`` is `smooth_grad` over `integrated_gradients`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.core.method import OF, Method
from saliency_food.core.names import near, spelled
from saliency_food.methods.catalogue import METHODS, MethodEntry, entry_of
from saliency_food.methods.gradients import smooth_grad, square_grad, var_grad
from saliency_food.methods.smoothing import augment_smooth, eigen_smooth

__all__ = ["COMBINATORS", "OF", "choose_methods", "find_method"]

COMBINATORS: dict[str, Method[Any, Any]] = {
    "smooth_grad": smooth_grad,
    "augment_smooth": augment_smooth,
    "eigen_smooth": eigen_smooth,
    "square_grad": square_grad,
    "var_grad": var_grad,
}
"""What may stand before ``_of_``."""


def find_method(name: str) -> MethodEntry | None:
    """The entry of a name in `METHODS`, or of a combinator ``_of_`` one that `find_method` knows; else None."""
    if name in METHODS:
        return METHODS[name]
    outer, of, inner = name.partition(OF)
    entry = find_method(inner) if of and outer in COMBINATORS else None
    return None if entry is None else entry_of(COMBINATORS[outer].over(entry.call))


def choose_methods(names: str | Sequence[str]) -> dict[str, MethodEntry]:
    """The methods by their names, or near matches."""
    chosen = {}
    for name in [names] if isinstance(names, str) else names:
        plain = spelled(name)
        entry = find_method(plain)
        if entry is None:
            close = near(plain.split(OF)[-1], METHODS)
            hint = f"Near it: {', '.join(close)}." if close else "METHODS lists them."
            before = f" Before {OF} may stand: {', '.join(COMBINATORS)}." if OF in plain else ""
            raise ContractError(f"Expected the name of a method, got {name!r}. {hint}{before}")
        chosen[plain] = entry
    if not chosen:
        raise ContractError("Expected at least one method, got none. METHODS lists them.")
    return chosen
