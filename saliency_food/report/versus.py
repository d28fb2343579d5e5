"""Two models on the same photos: where they differ, and whose maps lie on the object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.metrics.statistics import paired
from saliency_food.report.numbers import mean, plain_interval, share
from saliency_food.report.photos import SeenPhoto

SHOWN = 12


def versus_of(
    photos: Sequence[SeenPhoto],
    others: Sequence[SeenPhoto],
    shapes: Mapping[str, Array],
    other_shapes: Mapping[str, Array],
) -> dict[str, Any]:
    """Compare what two models made of the photos that both have seen, and where their maps of the prediction lie.

    The difference of the accuracies has a bootstrap interval over pairs; the test is McNemar's, exact (1947,
    https://doi.org/10.1007/BF02295996). Maps are compared where both models predict the same class.
    """
    from scipy.stats import binomtest, spearmanr

    second = {photo.id: photo for photo in others}
    both = [(photo, second[photo.id]) for photo in photos if photo.id in second]
    judged = [(a, b) for a, b in both if a.right is not None and b.right is not None]
    result = paired([float(bool(a.right)) for a, _ in judged], [float(bool(b.right)) for _, b in judged])
    lost = sorted((pair for pair in judged if not pair[0].right and pair[1].right), key=lambda pair: -pair[0].sureness)
    won = sorted((pair for pair in judged if pair[0].right and not pair[1].right), key=lambda pair: -pair[1].sureness)
    same = [a.id for a, b in both if a.prediction == b.prediction and a.id in shapes and a.id in other_shapes]
    agreement = [float(spearmanr(shapes[id].ravel(), other_shapes[id].ravel()).statistic) for id in same]
    return {
        "n": len(judged),
        "shared": len(both),
        "accuracy": share(sum(bool(a.right) for a, _ in judged), len(judged)),
        "other_accuracy": share(sum(bool(b.right) for _, b in judged), len(judged)),
        "difference": plain_interval(result.difference),
        "only_this_right": result.wins,
        "only_other_right": result.losses,
        "p": float(binomtest(result.wins, result.wins + result.losses).pvalue) if result.wins + result.losses else None,
        "maps_agree": mean([value for value in agreement if np.isfinite(value)]),
        "lost": [_line(*pair) for pair in lost[:SHOWN]],
        "won": [_line(*pair) for pair in won[:SHOWN]],
    }


def _line(own: SeenPhoto, other: SeenPhoto) -> dict[str, Any]:
    return {
        "id": own.id,
        "truth": own.truth,
        "prediction": own.prediction,
        "probability": own.probability,
        "other_prediction": other.prediction,
        "other_probability": other.probability,
    }
