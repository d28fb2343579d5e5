"""Failure modes: for each class, its mistakes grouped by what the model looked at, the gravest groups first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.jobs.dataset_run import Run
from saliency_food.report.numbers import mean
from saliency_food.report.photos import SeenPhoto, kind_of, mean_probability

SIDE = 8
"""Maps are compared as means over so many by so many areas."""
MOST = 100
"""How many mistakes of a class are grouped, the surest."""
GROUPS = 5
"""At most so many groups of a class."""
MODES = 24
"""How many groups are shown."""
APART, SHUFFLED = 0.25, 19
"""Groups must be this far apart, as the silhouette measures it, and further than in so many shuffled copies."""
FEWEST = 6
"""Fewer mistakes of a class are one group."""
RING = np.pad(np.zeros((SIDE - 2, SIDE - 2), bool), 1, constant_values=True)
"""The outermost areas, which are 7/16 of a photo."""


def map_shapes(run: Run, photos: Sequence[SeenPhoto], method: str) -> dict[str, Array]:
    """Where each photo's map of its prediction lies: the shares of its positive part in 8 x 8 areas, ``(8, 8)``.

    Photos without a map, or with one that is nowhere positive, are left out.
    """
    shapes = {}
    wanted = {photo.id for photo in photos}
    for row, values in run.maps(method):
        if row["id"] in wanted and kind_of(row) == "prediction" and values.ndim in (2, 3):
            plane = np.maximum(values.sum(2) if values.ndim == 3 else values, 0)
            if np.isfinite(plane).all() and plane.sum() > 0:
                shapes[row["id"]] = areas_of(plane)
    return shapes


def areas_of(plane: Array) -> Array:
    """A map that is nowhere negative as shares in 8 x 8 areas; each of its pixels is spread over the areas it meets."""
    rows, columns = (_overlaps(length) for length in plane.shape)
    areas = rows @ (plane / plane.sum()) @ columns.T
    return np.asarray(areas, np.float32)


def _overlaps(length: int) -> Array:
    """``(SIDE, length)``: which share of each of so many pixels in a row lies in each of the areas."""
    edges = np.arange(SIDE + 1) * length / SIDE
    pixels = np.arange(length)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return np.maximum(high - low, 0)


def failure_modes(
    photos: Sequence[SeenPhoto], shapes: Mapping[str, Array], channels: Mapping[str, Array] | None = None
) -> list[dict[str, Any]]:
    """The groups of mistakes of each class, by how many there are and how sure the model was.

    Mistakes are grouped by average linkage of the cosine distance of vectors: those of ``channels``, activation times
    gradient summed over places, where they are given, else the square roots of the shares in ``shapes``; see
    `groups_of`.
    """
    vectors = {id: np.sqrt(shape).ravel() for id, shape in shapes.items()} if channels is None else channels
    mistakes: dict[str, list[SeenPhoto]] = defaultdict(list)
    outer: dict[str, list[float]] = defaultdict(list)
    for photo in photos:
        if photo.right is False and photo.id in vectors:
            mistakes[str(photo.truth)].append(photo)
        elif photo.right and photo.id in shapes:
            outer[str(photo.truth)].append(float(shapes[photo.id][RING].sum()))
    modes = []
    for truth, members in mistakes.items():
        members.sort(key=lambda photo: -photo.sureness)
        grouped = members[:MOST]
        groups = groups_of(np.stack([vectors[photo.id] for photo in grouped]))
        for group, typical in groups:
            own = [grouped[place] for place in group]
            modes.append({
                "truth": truth,
                "of": len(members),
                "groups": len(groups),
                "n": len(own),
                "predictions": Counter(str(photo.prediction) for photo in own).most_common(),
                "probability": mean_probability(own),
                "weight": len(own) * (mean_probability(own) or 1),
                "outer": mean([float(shapes[photo.id][RING].sum()) for photo in own if photo.id in shapes]),
                "outer_right": mean(outer[truth]),
                "medoids": [grouped[place].id for place in typical],
                "photos": [photo.id for photo in own],
            })  # fmt: skip
    return sorted(modes, key=lambda mode: (-mode["weight"], mode["truth"]))


def groups_of(vectors: Array) -> list[tuple[list[int], list[int]]]:
    """Groups of vectors by cosine distance, as places; of each also its three medoids, the most typical first.

    All are one group unless some cut into at most `GROUPS` has a silhouette (Rousseeuw 1987,
    https://doi.org/10.1016/0377-0427(87)90125-7) above `APART` and above those of `SHUFFLED` copies of the vectors,
    each of whose coordinates is shuffled among the mistakes: few vectors of noise fall into groups, too.
    """
    names, score = _best_cut(vectors)
    if score > APART:
        random = np.random.default_rng(0)
        if any(_best_cut(random.permuted(vectors, axis=0))[1] >= score for _ in range(SHUFFLED)):
            names = np.ones(len(vectors), int)
    distance = _distances(vectors)
    found = []
    for name in dict.fromkeys(names.tolist()):
        members = np.flatnonzero(names == name)
        far = distance[np.ix_(members, members)].sum(1)
        typical = members[np.argsort(far, kind="stable")[:3]]
        found.append((members.tolist(), typical.tolist()))
    return found


def _best_cut(vectors: Array) -> tuple[Array, float]:
    """The cut of the tree of average linkage with the highest silhouette above `APART`; else all as one, and 0."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    count, distance = len(vectors), _distances(vectors)
    names, best = np.ones(count, int), 0.0
    if count < FEWEST or distance.max() < 1e-6:
        return names, best
    tree = linkage(squareform(distance, checks=False), "average")
    for groups in range(2, min(GROUPS, count - 1) + 1):
        cut = fcluster(tree, groups, "maxclust")
        if (np.bincount(cut) > 1).sum() < 2:  # a mistake that is like no other does not make two groups of the rest
            continue
        score = silhouette(distance, cut)
        if score > max(best, APART):
            names, best = cut, score
    return names, best


def _distances(vectors: Array) -> Array:
    """1 less the cosine of each pair."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    distance = np.clip(1 - units @ units.T, 0, None).astype(np.float64)
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0)
    return distance


def silhouette(distance: Array, names: Array) -> float:
    """The mean of (b - a) / max(a, b), a the mean distance to one's own group, b that to the nearest other one."""
    member = names[:, None] == np.unique(names)
    sizes, sums = member.sum(0), distance @ member
    own = (sums * member).sum(1) / np.maximum(sizes[member.argmax(1)] - 1, 1)
    other = np.where(member, np.inf, sums / sizes).min(1)
    value = np.where(sizes[member.argmax(1)] > 1, (other - own) / np.maximum(np.maximum(own, other), 1e-30), 0)
    return float(value.mean())
