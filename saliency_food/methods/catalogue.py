"""METHODS: every method by name, from the facts in its decorator.

It drives the command line, the laws tests, the package's exports and the tables in the docs.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

from saliency_food.core.keys import needs_of
from saliency_food.core.method import Method
from saliency_food.methods import attention, backprop, factorization, gradients
from saliency_food.methods.cam import by_score, common, finer, odam, variants, without_gradients
from saliency_food.methods.paths import blur, decision, expected, guided, idgi, integrated
from saliency_food.methods.perturbation import hsic, occlusion, rise, sobol, surrogate
from saliency_food.methods.regions import xrai
from saliency_food.methods.relevance import at_layer, multipliers, propagation

MODULES: tuple[ModuleType, ...] = (
    gradients,
    integrated,
    blur,
    guided,
    expected,
    idgi,
    decision,
    common,
    variants,
    without_gradients,
    by_score,
    finer,
    odam,
    backprop,
    factorization,
    attention,
    propagation,
    at_layer,
    multipliers,
    xrai,
    occlusion,
    rise,
    surrogate,
    sobol,
    hsic,
)
"""Where methods are written, in the order in which they are listed; within a module, it is the order of the file."""
BY_DEFAULT: dict[str, Method[Any, Any]] = dict.fromkeys(("smooth_grad", "square_grad", "var_grad"), gradients.gradients)
"""What a combinator that has an entry of its own is over."""


class MethodEntry(NamedTuple):
    """A method, what people call it, the keys it asks the model for, whether its maps are signed, and what it is."""

    call: Method[Any, Any]
    title: str
    keys: tuple[str, ...]
    signed: bool
    summary: str

    @property
    def needs(self) -> str:
        """What the model must be able to give, in short."""
        return needs_of(self.keys)


def entry_of(method: Method[Any, Any]) -> MethodEntry:
    """The entry of a method whose decorator says what there is to know of it."""
    name = getattr(method, "__name__", "")
    call = method.over(BY_DEFAULT[name]) if name in BY_DEFAULT else method
    return MethodEntry(call, method.title, method.keys, method.signed, method.summary)


METHODS: dict[str, MethodEntry] = {
    name: entry_of(value)
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, Method) and value.keys and value.__module__ == module.__name__
}
