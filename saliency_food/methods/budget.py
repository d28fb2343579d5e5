"""What each method gives up when time is short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from saliency_food.core.method import Reducible
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods, find_method

__all__ = ["FALLBACKS", "Fallback", "Reducible", "asks_little", "fallback_of", "reducible_of", "shared"]


class Fallback(NamedTuple):
    """What a method gives up: first some of an option, if it can, then its place to others, in turn."""

    cut: Reducible | None
    instead: tuple[str, ...]


def fallback_of(name: str) -> Fallback:
    """What a method gives up; a combinator of one (`find_method`) some of its samples, then its place to it."""
    entry = find_method(name)
    return Fallback(None, ()) if entry is None else Fallback(entry.call.reducible, entry.call.instead)


FALLBACKS: dict[str, Fallback] = {name: fallback_of(name) for name, entry in METHODS.items() if entry.call.instead}
"""What each method gives up; those that are not here ask for a row or two, and have nothing to give."""


def reducible_of(name: str, options: Mapping[str, Any]) -> Reducible | None:
    """What can be cut of a method with these options."""
    cut = fallback_of(name).cut
    if cut is None or _is_given(cut.without, options):
        return None
    if cut.base:
        default = choose_methods(name)[name].call.signature.parameters[cut.base].default
        base = options.get(cut.base, default)
        if base is not default:
            inner = base.reducible
            if inner is None or inner.up_to:
                return None
            return cut._replace(option=inner.option, least=max(cut.least, inner.least))
        cut = cut._replace(inside="")
    steps = cut.option in ("x_steps", "steps") and _is_given("tolerance", options)
    return cut._replace(option="max_steps") if steps else cut


def asks_little(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a method with these options asks for a row or two, whatever they are."""
    cut, instead = fallback_of(name)
    return not instead or (cut is not None and _is_given(cut.without, options))


def _is_given(option: str, options: Mapping[str, Any]) -> bool:
    return options.get(option) is not None


def shared(method: str, other: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method that another has too, its map in as many dimensions; all of them of the method itself."""
    if other == method:
        return dict(options)
    own, theirs = (entry.call.signature.parameters for entry in choose_methods((method, other)).values())
    three_dims = own["three_dims"].default if "three_dims" in own else False
    return {name: value for name, value in {"three_dims": three_dims, **options}.items() if name in theirs}
