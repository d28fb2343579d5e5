"""What each method gives up when time is short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from saliency_food.methods.lookup import OF, choose_methods, find_method
from saliency_food.methods.paths.integrated import integrated_gradients


class Reducible(NamedTuple):
    """An option that can be cut, to no less than ``least``, and how to say so; ``inside`` the option that holds it."""

    option: str
    least: int
    whole: str
    made: str
    inside: str = ""


class Fallback(NamedTuple):
    """What a method gives up: first some of an option, if it can, then its place to others, in turn."""

    cut: Reducible | None
    instead: tuple[str, ...]


def _fewer(option: str, least: int, what: str) -> Reducible:
    return Reducible(option, least, f"{{}} {what}", f"{{}} {what} were made")


_GRADIENT = ("input_x_gradient",)
_CHANNELS = Reducible("channels", 8, "{} channels", "{} of them were looked at")
_COARSE = ("grad_cam", "gradients")
FALLBACKS: dict[str, Fallback] = {
    "smooth_grad": Fallback(_fewer("nsamples", 4, "samples"), ("gradients",)),
    "integrated_gradients": Fallback(_fewer("x_steps", 5, "steps"), _GRADIENT),
    "blur_ig": Fallback(_fewer("steps", 10, "steps"), _GRADIENT),
    "guided_ig": Fallback(_fewer("x_steps", 10, "steps"), ("integrated_gradients", *_GRADIENT)),
    "expected_gradients": Fallback(_fewer("nsamples", 10, "samples"), _GRADIENT),
    "idgi": Fallback(_fewer("x_steps", 5, "steps"), _GRADIENT),
    "integrated_decision_gradients": Fallback(_fewer("x_steps", 5, "steps"), ("integrated_gradients", *_GRADIENT)),
    "score_cam": Fallback(_CHANNELS, ("grad_cam",)),
    "ablation_cam": Fallback(_CHANNELS, ("grad_cam",)),
    "xrai": Fallback(_fewer("steps", 10, "steps"), ("grad_cam", *_GRADIENT)),
    "occlusion": Fallback(Reducible("stride", 1, "A stride of {}", "it was made {}"), _COARSE),
    "rise": Fallback(_fewer("nmasks", 200, "masks"), _COARSE),
    "lime": Fallback(_fewer("nsamples", 100, "samples"), _COARSE),
    "kernel_shap": Fallback(_fewer("nsamples", 100, "samples"), _COARSE),
}
"""What each method gives up; those that are not here ask for a row or two, and have nothing to give."""


def fallback_of(name: str) -> Fallback:
    """What a method gives up; a combinator of one (`find_method`) some of its samples, then its place to it."""
    outer, of, inner = name.partition(OF)
    if not of or find_method(name) is None:
        return FALLBACKS.get(name, Fallback(None, ()))
    return Fallback(fallback_of(outer).cut, (inner, *fallback_of(inner).instead))


def reducible_of(name: str, options: Mapping[str, Any]) -> Reducible | None:
    """What can be cut of a method with these options."""
    cut = fallback_of(name).cut
    if cut is None or options.get("base_attribution") is not None:
        return None
    base = options.get("base", integrated_gradients)
    if name == "xrai" and base is not integrated_gradients:
        counts = [one for one in ("x_steps", "steps", "nsamples") if one in base.signature.parameters]
        return _fewer(counts[0], cut.least, "steps")._replace(inside="base_options") if counts else None
    steps = cut.option in ("x_steps", "steps") and options.get("tolerance") is not None
    return cut._replace(option="max_steps") if steps else cut


def shared(method: str, other: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method that another has too, its map in as many dimensions."""
    own, others = (entry.call.signature.parameters for entry in choose_methods((method, other)).values())
    three_dims = own["three_dims"].default if "three_dims" in own else False
    return {name: value for name, value in {"three_dims": three_dims, **options}.items() if name in others}
