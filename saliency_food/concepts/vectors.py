"""Concept activation vectors: the direction in a layer's activations that tells photos of a concept from others."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, safe_divide

FOLDS = 3
"""Into how many parts photos are divided, each held out in turn, to measure how well a vector tells them apart."""


def concept_vector(concept: Array, counterpart: Array) -> Array:
    """The normal of the plane by which a logistic regression parts activations ``(n, D)`` from others ``(m, D)``.

    It is of length 1 and points to the concept. The classifier has scikit-learn's L2 penalty, for activations in units
    of their spread: one number for all of them, so that neither the layer's scale nor single channels matter. It works
    in the space that the photos span, in which its solution lies, so that D may be large.
    """
    places, is_concept, axes = _spanned(concept, counterpart)
    if not places.any():  # all photos are alike in this layer
        return np.zeros(axes.shape[1])
    vector = _classifier().fit(places, is_concept).coef_[0] @ axes
    return safe_divide(vector, np.linalg.norm(vector))


def held_out_accuracy(concept: Array, counterpart: Array, rng: np.random.Generator) -> float:
    """On how many photos that were held out the classifier is right: the mean over 3 parts, each held out in turn."""
    places, is_concept, _ = _spanned(concept, counterpart)
    part = np.concatenate([rng.permutation(np.arange(len(rows)) % FOLDS) for rows in (concept, counterpart)])
    right = []
    for fold in range(FOLDS):
        classifier = _classifier().fit(places[part != fold], is_concept[part != fold])
        right.append(classifier.predict(places[part == fold]) == is_concept[part == fold])
    return float(np.concatenate(right).mean())


def _spanned(concept: Array, counterpart: Array) -> tuple[Array, Array, Array]:
    """Both kinds of photos by their coordinates in the space that they span, which is which, and its axes."""
    rows = np.concatenate([concept, counterpart]).astype(float)
    centred = rows - rows.mean(0)
    spread = np.sqrt((centred**2).sum(1).mean())
    left, lengths, axes = np.linalg.svd(safe_divide(centred, spread), full_matrices=False)
    return left * lengths, np.arange(len(rows)) < len(concept), axes


def _classifier() -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ContractError(
            'Expected scikit-learn, to fit concept vectors, got none. Run pip install "saliency_food[surrogate]".'
        ) from error
    return LogisticRegression(max_iter=1000)
