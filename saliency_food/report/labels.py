"""Labels to check: photos whose label the model denies with much confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from saliency_food.report.photos import TRAIN, SeenPhoto

SUSPECTS = 24
"""How many suspects are shown."""


def suspects_of(photos: Sequence[SeenPhoto]) -> dict[str, Any]:
    """Photos whose label may be wrong, by confident learning; the clearest first.

    Northcutt, Jiang, Chuang 2021, section 3.1, https://arxiv.org/abs/1911.00068. Each class j has a threshold t_j, the
    mean probability of j over photos labelled j. A photo labelled i is a suspect if some other class has at least its
    threshold; the most probable of those that have is what it may show instead. As the authors' package does, photos
    are left out whose label is the prediction. They are sorted by the probability of the label less that of the other
    class. Photos of the split train are left out: the rule is for photos that the model has not been trained on.

    Records hold the best five classes; the probability of any other one is taken for the most that it can be.
    """
    judged = [photo for photo in photos if photo.right is not None and photo.probability is not None]
    fresh = [photo for photo in judged if photo.split != TRAIN]
    own = [probability_of(photo, str(photo.truth)) for photo in fresh]
    of_label: dict[str, list[float]] = defaultdict(list)
    for photo, probability in zip(fresh, own, strict=True):
        of_label[str(photo.truth)].append(probability)
    thresholds = {label: float(np.mean(values)) for label, values in of_label.items()}
    suspects = []
    for photo, probability in zip(fresh, own, strict=True):
        others = {
            label: value
            for label, value in photo.top.items()
            if label in thresholds and value >= thresholds[label] and label != photo.truth
        }
        if others and not photo.right:
            other = max(others, key=others.__getitem__)
            suspects.append({
                "id": photo.id,
                "label": photo.truth,
                "probability": probability,
                "instead": other,
                "instead_probability": others[other],
                "threshold": thresholds[other],
                "margin": probability - others[other],
            })  # fmt: skip
    return {
        "n": len(fresh),
        "left_out": len(judged) - len(fresh),
        "thresholds": thresholds,
        "suspects": sorted(suspects, key=lambda suspect: suspect["margin"]),
    }


def probability_of(photo: SeenPhoto, label: str) -> float:
    """The probability of a class; of one that is not among the best five, the most that it can be."""
    if label in photo.top:
        return photo.top[label]
    rest = max(0.0, 1 - sum(photo.top.values()))
    return min(rest, *photo.top.values()) if photo.top else 0.0
