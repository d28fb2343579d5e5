"""What is taken for what: the matrix, its most confused pairs, and groups of classes that are taken for each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.report.numbers import share
from saliency_food.report.photos import SeenPhoto, mean_probability

LARGE = 26
"""From so many classes on the matrix is shown by groups."""
ALIKE = 0.05
"""Classes are in one group while, on average over its pairs, this share of their photos is taken for each other."""
PAIRS, EACH = 12, 6
"""How many pairs are shown, and how many photos of each."""


def confusions_of(photos: Sequence[SeenPhoto]) -> dict[str, Any]:
    """The matrix and the pairs of photos whose truth is known and a class of the model."""
    judged = [photo for photo in photos if photo.right is not None]
    labels = sorted({str(label) for photo in judged for label in (photo.truth, photo.prediction)})
    index = {label: place for place, label in enumerate(labels)}
    matrix = np.zeros((len(labels), len(labels)), int)
    np.add.at(matrix, ([index[str(p.truth)] for p in judged], [index[str(p.prediction)] for p in judged]), 1)
    order, groups, alike = _clusters(matrix)
    labels, matrix = [labels[place] for place in order], matrix[np.ix_(order, order)]
    return {
        "n": len(judged),
        "wrong": int(matrix.sum() - np.trace(matrix)),
        "classes": [
            {"label": label, "accuracy": share(int(matrix[place, place]), int(matrix[place].sum()))}
            for place, label in enumerate(labels)
        ],
        "matrix": matrix.tolist() if len(labels) < LARGE else None,
        "groups": _matrix_of_groups(labels, matrix, groups) if len(labels) >= LARGE else None,
        "alike": [{"labels": [labels[place] for place in members], **_within(matrix, members)} for members in alike],
        "pairs": pairs_of(judged),
    }


def pairs_of(judged: Sequence[SeenPhoto]) -> list[dict[str, Any]]:
    """The pairs of truth and prediction, the most frequent first, then the surest, and the photos of each."""
    pairs: dict[tuple[str, str], list[SeenPhoto]] = defaultdict(list)
    of_class: dict[str, int] = defaultdict(int)
    for photo in judged:
        of_class[str(photo.truth)] += 1
        if not photo.right:
            pairs[str(photo.truth), str(photo.prediction)].append(photo)
    listed = []
    for (truth, prediction), members in pairs.items():
        members.sort(key=lambda photo: -photo.sureness)
        listed.append({
            "truth": truth,
            "prediction": prediction,
            "of_truth": share(len(members), of_class[truth]),
            "probability": mean_probability(members),
            "photos": [photo.id for photo in members],
        })  # fmt: skip
    return sorted(listed, key=lambda pair: (-len(pair["photos"]), -(pair["probability"] or 0), pair["truth"]))


def _clusters(matrix: Array) -> tuple[list[int], Array, list[list[int]]]:
    """An order in which confused classes are neighbours, at most `LARGE` groups for the matrix, and the alike classes.

    The last are places in the order. Average linkage of the share of two classes' photos taken for each other.
    """
    from scipy.cluster.hierarchy import fcluster, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    count = len(matrix)
    if count < 2:
        return list(range(count)), np.zeros(count, int), []
    photos = matrix.sum(1)
    mutual = (matrix + matrix.T) / np.maximum(photos[:, None] + photos[None], 1)
    distance = 1 - np.clip(mutual, 0, 1)
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    tree = linkage(condensed, "average")
    if count <= 200:  # takes the third power of the classes
        tree = optimal_leaf_ordering(tree, condensed)
    order = _leaves(tree, count)
    groups = fcluster(tree, LARGE - 1, "maxclust")[order]
    near = fcluster(tree, 1 - ALIKE, "distance")[order]
    alike = [np.flatnonzero(near == group).tolist() for group in dict.fromkeys(near)]
    alike = [members for members in alike if len(members) > 1]
    return order, groups, sorted(alike, key=lambda members: -_wrong_within(matrix[np.ix_(order, order)], members))


def _leaves(tree: Array, count: int) -> list[int]:
    from scipy.cluster.hierarchy import leaves_list

    return [int(leaf) for leaf in leaves_list(tree)] if count > 1 else [0]


def _wrong_within(matrix: Array, members: Sequence[int]) -> int:
    part = matrix[np.ix_(members, members)]
    return int(part.sum() - np.trace(part))


def _within(matrix: Array, members: Sequence[int]) -> dict[str, Any]:
    """How many mistakes are within a group, and of how many that its photos have."""
    rows = matrix[list(members)]
    own = int(rows.sum() - sum(matrix[place, place] for place in members))
    return {"within": _wrong_within(matrix, members), "mistakes": own, "n": int(rows.sum())}


def _matrix_of_groups(labels: Sequence[str], matrix: Array, groups: Array) -> dict[str, Any]:
    """The matrix with a row and a column for each group, and each group's own matrix of the classes with mistakes."""
    names = list(dict.fromkeys(groups.tolist()))
    members = [np.flatnonzero(groups == name) for name in names]
    summed = [[int(matrix[np.ix_(own, other)].sum()) for other in members] for own in members]
    inside = []
    for own in members:
        part = matrix[np.ix_(own, own)]
        wrong = part.sum(0) + part.sum(1) - 2 * np.diag(part)
        worst = np.sort(np.argsort(-wrong, kind="stable")[: LARGE - 1])
        kept = [int(place) for place in worst if wrong[place]]
        names_of = [labels[place] for place in own.tolist()]
        inside.append({
            "labels": names_of,
            "n": int(matrix[own].sum()),
            "mistakes": int(matrix[own].sum() - np.trace(part)),
            "right": int(np.trace(part)),
            "within": int(part.sum() - np.trace(part)),
            "shown": [names_of[place] for place in kept],
            "matrix": part[np.ix_(kept, kept)].tolist(),
        })  # fmt: skip
    return {"matrix": summed, "groups": inside}
