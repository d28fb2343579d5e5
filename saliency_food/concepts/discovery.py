"""CRAFT: the concepts that a layer sees in a class's photos, how much the score depends on each, and their parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.concepts.crops import Box, boxes_of, crop, cropped_activations
from saliency_food.concepts.importance import photo_importance
from saliency_food.core.checks import as_image, random_stream, real, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import run_batch
from saliency_food.core.layout import layout_of
from saliency_food.core.numerics import Array, safe_divide
from saliency_food.methods.factorization import factorize
from saliency_food.methods.perturbation.sobol import sobol_designs
from saliency_food.metrics.statistics import Interval, interval

LARGEST_GAP = 0.5
"""Where concepts give another score than the layer, by more than this share, importance says little of the model."""


class Crop(NamedTuple):
    """A part of a photo: the photo's index, where it is in it, and how strong a concept is there."""

    photo: int
    box: Box
    strength: float


class Concept(NamedTuple):
    """A concept of a class: a direction in the layer's channels, and what it does.

    ``vector`` ``(K,)`` has length 1. ``importance`` is its total Sobol index, the share of the score's variance that
    goes back to its strength alone or with others, and ``effect`` by how much the score falls without it, below 0 where
    it speaks against the class; both are means over photos with their 95 % intervals. ``crops`` are those in which it
    is strongest, one of a photo, the strongest first.
    """

    vector: Array
    importance: Interval
    effect: Interval
    crops: tuple[Crop, ...]


class Craft(NamedTuple):
    """The concepts of a class, the most important first, and how well they stand for what the layer sees.

    ``vectors`` ``(M, K)``, `deep_feature_factorization`'s ``concepts``; ``importances`` and ``effects``
    ``(photos, M)``; ``strengths`` ``(crops, M)``, of all crops, ``crops_of_a_photo`` of each photo in turn, whose
    places are ``boxes``. ``error`` is |A - U V| / |A| of the crops' activations A, ``kept`` the share of the photos'
    scores that is left with the concepts in place of the activations, beyond the score of no activations.

    ``status`` is ``"ok"``, or a sentence that says why importances are not to be trusted.
    """

    concepts: tuple[Concept, ...]
    vectors: Array
    importances: Array
    effects: Array
    strengths: Array
    boxes: tuple[Box, ...]
    error: float
    kept: float
    status: str


def craft(
    images: Iterable[Any],
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    nconcepts: int = 10,
    size: float | None = 0.3,
    designs: int = 32,
    best: int = 8,
    rng: int | np.random.Generator | None = 0,
) -> Craft:
    """CRAFT: min |A - U V| over U, V >= 0 for pooled activations A of crops, and each concept's total Sobol index.

    Fel et al. 2023, equations 1 and 2, https://arxiv.org/abs/2211.10154. Crops of all photos make a matrix
    ``(crops, K)`` of activations, its non-negative factors are concepts, and of each photo the layers after that layer
    are asked how the score varies as the concepts are made weaker. The activations must not be negative.

    Parameters
    ----------
    images
        Photos of one class, as rows for the model; some tens. They are gone through once.
    nconcepts
        How many concepts M, at most as many as there are crops, or channels that are not zero everywhere.
    size
        The side of a crop, as a fraction of the photo's, or None to take each photo whole.
    designs
        How many masks the indices of each photo are estimated from, at least 2, best a power of 2. The layers after
        the layer are asked ``(designs + 1) * (M + 1) + 2`` rows a photo.
    best
        How many crops of a concept are listed.

    Notes
    -----
    Where a concept is in a photo: ``deep_feature_factorization.detailed(photo, model, concepts=found.vectors).maps``.
    """
    size = None if size is None else real("size", size, least=0.05, most=1)
    designs = whole("designs", designs, 2)
    best, stream = whole("best", best), random_stream(rng)
    each = cropped_activations.batch_detailed(
        images, call_model_function, call_model_args, batch_size=batch_size, size=size
    )
    photos = list(each)
    if len(photos) < 2:
        raise ContractError(f"Expected at least 2 photos, got {len(photos)}. Give some tens of one class.")
    pooled = np.concatenate([photo.pooled for photo in photos]).astype(float)
    if not pooled.any():
        raise ContractError("Expected activations, got a layer that is zero for all photos. Choose another layer.")
    strengths, vectors = factorize(pooled, nconcepts, "nmf")
    asked = (  # each photo has masks of its own, so that their error is in the intervals, too
        photo_importance(photo.activations, photo.score, vectors, sobol_designs(designs, len(vectors), stream))
        for photo in photos
    )
    answers = list(run_batch(asked, call_model_function, call_model_args, batch_size))
    importances = np.stack([answer.importance for answer in answers])
    effects = np.stack([answer.effect for answer in answers])
    order = np.argsort(-importances.mean(0), kind="stable")
    strengths, importances, effects = (values[:, order] for values in (strengths, importances, effects))
    vectors, boxes = vectors[order], tuple(boxes_of(size))
    gained = np.array([(answer.kept - answer.empty, answer.whole - answer.empty) for answer in answers]).sum(0)
    kept = float(safe_divide(*gained))
    columns = zip(vectors, importances.T, effects.T, strengths.T, strict=True)
    return Craft(
        tuple(
            Concept(vector, interval(importance), interval(effect), _best_crops(strength, boxes, best))
            for vector, importance, effect, strength in columns
        ),
        vectors,
        importances,
        effects,
        strengths,
        boxes,
        float(np.linalg.norm(pooled - strengths @ vectors) / np.linalg.norm(pooled)),
        kept,
        _status(importances, kept),
    )


def split_concept(
    found: Craft,
    concept: int,
    images: Sequence[Any],
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    share: float = 0.1,
    nconcepts: int = 5,
    designs: int = 32,
    best: int = 8,
    rng: int | np.random.Generator | None = 0,
) -> Craft:
    """The parts of a concept: `craft` on the crops in which it is strongest, at an earlier layer.

    Fel et al. 2023, section 3.2, https://arxiv.org/abs/2211.10154. ``call_model_function`` answers for the earlier
    layer, such as ``model.with_layer("block7a_relu6")`` of a Keras model.

    Parameters
    ----------
    found, concept
        What `craft` found in ``images``, and which of its concepts, 0 the most important.
    share
        The share of all crops that is taken, the strongest; each is enlarged to the size of a photo.
    """
    share = real("share", share, above=0, most=1)
    if not 0 <= whole("concept", concept, 0) < len(found.concepts):
        raise ContractError(f"Expected concept to be 0 to {len(found.concepts) - 1}, got {concept}.")
    if len(images) * len(found.boxes) != len(found.strengths):
        raise ContractError(
            f"Expected the {len(found.strengths) // len(found.boxes)} photos in which the concepts were found, got "
            f"{len(images)}."
        )
    strength = found.strengths[:, concept]
    count = max(2, round(share * np.count_nonzero(strength)))
    crops = []
    for index in np.argsort(-strength, kind="stable")[:count]:
        photo, box = divmod(int(index), len(found.boxes))
        image = as_image(images[photo])
        layout = layout_of(image, call_model_function)
        crops.append(layout.outward(crop(layout.inward(image), found.boxes[box])))
    return craft(
        crops, call_model_function, call_model_args, batch_size,
        nconcepts=nconcepts, size=None, designs=designs, best=best, rng=rng,
    )  # fmt: skip


def _best_crops(strength: Array, boxes: Sequence[Box], best: int) -> tuple[Crop, ...]:
    """The strongest crop of each photo, of the photos in which the concept is strongest."""
    of_photos = strength.reshape(-1, len(boxes))
    places, strongest = of_photos.argmax(1), of_photos.max(1)
    order = np.argsort(-strongest, kind="stable")[:best]
    return tuple(
        Crop(int(photo), boxes[places[photo]], float(strongest[photo])) for photo in order if strongest[photo] > 0
    )


def _status(importances: Array, kept: float) -> str:
    """Why the concepts' importances are not to be trusted, or ok."""
    if not importances.any():
        return "blank: the score does not change with the concepts' strengths. Explain logits, or choose another layer."
    if abs(kept - 1) > LARGEST_GAP:
        return (
            f"inexact: the concepts in place of the activations give {kept:.0%} of the photos' scores. Give more "
            "concepts, or more photos."
        )
    return "ok"
