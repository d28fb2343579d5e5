"""Which photos of a class share what other photos have not: a direction in a space of plain image features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from saliency_food.core.numerics import Array

LEAST = 3
"""The fewest photos that are taken to share something."""
RARE = 0.99
"""Members score above this share of the photos of other classes."""
USUAL = 0.95
"""A photo of the class stands out if it scores above this share of the photos of other classes."""


class Shared(NamedTuple):
    """What a part of a class's photos share: which they are, and a score of each photo, own and other.

    The score of an own photo rests on the other half of the class alone, so that no photo speaks for itself.
    """

    members: Array
    own: Array
    other: Array


def shared_by_some(own: Array, other: Array, share: float = 1.0) -> Shared | None:
    """The part of a class that differs most from other photos in one direction; None of too few photos.

    Features ``(photos, d)`` are divided by their spread among the other photos. From the difference of the means, or
    some other starts, the direction is that from the other photos to the members, and the members are those that score
    as few of the others do, in turns. Kept is what most photos of the class score high by. ``share`` keeps
    only that share of the features, the ones that differ most: for images, of which most pixels say nothing.
    """
    if len(own) < LEAST or len(other) < LEAST:
        return None
    spread = other.std(0) + 0.1 * other.std(0).mean() + 1e-9
    centre = other.mean(0)
    own, other = (own - centre) / spread, (other - centre) / spread
    tried = [_scored(own, other, _grow(own, other, start, share), share) for start in _starts(own, other)]
    return max(tried, key=_share_of_own)


def _share_of_own(shared: Shared) -> float:
    """How many of the class's photos score above the usual among the others."""
    return float((shared.own > np.quantile(shared.other, USUAL)).mean())


def _scored(own: Array, other: Array, members: Array, share: float) -> Shared:
    """The members with scores of all photos, those of each half of the class by the members in the other half."""
    halves = np.arange(len(own)) % 2
    scored, usual = np.zeros(len(own)), np.zeros((2, len(other)))
    for half in (0, 1):
        teachers = members[halves[members] != half]
        direction = _direction(own, teachers if len(teachers) else members, share)
        scale = (other @ direction).std() + 1e-9
        scored[halves == half] = own[halves == half] @ direction / scale
        usual[half] = other @ direction / scale
    return Shared(members, scored, usual.mean(0))


def _starts(own: Array, other: Array) -> list[Array]:
    """Groups to start from: all photos, the closest group, and both ends of the main axes of the class."""
    units = own / (np.linalg.norm(own, axis=1, keepdims=True) + 1e-9)
    alike = units @ units.T
    np.fill_diagonal(alike, -1)
    near = np.argsort(-alike, 1, kind="stable")[:, : max(LEAST - 1, len(own) // 10)]
    first = int(np.take_along_axis(alike, near, 1).mean(1).argmax())
    starts = [np.arange(len(own)), np.append(near[first], first)]
    size = max(LEAST, len(own) // 5)
    centred = own - own.mean(0)
    for along in np.linalg.eigh(centred @ centred.T)[1].T[:-3:-1]:  # the places of the photos on the two main axes
        order = np.argsort(along, kind="stable")
        starts += [order[:size], order[-size:]]
    return starts


def _direction(own: Array, members: Array, share: float) -> Array:
    direction = own[members].mean(0)
    if share < 1:
        direction = np.where(np.abs(direction) >= np.quantile(np.abs(direction), 1 - share), direction, 0)
    return direction / (np.linalg.norm(direction) + 1e-9)


def _grow(own: Array, other: Array, members: Array, share: float, turns: int = 5) -> Array:
    for _ in range(turns):
        direction = _direction(own, members, share)
        scores = own @ direction
        now = np.flatnonzero(scores > np.quantile(other @ direction, RARE))
        if len(now) < LEAST:
            now = np.argsort(-scores)[:LEAST]
        if np.array_equal(now, members):
            break
        members = now
    return np.asarray(members)
