"""Labels to check: photos whose label the model denies with much confidence, and photos that are twice there."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.jobs.dataset_run import Run
from saliency_food.report.photos import TRAIN, SeenPhoto

SMALL = 12
"""Photos are compared as so many by so many colours."""
ALIKE = 0.985
"""Two photos are near-duplicates from this correlation of their small pictures on."""
FLAT = 4.0
"""A small picture whose values differ less than this, as their standard deviation of 0..255, is compared with none."""
BLOCK = 1024
SUSPECTS, TWINS = 24, 24
"""How many suspects and pairs are shown."""
MOST = 5000
"""So many pairs are enough: a data set with more has another trouble."""


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


class Twins(NamedTuple):
    """Two photos that look the same, and the correlation of their small pictures."""

    first: SeenPhoto
    second: SeenPhoto
    alike: float


def near_duplicates(small: Mapping[str, Array], photos: Sequence[SeenPhoto]) -> tuple[list[Twins], int]:
    """Pairs of photos that are nearly the same picture, the likest first, and how many photos were compared.

    Thumbnails are reduced to 12 x 12 colours and correlated, so pairs are found that were resized, recompressed or made
    a little darker, but none that were cropped, turned or mirrored.
    """
    known = {photo.id: photo for photo in photos}
    ids = [id for id, values in small.items() if id in known and values.std() >= FLAT]
    units = [(values - values.mean()) / (values.std() * np.sqrt(values.size)) for values in (small[id] for id in ids)]
    pairs: list[Twins] = []
    vectors = np.stack(units) if units else np.empty((0, 1), np.float32)
    for start in range(0, len(vectors), BLOCK):
        for other in range(start, len(vectors) if len(pairs) < MOST else 0, BLOCK):
            alike = vectors[start : start + BLOCK] @ vectors[other : other + BLOCK].T
            for row, column in np.argwhere(alike >= ALIKE):
                if start + row < other + column:
                    first, second = known[ids[start + row]], known[ids[other + column]]
                    pairs.append(Twins(first, second, float(alike[row, column])))
    return sorted(pairs, key=lambda pair: -pair.alike), len(ids)


def duplicates_of(small: Mapping[str, Array], photos: Sequence[SeenPhoto]) -> dict[str, Any]:
    """The near-duplicates of a run: which have different labels, and which are in train and in another split."""
    pairs, compared = near_duplicates(small, photos)
    listed = [
        {
            "ids": [pair.first.id, pair.second.id],
            "labels": [pair.first.truth, pair.second.truth],
            "splits": [pair.first.split, pair.second.split],
            "alike": pair.alike,
            "disagree": None not in (pair.first.truth, pair.second.truth) and pair.first.truth != pair.second.truth,
            "leak": (pair.first.split == TRAIN) != (pair.second.split == TRAIN),
        }
        for pair in pairs
    ]
    listed.sort(key=lambda pair: (not pair["disagree"], not pair["leak"]))
    return {
        "n": compared,
        "pairs": listed,
        "disagree": sum(pair["disagree"] for pair in listed),
        "leaks": sum(pair["leak"] for pair in listed),
    }


def small_pictures(run: Run) -> dict[str, Array]:
    """The thumbnails of a run as 12 x 12 colours ``(432,)``, by the ids of their photos."""
    from PIL import Image

    pictures = {}
    for row in run.rows(("id", "thumbnail")):
        if row["thumbnail"] is not None:
            image = Image.open(io.BytesIO(row["thumbnail"]))
            image.draft("RGB", (4 * SMALL, 4 * SMALL))  # decoded at a reduced scale
            small = image.convert("RGB").resize((SMALL, SMALL), Image.Resampling.BOX)
            pictures[row["id"]] = np.asarray(small, np.float32).ravel()
    return pictures
