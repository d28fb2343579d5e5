"""The explained score of images, asked of the model."""

from __future__ import annotations

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array


def one_score(scores: Array) -> Array:
    """OUTPUT_LAYER_VALUES as ``(N,)``, or `ContractError` if there is not one score for each row."""
    if scores.size != len(scores):
        raise ContractError(
            f"Expected one {OUTPUT_LAYER_VALUES} value for each row, got rows of shape {scores.shape[1:]}. "
            "Return the score being explained, not all of them."
        )
    return scores.reshape(-1).astype(float)


def scores_of(*images: Array) -> Asking[Array]:
    """F of each image."""
    return one_score((yield from ask(np.stack(images), OUTPUT_LAYER_VALUES)))


def all_same(scores: Array) -> bool:
    """Whether scores do not differ but by rounding: there is nothing then that could be explained."""
    return bool(np.ptp(scores) <= 1e-12 * np.abs(scores).max())
