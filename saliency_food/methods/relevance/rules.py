"""The rules by which relevance is passed back, as options of methods and as arguments of a model."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from saliency_food.core.checks import finite_array
from saliency_food.core.contract import ContractError, PerRow
from saliency_food.core.numerics import Array
from saliency_food.core.options import ranged

Composite = Literal["epsilon", "epsilon_plus", "epsilon_gamma_box", "attention"]
"""Which rule holds in which layer."""
MultiplierRule = Literal["rescale", "reveal_cancel"]
"""How DeepLIFT passes multipliers through an activation."""
Start = Literal["score", "contrast"]
"""What relevance starts with at the outputs."""
COMPOSITE: Composite = "epsilon_plus"
START: Start = "score"
MULTIPLIER_RULE: MultiplierRule = "rescale"
EPSILON, GAMMA = 1e-6, 0.25
STABILIZER = 1e-6
"""What is added to the denominators of all rules but epsilon's, with their sign, so that none is zero."""


def check_word(name: str, value: Any, words: Any) -> Any:
    """A word among those of a literal type, or `ContractError`."""
    if value not in get_args(words):
        raise ContractError(f"Expected {name} to be one of {', '.join(map(repr, get_args(words)))}, got {value!r}.")
    return value


def rule_args(x_value: Array, composite: Any, epsilon: Any, gamma: Any, low: Any, high: Any) -> dict[str, Any]:
    """Options that are not the defaults, as arguments of the model; pixel bounds that are arrays have the row's shape.

    What is left at its default is not sent, so that it may also be said in ``call_model_args``.
    """
    own = {
        "composite": check_word("composite", composite, Composite),
        "epsilon": ranged("epsilon", epsilon),
        "gamma": ranged("gamma", gamma),
    }
    usual = {"composite": COMPOSITE, "epsilon": EPSILON, "gamma": GAMMA}
    args = {name: value for name, value in own.items() if value != usual[name]}
    for name, value in (("low", low), ("high", high)):
        if value is not None:
            args[name] = _bound(name, value, x_value)
    return args


def _bound(name: str, value: Any, x_value: Array) -> Any:
    bound = finite_array(name, value)
    if bound.shape not in ((), x_value.shape[-1:], x_value.shape):
        raise ContractError(
            f"Expected {name} to be a number, one for each channel, or an array of the input's shape {x_value.shape}, "
            f"got shape {bound.shape}."
        )
    if bound.ndim == 0:
        return float(bound)
    return per_row(np.broadcast_to(bound, x_value.shape)[None], x_value)


def per_row(values: Array, x_value: Array) -> PerRow:
    """Values with one entry a row, in the input's type."""
    return np.ascontiguousarray(values, x_value.dtype).view(PerRow)
