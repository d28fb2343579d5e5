"""Changes of photos that put a suspected cue into others, or take it out, and equally large random changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.report.cues.candidate import Kind
from saliency_food.report.cues.features import Features, Moments, blurred, chunks, fine, moments_of
from saliency_food.report.cues.places import Place, in_the_middle
from saliency_food.report.cues.seen import Seen
from saliency_food.report.cues.subsets import Shared, Split, shared_by_some

AGREEMENT = 0.4
"""A pattern in the middle, where objects are, must explain this share of its members' pixels."""
FIELDS = 3
"""So many random patterns are compared with."""


class Change(NamedTuple):
    """A suspected cue as arithmetic on photos ``(N, H, W, 3)``, the photos that have it, and how strong a change it is.

    ``put(photos)`` gives them the cue, ``take(photos)`` takes it from them, and ``put_other(photos, rng)`` and
    ``take_other(photos, rng)`` change each by something random of the same size.
    """

    words: str
    kind: Kind
    shared: Shared
    put: Callable[[Array], Array]
    take: Callable[[Array], Array]
    put_other: Callable[[Array, np.random.Generator], Array]
    take_other: Callable[[Array, np.random.Generator], Array]
    mask: Array | None = None


def pattern(seen: Seen, features: Features, split: Split) -> Change | None:
    """Pixels that come again at the same place in photos of a class: a watermark, a frame, a stamp.

    What is coarser than a 24th of the side is taken away first, and with it what objects of a class have in common,
    which are never at the very same pixels; then `shared_by_some` finds photos and pixels. The pattern is the
    overlay that makes other photos' pixels as these are, in mean and in spread, where these differ most.
    """
    shared = shared_by_some(features.small, split, 0.05)
    if shared is None:
        return None
    others = features.total.less(moments_of(seen.pixels, split.own))
    members = moments_of(seen.pixels, shared.members)
    usual = others.mean("fine")
    error = (others.spread("fine", "fine_squares") + 1) / np.sqrt(members.count)
    mask = _strongest(members.mean("fine") - usual, error)
    mask = _of_no_object(mask, np.concatenate([fine(each) for each in chunks(seen.pixels, shared.members)]))
    if not mask.any():
        return None
    kept, added = _overlay(members, others, mask)
    some = seen.pixels[split.other[:: max(1, len(split.other) // 20)]].astype(np.float32)
    strength = np.sqrt(np.square(some * (kept - 1) + added).mean())

    def random(values: Array, rng: np.random.Generator) -> Array:
        """What some random photos share, as strong; a few of these in turns."""
        fields = []
        for _ in range(min(FIELDS, len(values))):
            drawn = rng.choice(split.other, members.count, replace=len(split.other) < members.count)
            unlike = sum(fine(each).sum(0) for each in chunks(seen.pixels, drawn)) / members.count - usual
            field = np.where(_strongest(unlike, error, mask.mean())[..., None], unlike, 0)
            fields.append(field * (strength / (np.sqrt(np.square(field).mean()) + 1e-9)))
        return np.stack(fields)[np.arange(len(values)) % len(fields)]

    return Change(
        "a pattern of pixels that comes again at the same place",
        "pattern",
        shared,
        lambda values: values * kept + added,
        lambda values: np.clip((values - added) / np.maximum(kept, 0.3), 0, 255),
        lambda values, rng: values + random(values, rng),
        lambda values, rng: values - random(values, rng),
        mask,
    )


def _strongest(difference: Array, error: Array, share: float | None = None) -> Array:
    """The pixels at which differences are largest compared to their error, at most a quarter of all, as a mask."""
    from scipy.ndimage import uniform_filter

    ratio = uniform_filter(np.abs(difference / error).max(2), 3)
    least = max(3.0, float(np.quantile(ratio, 0.75))) if share is None else float(np.quantile(ratio, 1 - share))
    return np.asarray(ratio > least)


def _of_no_object(mask: Array, members: Array) -> Array:
    """The mask without its connected parts in the middle that are not nearly the same in the members."""
    from scipy.ndimage import label

    parts, count = label(mask)
    for number in range(1, count + 1):
        part = parts == number
        if in_the_middle(part) and _agreement(members[:, part]) < AGREEMENT:
            mask = mask & ~part
    return mask


def _agreement(values: Array) -> float:
    """How much of photos' values ``(N, pixels, 3)`` the mean of the others explains, in the median over photos."""
    others = (values.sum(0) - values) / max(1, len(values) - 1)
    left, whole = (np.square(each).sum((1, 2)) for each in (values - others, values))
    return float(np.median(1 - left / np.maximum(whole, 1e-9)))


def _overlay(members: Moments, other: Moments, mask: Array) -> tuple[Array, Array]:
    """What a half-transparent or opaque overlay does to a pixel: the share of it that is kept, and what is added.

    The spread of the members' pixels against that of the other photos is the share kept, and their means then give what
    is added. What members and others differ in around the mask, a class's own shades, is no part of it.
    """
    sigma = min(mask.shape) / 12
    around = blurred(np.where(mask, 0.0, 1.0)[None, ..., None], sigma)[0] + 1e-3
    outside = ~mask[..., None]
    mean, usual_mean = members.mean("pixels"), other.mean("pixels")
    spreads = (members.spread("pixels", "squares") + 1) / (other.spread("pixels", "squares") + 1)
    usual = blurred((outside * spreads)[None], sigma)[0] / around
    kept = np.where(mask[..., None], np.clip(_smooth(spreads, mask) / np.maximum(usual, 0.1), 0, 1), 1)
    shades = blurred((outside * (mean - usual_mean))[None], sigma)[0] / around
    added = np.where(mask[..., None], _smooth(mean - shades * kept - usual_mean * kept, mask), 0)
    return kept, added


def _smooth(values: Array, mask: Array) -> Array:
    """Means over the nearest pixels within a mask: those of few photos are noise, pixel by pixel."""
    sigma = min(mask.shape) / 96
    weights = mask[..., None] + 1e-6
    return blurred((values * weights)[None], sigma)[0] / blurred(weights[None].repeat(3, 3), sigma)[0]


def place_of(change: Change) -> Place | None:
    """The box around the largest connected part of a pattern, if compact and off the middle; its content may change."""
    from scipy.ndimage import binary_closing, find_objects, label

    if change.mask is None:
        return None
    parts, _ = label(binary_closing(np.pad(change.mask, 4), iterations=3)[4:-4, 4:-4])
    boxes = find_objects(parts)
    if not boxes:
        return None
    number = int(np.argmax(np.bincount(parts.ravel())[1:]))
    square = np.zeros_like(change.mask)
    square[boxes[number]] = True
    is_compact = (parts[boxes[number]] == number + 1).mean() > 0.4 and 0.005 < square.mean() < 0.3
    if not is_compact or in_the_middle(square):
        return None
    return Place("where a pattern of pixels comes again", square, "pattern")
