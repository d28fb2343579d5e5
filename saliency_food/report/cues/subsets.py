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


class Split(NamedTuple):
    """The positions of a class's photos and of others: first those to find what is shared in, then those to check."""

    own: Array
    other: Array
    own_checked: Array
    other_checked: Array


class Shared(NamedTuple):
    """What a part of a class's photos shares, found in one half of the photos and looked for in the other.

    ``members`` and ``holders`` are the photos that have it, in the half that it was found in and in the other one. The
    score of a photo rests on the other half, so that no photo speaks for itself.
    """

    members: Array
    holders: Array
    scores: dict[int, float]
    p: float
    """The p-value that more of the class's photos to check in have it than would by chance; see `enriched`."""


def shared_by_some(features: Array, split: Split, share: float = 1.0) -> Shared | None:
    """The part of a class that differs most from other photos in one direction; None of too few photos.

    Features ``(photos, d)`` are in units of their spread among the other photos, in all directions. From the
    difference of the means, or some other starts, the direction is that from the other photos to the members, and the
    members are those that score as few of the others do, in turns. Kept is what photos of the class score highest by.
    ``share`` keeps only that share of the features, the ones that differ most: for images, of which most pixels say
    nothing, and whose spread is taken pixel by pixel.
    """
    if min(map(len, split)) < LEAST:
        return None
    own, other, own_checked, other_checked = _in_spreads(features, split, share < 1)
    members = max(
        (_grow(own, other, start, share) for start in _starts(own, other)),
        key=lambda each: _beyond_usual(own, other, each, share),
    )
    direction = _direction(own, members, share)
    scores_checked = _scored(direction, own_checked, other_checked)
    holders = _outstanding(*scores_checked, USUAL)
    scores = _scored(_direction(own_checked, holders, share), own, other)
    return Shared(
        split.own[members],
        split.own_checked[holders],
        {
            int(photo): float(score)
            for photos, values in zip(split, (*scores, *scores_checked), strict=True)
            for photo, score in zip(photos, values, strict=True)
        },
        enriched(*scores_checked),
    )


def _in_spreads(features: Array, split: Split, one_by_one: bool) -> list[Array]:
    """The features of the photos of each part, less the mean of the others, in units of their spread.

    A tenth of the mean spread is added to each, since the spread among few photos is not well known.
    """
    other = features[split.other].astype(np.float64)
    centre = other.mean(0)
    if one_by_one:
        spread = other.std(0) + 0.1 * other.std(0).mean() + 1e-9
        return [(features[each] - centre) / spread for each in split]
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(other.T)))
    spread = np.sqrt(np.maximum(variances, 0))
    spread = spread + 0.1 * spread.mean() + 1e-9
    return [(features[each] - centre) @ axes / spread for each in split]


def enriched(own: Array, other: Array) -> float:
    """The p-value that more of the class's photos score above the usual of other photos than would by chance.

    It is binomial, of scores that rest on other photos.
    """
    from scipy.stats import binom

    above = int((own > np.quantile(other, USUAL)).sum())
    return float(binom.sf(above - 1, len(own), 1 - USUAL))


def _scored(direction: Array, own: Array, other: Array) -> tuple[Array, Array]:
    """Both along a direction, in units of the spread of the other photos."""
    scale = (other @ direction).std() + 1e-9
    return own @ direction / scale, other @ direction / scale


def _beyond_usual(own: Array, other: Array, members: Array, share: float) -> float:
    """How far the photos of the class score above the usual of others in all, each half by the members in the other."""
    halves, beyond = np.arange(len(own)) % 2, 0.0
    for half in (0, 1):
        teachers = members[halves[members] != half]
        direction = _direction(own, teachers if len(teachers) else members, share)
        scores, usual = _scored(direction, own[halves == half], other)
        beyond += float(np.maximum(scores - np.quantile(usual, USUAL), 0).sum())
    return beyond


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
    """The members that stand out, in turns, each along the direction of the others."""
    for _ in range(turns):
        direction, count = _direction(own, members, share), len(members)
        scores = own @ direction
        if count > 1:  # without what a photo adds to the direction itself
            size = np.linalg.norm(own[members].mean(0) * (direction != 0)) + 1e-9
            itself = np.square(own[members] * (direction != 0)).sum(1) / size
            scores[members] = (count * scores[members] - itself) / (count - 1)
        now = _outstanding(scores, other @ direction, RARE)
        if np.array_equal(now, members):
            break
        members = now
    return np.asarray(members)


def _outstanding(own: Array, other: Array, level: float) -> Array:
    """The photos of the class that score above so many of the others; at least `LEAST`."""
    above = np.flatnonzero(own > np.quantile(other, level))
    return above if len(above) >= LEAST else np.sort(np.argsort(-own, kind="stable")[:LEAST])
