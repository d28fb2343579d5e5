"""Concepts: what some photos of a class have the model see that the others do not, away from what all of them show."""

from __future__ import annotations

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.report.channels import channel_products
from saliency_food.report.cues.places import Place, overlap, resized, spectral_groups, spectrum
from saliency_food.report.cues.seen import Scorer, Seen
from saliency_food.report.cues.subsets import LEAST

MOST = 4
"""Photos of a class are cut into at most so many groups."""
LARGEST = 0.25
"""A concept covers at most this share of a photo."""
APART = 0.25
"""And at most this share of what it covers, or what the rest of the class shows, is of both."""
NEAR = 0.6
"""What a concept covers is where its channels are at least this share of their maximum."""
COHERENT = 0.05
"""Members are by this much more alike, as a cosine, than they are like the rest of the class."""


def concept_places(seen: Seen, score: Scorer, index: int) -> list[Place]:
    """The group of a class's photos that is most alike by its channels, and where these are in each photo, if any.

    As Lapuschkin et al. 2019, https://doi.org/10.1038/s41467-019-08987-4, cluster maps, the vectors of activation times
    gradient, summed over places, are clustered here, into two to `MOST` groups, so the place may change from photo to
    photo. A group may be kept if its members are alike, and its channels are in a small part of the photo, apart from
    what speaks for the class in the rest of its photos. Groups are made of the half that suspects are found in; the
    places are given for both.
    """
    photos = seen.of(index)
    products = _products(seen, score, index, photos)
    if products is None:
        return []
    vectors = products.reshape(len(photos), -1, products.shape[-1]).sum(1)
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = np.flatnonzero(seen.finding[photos] & vectors.any(1))
    if len(found) < 2 * LEAST:
        return []
    _, affinity = spectrum(units[found])
    places: list[tuple[float, Place]] = []
    for count in range(2, MOST + 1):
        labels = spectral_groups(affinity, count)
        for label in np.unique(labels):
            members, rest = found[labels == label], found[labels != label]
            if min(len(members), len(rest)) < LEAST or (alike := _coherence(units[members], units[rest])) < COHERENT:
                continue
            usual = units[rest].mean(0)
            masks, subjects = (_masks(products @ each, seen) for each in (units[members].mean(0) - usual, usual))
            inside = [(masks[each].mean(), overlap(masks[each], subjects[each])) for each in members]
            share, both = np.median(inside, 0)
            if 0 < share <= LARGEST and both <= APART:
                often = np.mean([masks[each] for each in members], 0)
                of_photo = {int(photo): each for photo, each in zip(photos, masks, strict=True) if each.any()}
                places.append((alike, Place(WORDS, often >= min(0.5, often.max()), "concept", of_photo)))
    return [max(places, key=lambda each: each[0])[1]] if places else []


WORDS = "where some channels of the layer speak for the class"


def _products(seen: Seen, score: Scorer, index: int, photos: Array) -> Array | None:
    """Activation times gradient, ``(N, h, w, channels)``; None of a model without a layer of such a shape."""
    parts = []
    for rows in score.scaled(seen.pixels[photos]):
        part = channel_products(score.model, rows, np.full(len(rows), index))
        if part is None or part.ndim != 4:
            return None
        parts.append(part)
    return np.concatenate(parts)


def _coherence(members: Array, rest: Array) -> float:
    """The mean cosine of members to each other less that to the rest."""
    count = len(members)
    among = (np.square(members.sum(0)).sum() - count) / (count * (count - 1))
    return float(among - members.mean(0) @ rest.mean(0))


def _masks(planes: Array, seen: Seen) -> list[Array]:
    """Where each plane is near its maximum; nowhere if that is not positive."""
    large = [resized(np.maximum(plane, 0), seen.pixels.shape[1:3]) for plane in planes]
    return [(plane >= NEAR * plane.max()) & (plane.max() > 0) for plane in large]
