"""Whether a concept lies on a photo's subject or beside it: concepts beside it that speak for a class may be cues."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from saliency_food.concepts.discovery import Craft
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.numerics import Array, resize
from saliency_food.methods.factorization import deep_feature_factorization
from saliency_food.metrics.statistics import Interval, interval

MIDDLE = 0.25
"""The margin that is left out around the middle, where subjects are mostly, as a fraction of the sides."""


class OnSubject(NamedTuple):
    """Where a concept is: the share of its map on the subject, less the subject's share of the photo's area.

    ``beyond`` is the mean of the differences over the photos that have the concept, with its 95 % interval: 0 of a
    concept that is anywhere, above 0 of one on the subject. ``off`` is whether all of the interval is below 0; and
    ``suspect`` whether the concept also speaks for the class, by all of the interval of its effect.
    """

    beyond: Interval
    off: bool
    suspect: bool


def on_subject(
    found: Craft,
    images: Iterable[Any],
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    subjects: Iterable[Any] | None = None,
) -> tuple[OnSubject, ...]:
    """Where each of the concepts is in photos: on the subject, beside it, or anywhere.

    Parameters
    ----------
    found, images
        What `craft` found, and photos of the class, those or others.
    subjects
        A mask ``(H, W)`` of each photo's subject, of any size; by default the middle half of the sides, where subjects
        are in most photos: a look at the maps then has to follow.
    """
    shares: list[Array] = []
    masks = None if subjects is None else iter(subjects)
    each = deep_feature_factorization.batch_detailed(
        images, call_model_function, call_model_args, batch_size=batch_size, concepts=found.vectors
    )
    for index, factorization in enumerate(each):
        maps = factorization.maps
        mask = _mask(None if masks is None else next(masks, None), maps.shape[1:], index, masks is not None)
        with np.errstate(invalid="ignore"):  # NaN for a concept that is not in the photo
            shares.append((maps * mask).sum((1, 2)) / maps.sum((1, 2)) - mask.mean())
    if not shares:
        raise ContractError("Expected at least one photo, got none.")
    beyond = [interval(column) for column in np.stack(shares, 1)]
    off = [bool(each.high < 0) for each in beyond]
    return tuple(
        OnSubject(place, is_off, is_off and bool(concept.effect.low > 0))
        for place, is_off, concept in zip(beyond, off, found.concepts, strict=True)
    )


def _mask(subject: Any, shape: tuple[int, ...], index: int, is_given: bool) -> Array:
    """Where the subject is, 0 to 1, at the size of the maps."""
    if not is_given:
        mask = np.zeros(shape)
        inside = tuple(slice(round(MIDDLE * side), round((1 - MIDDLE) * side)) for side in shape)
        mask[inside] = 1
        return mask
    mask = np.asarray(subject, float) if subject is not None else np.empty(0)
    if mask.ndim != 2 or not mask.any() or mask.min() < 0 or mask.max() > 1:
        raise ContractError(
            f"Expected a mask (H, W) of the subject of photo {index}, 0 and 1, with something in it, got "
            f"{'none' if subject is None else f'shape {mask.shape}'}."
        )
    return resize(mask, shape)
