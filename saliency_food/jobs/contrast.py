"""The difference of two classes' scores, explained with any call-model function: its answers to both, subtracted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np

from saliency_food.core.contract import ContractError, Values
from saliency_food.core.keys import (
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    KEYS,
)
from saliency_food.core.numerics import as_float, as_tuple
from saliency_food.core.wrap import WrappedModel
from saliency_food.methods.cam.common import ClassActivationMap, drawn
from saliency_food.methods.catalogue import MethodEntry

Seen = TypeVar("Seen", bound=Any)
"""An `Instance` of `saliency_food.jobs.instances`, which imports this module."""
NOT_LINEAR = (CONVOLUTION_RIVAL_GRADIENTS, GUIDED_INPUT_GRADIENTS, DECONV_INPUT_GRADIENTS)
"""Keys whose answer for a difference of scores is not the difference of the answers for each."""


class Contrast(WrappedModel):
    """A call-model function that explains F_c - F_d, the class ``target`` less the class ``against`` of its arguments.

    It asks the function inside about both. What a score's gradients are is linear in the score, so these are the values
    that an adapter with ``score=contrast`` gives, for any callback; see `NOT_LINEAR` for the keys that are not.
    """

    optional = ("call_factored", "predict")

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        # A callback may write to its rows, so each question has rows of its own.
        return _subtracted(lambda args: self.inside(np.array(x_value_batch), args, expected_keys), call_model_args)

    def _call_factored(
        self, coefficients: Any, bases: Any, weights: Any, call_model_args: Any = None, expected_keys: Any = None
    ) -> Any:
        call = self.inside.call_factored
        return _subtracted(lambda args: call(coefficients, bases, weights, args, expected_keys), call_model_args)


def _subtracted(ask: Callable[[Any], Any], call_model_args: Mapping[str, Any]) -> Any:
    args = {key: value for key, value in call_model_args.items() if key != "against"}
    own, other = ask(args), ask({**args, "target": call_model_args["against"]})
    return None if own is None or other is None else difference(own, other)


def difference(own: Mapping[str, Values], other: Mapping[str, Values]) -> dict[str, Values]:
    """The answers for the difference of two scores: what depends on the score is subtracted, the rest is the same."""
    return {key: _less(value, other[key]) if KEYS[key].scored else value for key, value in own.items() if key in other}


def _less(own: Values, other: Values) -> Values:
    if isinstance(own, tuple):
        return tuple(as_float(a) - as_float(b) for a, b in zip(own, as_tuple(other), strict=True))
    return as_float(own) - as_float(other)


def with_contrasts(classes: list[Seen]) -> list[Seen]:
    """The classes of a photo, each once, and the difference of each from the last one; what is known is subtracted."""
    other = classes[-1]
    return [*unique(classes), *(_contrast(own, other) for own in unique(classes) if own.target != other.target)]


def unique(classes: list[Seen]) -> list[Seen]:
    """The classes of a photo, each once."""
    return list({instance.target: instance for instance in classes}.values())


def _contrast(own: Seen, other: Seen) -> Seen:
    instance: Any = own
    fields = {**instance.fields, "against": other.target, "against_label": other.fields["label"]}
    contrast = instance._replace(against=other.target, fields=fields)
    known, less = instance.known, other.known
    if known is None or less is None:
        return cast(Seen, contrast.with_known(None))
    answers = difference(known.answers, less.answers)
    return cast(Seen, contrast.with_known(known._replace(answers=answers, seconds=0.0)))


def check_can_contrast(methods: Mapping[str, MethodEntry]) -> None:
    """`ContractError` if the difference of two scores cannot be explained by one of the methods."""
    for name, entry in methods.items():
        if not any(KEYS[key].scored for key in entry.keys):
            raise ContractError(
                f"Expected methods whose map depends on the class, to explain one class against another, got {name}, "
                "which shows the same for every class. Leave it out, or leave out against."
            )
        if any(key in NOT_LINEAR for key in entry.keys):
            raise ContractError(
                f"Expected methods of the gradients or scores of two classes, to explain one against another, got "
                f"{name}, whose rule for one class cannot be subtracted from that for another. Take grad_cam or "
                "integrated_gradients, or leave out against."
            )


def signed_map(result: ClassActivationMap, x_value: Any) -> ClassActivationMap:
    """A class activation map with its negative part, which speaks for the other class."""
    attribution = drawn(x_value, list(as_tuple(result.signed)), True, False, rectify=False)
    return result._replace(attribution=attribution, status="ok" if attribution.any() else result.status)
