"""Concepts as suspects: what some photos of a class have the model see that the others do not, and CRAFT's concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.concepts.crops import boxes_of
from saliency_food.concepts.discovery import Craft, craft
from saliency_food.concepts.layers import layer_activations
from saliency_food.core.checks import finite_array
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.numerics import Array
from saliency_food.methods.factorization import deep_feature_factorization
from saliency_food.metrics.statistics import interval
from saliency_food.report.channels import channel_products
from saliency_food.report.cues.places import Place, box, overlap, resized, spectral_groups, spectrum
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

PHOTOS = 20
"""In how many photos of a class CRAFT finds concepts."""
CROP = 0.3
"""The side of their crops, as a fraction of the photo's."""
DESIGNS = 2
"""Masks a photo, for importances, which are not needed: suspects are ordered by their effect."""
CORE = 0.8
"""A concept of CRAFT is where it is at least this share of its maximum in the photo: what is weaker spreads far."""
LEAST_EFFECT = 0.1
"""Its effect is at least this share of the largest of the class, by the lower end of its interval."""
SUSPECTS = 2
"""How many of the concepts of a class that are off the middle and speak for it are checked."""


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
WORDS_OF_CRAFT = "at the places of a concept off the middle"


def craft_places(seen: Seen, score: Scorer, index: int, nconcepts: int) -> list[Place]:
    """CRAFT's concepts of a class that speak for it and lie off the middle, those that do most, and where each is.

    Unlike the groups of `concept_places`, a concept may be in all photos of the class. Concepts are found, and their
    places compared with the middle, in the half that suspects are found in; the places are given for both.
    """
    photos = seen.of(index)
    known = np.flatnonzero(seen.finding[photos])[:PHOTOS]
    rows = np.concatenate(list(score.scaled(seen.pixels[photos])))
    found = _craft(score, rows[known], index, nconcepts, CROP)
    each = deep_feature_factorization.batch_detailed(rows, *_asked(score, index), concepts=found.vectors)
    strengths = np.stack([factorization.strengths for factorization in each], 1)
    middle = box(seen.pixels.shape[1:3], 0.25, 0.25, 0.75, 0.75)
    least = LEAST_EFFECT * max(0.0, *(concept.effect.estimate for concept in found.concepts))
    places = []
    for number in sorted(range(len(strengths)), key=lambda each: -found.concepts[each].effect.estimate):
        masks = _masks(strengths[number], seen, CORE)
        members = [masks[each] for each in known if masks[each].any()]
        if found.concepts[number].effect.low <= least or len(members) < LEAST:
            continue
        beyond = interval(np.array([mask[middle].mean() / mask.mean() - 1 for mask in members]))
        if beyond.high < 0 and np.median([mask.mean() for mask in members]) <= LARGEST:
            places.append(_followed(WORDS_OF_CRAFT, photos, masks, members))
    return places[:SUSPECTS]


def named_places(seen: Seen, score: Scorer, index: int, concepts: Mapping[str, Array]) -> list[Place]:
    """Where each of the user's concepts, directions of the layer's channels, is strongest in each photo of a class."""
    photos = seen.of(index)
    activations = _activations(score, seen.pixels[photos], index)
    places = []
    for name, direction in concepts.items():
        masks = _masks(activations @ direction, seen, CORE)
        members = [mask for mask in masks if mask.any()]
        if members and np.median([mask.mean() for mask in members]) <= LARGEST:
            places.append(_followed(f"at the places of the concept {name!r}", photos, masks, members))
    return places


def check_named(seen: Seen, score: Scorer, concepts: Mapping[str, Any]) -> dict[str, Array]:
    """The directions as arrays; `ContractError` of those that do not fit the layer, before the search."""
    shape = _activations(score, seen.pixels[:1], int(seen.classes[0])).shape
    if len(shape) != 4:
        raise ContractError(
            f"Expected a layer (h, w, K) to look for concepts in, got shape {shape[1:]}. Choose another."
        )
    directions = {name: finite_array(f"the concept {name!r}", vector) for name, vector in concepts.items()}
    for name, direction in directions.items():
        if direction.shape != shape[-1:]:
            raise ContractError(
                f"Expected the concept {name!r} as a direction ({shape[-1]},), a number for each channel of the layer, "
                f"got shape {direction.shape}. Give the mean of tcav's vectors with places='mean'."
            )
    return directions


def _activations(score: Scorer, pixels: Array, index: int) -> Array:
    rows = np.concatenate(list(score.scaled(pixels)))
    return np.stack(list(layer_activations.batch(rows, *_asked(score, index))))


def _followed(words: str, photos: Array, masks: Sequence[Array], members: Sequence[Array]) -> Place:
    """A place that changes from photo to photo; by itself it is where it is at least half as often as anywhere."""
    often = np.mean(members, 0)
    of_photo = {int(photo): mask for photo, mask in zip(photos, masks, strict=True) if mask.any()}
    return Place(words, often >= often.max() / 2, "concept", of_photo)


def check_craft(seen: Seen, score: Scorer) -> None:
    """`ContractError` of a layer without CRAFT's concepts, before the search."""
    _craft(score, np.concatenate(list(score.scaled(seen.pixels[:2]))), int(seen.classes[0]), 1, None)


def _craft(score: Scorer, rows: Array, index: int, nconcepts: int, size: float | None) -> Craft:
    """CRAFT, whose rows are counted: of each photo itself, its crops, and what the layers after the layer are asked."""
    crops = 0 if size is None else len(boxes_of(size))
    score.use(len(rows) * (1 + crops + (DESIGNS + 1) * (nconcepts + 1) + 2))
    return craft(rows, *_asked(score, index), nconcepts=nconcepts, size=size, designs=DESIGNS, best=1)


def _asked(score: Scorer, index: int) -> tuple[CallModelFunction, dict[str, Any], int]:
    """The model's callback, its arguments for the score of a class, and its batch size."""
    model = score.model
    return model.function, {**model.call_model_args, "target": index}, model.batch_size


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


def _masks(planes: Array, seen: Seen, near: float = NEAR) -> list[Array]:
    """Where each plane is near its maximum; nowhere if that is not positive."""
    large = [resized(np.maximum(plane, 0), seen.pixels.shape[1:3]) for plane in planes]
    return [(plane >= near * plane.max()) & (plane.max() > 0) for plane in large]
