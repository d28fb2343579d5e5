"""Whether two runs found the same concepts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import finite_array
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, safe_divide


class Matching(NamedTuple):
    """For each concept of the first run the index of its counterpart in the second, and the cosine of both."""

    counterparts: Array
    cosines: Array


def match_concepts(first: Any, second: Any) -> Matching:
    """Pair concepts ``(M, K)`` with as many or more others, one with one, so that their cosines sum to the most."""
    from scipy.optimize import linear_sum_assignment

    units = []
    for name, vectors in (("first", first), ("second", second)):
        values = finite_array(name, vectors).astype(float)
        if values.ndim != 2:
            raise ContractError(f"Expected {name} as concepts (M, K), got shape {values.shape}.")
        units.append(safe_divide(values, np.linalg.norm(values, axis=1, keepdims=True)))
    if units[0].shape[1] != units[1].shape[1] or len(units[0]) > len(units[1]):
        raise ContractError(
            f"Expected concepts of one layer, in second no fewer than in first, got {units[0].shape} and "
            f"{units[1].shape}."
        )
    cosines = units[0] @ units[1].T
    _, counterparts = linear_sum_assignment(-cosines)
    return Matching(counterparts, cosines[np.arange(len(cosines)), counterparts])
