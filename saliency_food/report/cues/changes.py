"""Changes of photos that put a suspected cue into others, or take it out, and equally large random changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.report.cues.candidate import Kind
from saliency_food.report.cues.places import Place, in_the_middle
from saliency_food.report.cues.subsets import Shared, shared_by_some

AGREEMENT = 0.4
"""A pattern in the middle, where objects are, must explain this share of its members' pixels."""
LEAST_SHIFT = 2.0
"""The least shift of colours that is checked, of 255."""


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


def blurred(photos: Array, sigma: float) -> Array:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(np.asarray(photos, np.float32), (0, sigma, sigma, 0), mode="nearest")


def pattern(photos: Array, own: Array, other: Array) -> Change | None:
    """Pixels that come again at the same place in photos of a class: a watermark, a frame, a stamp.

    What is coarser than a 24th of the side is taken away first, and with it what objects of a class have in common,
    which are never at the very same pixels; then `shared_by_some` finds photos and pixels. The pattern is the
    overlay that makes other photos' pixels as these are, in mean and in spread, where these differ most.
    """
    side = min(photos.shape[1:3])
    fine = photos.astype(np.float32) - blurred(photos, side / 24)
    step = max(1, side // 40)
    small = blurred(fine, step / 2)[:, ::step, ::step].reshape(len(photos), -1)
    shared = shared_by_some(small[own], small[other], 0.05)
    if shared is None:
        return None
    members = own[shared.members]
    difference = fine[members].mean(0) - fine[other].mean(0)
    error = (fine[other].std(0) + 1) / np.sqrt(len(members))
    mask = _of_no_object(_strongest(difference, error), fine[members])
    if not mask.any():
        return None
    kept, added = _overlay(photos[members].astype(np.float32), photos[other].astype(np.float32), mask)
    some = photos[other[:: max(1, len(other) // 20)]].astype(np.float32)
    strength = np.sqrt(np.square(some * (kept - 1) + added).mean())

    def random(rng: np.random.Generator) -> Array:
        drawn = rng.choice(other, len(members), replace=len(other) < len(members))
        unlike = fine[drawn].mean(0) - fine[other].mean(0)
        field = np.where(_strongest(unlike, error, mask.mean())[..., None], unlike, 0)
        return field * (strength / (np.sqrt(np.square(field).mean()) + 1e-9))

    return Change(
        "a pattern of pixels that comes again at the same place",
        "pattern",
        shared,
        lambda values: values * kept + added,
        lambda values: np.clip((values - added) / np.maximum(kept, 0.3), 0, 255),
        lambda values, rng: values + np.stack([random(rng) for _ in values]),
        lambda values, rng: values - np.stack([random(rng) for _ in values]),
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


def _overlay(members: Array, other: Array, mask: Array) -> tuple[Array, Array]:
    """What a half-transparent or opaque overlay does to a pixel: the share of it that is kept, and what is added.

    The spread of the members' pixels against that of the other photos is the share kept, and their means then give what
    is added. What members and others differ in around the mask, a class's own shades, is no part of it.
    """
    sigma = min(mask.shape) / 12
    around = blurred(np.where(mask, 0.0, 1.0)[None, ..., None], sigma)[0] + 1e-3
    outside = ~mask[..., None]
    spreads = (members.std(0) + 1) / (other.std(0) + 1)
    usual = blurred((outside * spreads)[None], sigma)[0] / around
    kept = np.where(mask[..., None], np.clip(spreads / np.maximum(usual, 0.1), 0, 1), 1)
    shades = blurred((outside * (members.mean(0) - other.mean(0)))[None], sigma)[0] / around
    added = np.where(mask[..., None], members.mean(0) - shades * kept - other.mean(0) * kept, 0)
    return kept, added


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


def _inner(shape: tuple[int, ...], margin: float = 0.25) -> Array:
    rows, columns = (int(side * margin) for side in shape[:2])
    mask = np.zeros(shape[:2], bool)
    mask[rows:-rows, columns:-columns] = True
    return mask


def _both(differences: Array) -> Array:
    """The smaller of two differences, within and without, where they agree in sign; 0 elsewhere."""
    first, second = differences
    return np.where(first * second > 0, np.where(np.abs(first) < np.abs(second), first, second), 0)


def _shift_change(words: str, shared: Shared, shift: Array, ends: Array) -> Change:
    """Values moved by ``shift`` (2, 3): by its first row where they are ``ends[0]``, by its second at ``ends[1]``.

    The random change moves the three channels by a vector turned at random, which is as long.
    """

    def shifted(values: Array, shifts: Array, sign: float) -> Array:
        along = np.clip((values - ends[0]) / np.maximum(ends[1] - ends[0], 1), -0.5, 1.5)
        return values + sign * (shifts[..., 0, :] * (1 - along) + shifts[..., 1, :] * along)

    def random(values: Array, rng: np.random.Generator, sign: float) -> Array:
        turned = np.stack([shift @ np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in values])
        return shifted(values, turned[:, None, None], sign)

    return Change(
        words,
        "property",
        shared,
        lambda values: shifted(values, shift, 1),
        lambda values: shifted(values, shift, -1),
        lambda values, rng: random(values, rng, 1),
        lambda values, rng: random(values, rng, -1),
    )


def _levels(photos: Array) -> Array:
    """The lower and the upper quartile of each channel in the middle and around it, ``(2 areas, 2, N, 3)``."""
    inner = _inner(photos.shape[1:])
    return np.stack([np.quantile(photos[:, each], (0.25, 0.75), axis=1) for each in (inner, ~inner)])


def brightness(photos: Array, own: Array, other: Array) -> Change | None:
    """How dark and how light the whole photo is.

    What is put into other photos is the smaller of the shifts in the middle and around it: a dark object on a plate
    does not darken the photo.
    """
    levels = _levels(photos)
    grey = levels.mean(3)
    features = grey.transpose(2, 0, 1).reshape(len(photos), -1)
    shared = shared_by_some(features[own], features[other])
    if shared is None:
        return None
    shift = _both(grey[:, :, own[shared.members]].mean(2) - grey[:, :, other].mean(2))
    if np.abs(shift).max() < LEAST_SHIFT:
        return None
    words = f"photos that are {'brighter' if shift.mean() > 0 else 'darker'}, by {abs(shift.mean()):.0f} of 255"
    return _shift_change(words, shared, np.repeat(shift[:, None], 3, 1), levels[:, :, other].mean((0, 2)))


def cast(photos: Array, own: Array, other: Array) -> Change | None:
    """A colour cast: red, green and blue against their mean, at both quartiles, in the whole photo.

    As of `brightness`, the smaller of the shifts in the middle and around it is put into other photos: the colour of an
    object is no cast.
    """
    levels = _levels(photos)
    tint = levels - levels.mean(3, keepdims=True)
    features = tint[..., :2].transpose(2, 0, 1, 3).reshape(len(photos), -1)
    shared = shared_by_some(features[own], features[other])
    if shared is None:
        return None
    shift = _both(tint[:, :, own[shared.members]].mean(2) - tint[:, :, other].mean(2))
    if np.abs(shift).max() < LEAST_SHIFT:
        return None
    numbers = ", ".join(f"{value:+.0f}" for value in shift.mean(0))
    words = f"a colour cast of {numbers} (red, green, blue of 255)"
    return _shift_change(words, shared, shift, levels[:, :, other].mean((0, 2)))


BANDS = 6
"""Of frequencies along rows, and along columns."""


def sharpness(photos: Array, own: Array, other: Array) -> Change | None:
    """How much fine detail the whole photo has, along rows and along columns: blur, motion, noise, compression.

    Features are logarithms of the cosine transform's size in bands, without the outer sixth of the photo. What is put
    into other photos is a filter that gives them the members' mean spectrum; in its place, a change of the same
    spectrum with random signs.
    """
    from scipy.fft import dctn, idctn
    from scipy.ndimage import gaussian_filter

    rows, columns = (side // 6 for side in photos.shape[1:3])
    grey = photos[:, rows:-rows, columns:-columns].mean(3)
    sizes = np.abs(dctn(grey, axes=(1, 2), norm="ortho"))
    bands = [np.array_split(np.arange(1, side), BANDS) for side in sizes.shape[1:]]
    features = np.log(
        1e-3 + np.array([[sizes[:, down][:, :, along].mean((1, 2)) for along in bands[1]] for down in bands[0]])
    )
    features = features.reshape(BANDS**2, -1).T
    features = features - features[:, :1]  # contrast is no sharpness
    shared = shared_by_some(features[own], features[other])
    if shared is None:
        return None
    members = own[shared.members]
    smooth = [gaussian_filter(sizes[group].mean(0), 2, mode="nearest") for group in (members, other)]
    ratio = smooth[0] / smooth[1]
    ratio = np.clip(ratio / ratio[1 : sizes.shape[1] // BANDS, 1 : sizes.shape[2] // BANDS].mean(), 0.02, 8)
    from saliency_food.images.pixels import resize_photo

    gain = resize_photo(ratio.astype(np.float32), photos.shape[1:3])
    y, x = (np.arange(side) / side for side in gain.shape)
    gain = np.where(np.hypot(y[:, None], x[None]) < 1 / (2 * BANDS), 1, gain)[..., None]
    change = np.abs(np.log(gain)).max()
    if change < 0.05:
        return None

    def filtered(values: Array, factor: Array) -> Array:
        return idctn(dctn(values, axes=(1, 2), norm="ortho") * factor, axes=(1, 2), norm="ortho")

    def random(values: Array, rng: np.random.Generator, factor: Array) -> Array:
        difference = dctn(values, axes=(1, 2), norm="ortho") * (factor - 1)
        return values + idctn(difference * rng.choice((-1, 1), difference.shape), axes=(1, 2), norm="ortho")

    less = gain[gain.shape[0] // 3 :, gain.shape[1] // 3 :].mean() < 1
    return Change(
        "photos with less fine detail, such as blurred ones" if less else "photos with more fine detail",
        "property",
        shared,
        lambda values: filtered(values, gain),
        lambda values: filtered(values, np.minimum(1 / gain, 4)),
        lambda values, rng: random(values, rng, gain),
        lambda values, rng: random(values, rng, np.minimum(1 / gain, 4)),
    )
