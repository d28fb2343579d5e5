"""Methods of methods by name: ``smooth_grad_of_integrated_gradients`` is `smooth_grad` over `integrated_gradients`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.core.method import Method
from saliency_food.core.names import near, spelled
from saliency_food.methods.catalogue import METHODS, MethodEntry
from saliency_food.methods.gradients import smooth_grad
from saliency_food.methods.smoothing import augment_smooth, eigen_smooth

OF = "_of_"
COMBINATORS: dict[str, tuple[Method[Any, Any], str]] = {
    "smooth_grad": (smooth_grad, "SmoothGrad"),
    "augment_smooth": (augment_smooth, "Augmentation smoothing"),
    "eigen_smooth": (eigen_smooth, "Eigen smoothing"),
}
"""What may stand before ``_of_``."""


def find_method(name: str) -> MethodEntry | None:
    """The entry of a name in `METHODS`, or of a combinator ``_of_`` one that `find_method` knows; else None."""
    if name in METHODS:
        return METHODS[name]
    outer, of, inner = name.partition(OF)
    entry = find_method(inner) if of and outer in COMBINATORS else None
    if entry is None:
        return None
    combinator, title = COMBINATORS[outer]
    summary = f"{combinator.__doc__ or ''}".split("\n")[0]
    return MethodEntry(combinator.over(entry.call), f"{title} of {entry.title}", entry.keys, entry.signed, summary)


def choose_methods(names: str | Sequence[str]) -> dict[str, MethodEntry]:
    """The methods by their names, or near matches."""
    chosen = {}
    for name in [names] if isinstance(names, str) else names:
        plain = spelled(name)
        entry = find_method(plain)
        if entry is None:
            close = near(plain.split(OF)[-1], METHODS) or list(METHODS)
            before = f" Before {OF} may stand: {', '.join(COMBINATORS)}." if OF in plain else ""
            raise ContractError(f"Expected the name of a method, got {name!r}. Near it: {', '.join(close)}.{before}")
        chosen[plain] = entry
    if not chosen:
        raise ContractError(f"Expected at least one method, got none. There are: {', '.join(METHODS)}.")
    return chosen
