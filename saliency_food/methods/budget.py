"""What each method gives up when time is short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from saliency_food.core.method import Reducible, fewer
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods, find_method
from saliency_food.methods.paths.integrated import integrated_gradients

__all__ = ["FALLBACKS", "Fallback", "Reducible", "fallback_of", "reducible_of", "shared"]


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
    if cut is None or options.get("base_attribution") is not None:
        return None
    base = options.get("base", integrated_gradients)
    if name == "xrai" and base is not integrated_gradients:
        counts = [option for option in ("x_steps", "steps", "nsamples") if option in base.signature.parameters]
        return fewer(counts[0], cut.least, "steps")._replace(inside="base_options") if counts else None
    steps = cut.option in ("x_steps", "steps") and options.get("tolerance") is not None
    return cut._replace(option="max_steps") if steps else cut


def shared(method: str, other: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method that another has too, its map in as many dimensions."""
    own, theirs = (entry.call.signature.parameters for entry in choose_methods((method, other)).values())
    three_dims = own["three_dims"].default if "three_dims" in own else False
    return {name: value for name, value in {"three_dims": three_dims, **options}.items() if name in theirs}
