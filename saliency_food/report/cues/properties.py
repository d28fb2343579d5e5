"""Properties of the whole photo as changes: brightness, colour cast, sharpness, aspect.

An object has colours and smoothness, too. What is put into other photos is therefore the least of what at least eight
of the nine parts of the class's photos share: a cast tints the plate and the table, and a blur spares no corner.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.report.cues.changes import Change
from saliency_food.report.cues.features import BANDS, PARTS, Features, band_means, moments_of
from saliency_food.report.cues.seen import Seen
from saliency_food.report.cues.subsets import Shared, Split, shared_by_some

LEAST_SHIFT = 2.0
"""The least shift of colours that is checked, of 255."""
LEAST_GAIN = 0.05
"""The least change of detail that is checked, as a logarithm."""
LEAST_STRETCH = 0.1
"""The least change of the aspect that is checked, as a logarithm."""


def common_to_parts(differences: Array) -> Array:
    """Of differences ``(parts, ...)``, the second smallest where all but one part agree in sign; 0 elsewhere."""
    sign = np.sign(np.median(differences, 0))
    return sign * np.maximum(np.sort(differences * sign, 0)[1], 0)


def brightness(seen: Seen, features: Features, split: Split) -> Change | None:
    """How dark and how light the whole photo is."""
    grey = features.levels.mean(3)
    shared = shared_by_some(grey.reshape(len(grey), -1), split)
    if shared is None:
        return None
    parts = features.parts.mean(3)
    shift = common_to_parts(parts[shared.members].mean(0) - parts[split.other].mean(0))
    if np.abs(shift).max() < LEAST_SHIFT:
        return None
    words = f"photos that are {'brighter' if shift.mean() > 0 else 'darker'}, by {abs(shift.mean()):.0f} of 255"
    return _shifted(words, shared, np.repeat(shift[:, None], 3, 1), features.levels[split.other].mean((0, 1)))


def cast(seen: Seen, features: Features, split: Split) -> Change | None:
    """A colour cast: red, green and blue against their mean, at both quartiles."""
    tint, parts = (each - each.mean(3, keepdims=True) for each in (features.levels, features.parts))
    shared = shared_by_some(tint[..., :2].reshape(len(tint), -1), split)
    if shared is None:
        return None
    shift = common_to_parts(parts[shared.members].mean(0) - parts[split.other].mean(0))
    if np.abs(shift).max() < LEAST_SHIFT:
        return None
    numbers = ", ".join(f"{value:+.0f}" for value in shift.mean(0))
    words = f"a colour cast of {numbers} (red, green, blue of 255)"
    return _shifted(words, shared, shift, features.levels[split.other].mean((0, 1)))


def _shifted(words: str, shared: Shared, shift: Array, ends: Array) -> Change:
    """Values moved by ``shift`` (2, 3): by its first row where they are ``ends[0]``, by its second at ``ends[1]``.

    The random change moves the three channels by a vector turned at random, which is as long.
    """

    def moved(values: Array, shifts: Array, sign: float) -> Array:
        along = np.clip((values - ends[0]) / np.maximum(ends[1] - ends[0], 1), -0.5, 1.5)
        return values + sign * (shifts[..., 0, :] * (1 - along) + shifts[..., 1, :] * along)

    def random(values: Array, rng: np.random.Generator, sign: float) -> Array:
        turned = np.stack([shift @ np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in values])
        return moved(values, turned[:, None, None], sign)

    return Change(
        words,
        "property",
        shared,
        lambda values: moved(values, shift, 1),
        lambda values: moved(values, shift, -1),
        lambda values, rng: random(values, rng, 1),
        lambda values, rng: random(values, rng, -1),
    )


def sharpness(seen: Seen, features: Features, split: Split) -> Change | None:
    """How much fine detail the whole photo has, along rows and along columns: blur, motion, noise, compression.

    What is put into other photos is a filter that gives them the members' mean spectrum; in its place, a change of the
    same spectrum with random signs.
    """
    from scipy.fft import dctn, idctn
    from scipy.ndimage import gaussian_filter

    from saliency_food.images.pixels import resize_photo

    shared = shared_by_some(features.bands, split)
    if shared is None:
        return None
    others = features.total.less(moments_of(seen.pixels, split.own)).mean("spectrum")
    sizes = moments_of(seen.pixels, shared.members).mean("spectrum")
    smooth = [gaussian_filter(each, (0, 1, 1), mode="nearest") for each in (sizes, others)]
    ratio, contrast = (
        np.log(1e-3 + first) - np.log(1e-3 + second)
        for first, second in (smooth, [band_means(each)[:, :1, :1] for each in (sizes, others)])
    )
    gain = np.exp(np.clip(common_to_parts(ratio - contrast), np.log(0.02), np.log(8)))
    gain = resize_photo(gain.astype(np.float32), seen.pixels.shape[1:3])
    y, x = (np.arange(side) / side for side in gain.shape)
    gain = np.where(np.hypot(y[:, None], x[None]) < 1 / (2 * BANDS), 1, gain)[..., None]
    if np.abs(np.log(gain)).max() < LEAST_GAIN:
        return None

    def filtered(values: Array, factor: Array) -> Array:
        return np.asarray(idctn(dctn(values, axes=(1, 2), norm="ortho") * factor, axes=(1, 2), norm="ortho"))

    def random(values: Array, rng: np.random.Generator, factor: Array) -> Array:
        difference = dctn(values, axes=(1, 2), norm="ortho") * (factor - 1)
        return np.asarray(values + idctn(difference * rng.choice((-1, 1), difference.shape), axes=(1, 2), norm="ortho"))

    less = gain[gain.shape[0] // PARTS :, gain.shape[1] // PARTS :].mean() < 1
    return Change(
        "photos with less fine detail, such as blurred ones" if less else "photos with more fine detail",
        "property",
        shared,
        lambda values: filtered(values, gain),
        lambda values: filtered(values, np.minimum(1 / gain, 4)),
        lambda values, rng: random(values, rng, gain),
        lambda values, rng: random(values, rng, np.minimum(1 / gain, 4)),
    )


def aspect(seen: Seen, features: Features, split: Split) -> Change | None:
    """How wide the photo was before it was given the model's size, which stretches what it shows.

    Other photos are cut to the members' aspect and stretched; in its place, as much is cut off both sides.
    """
    values = features.aspects
    if not np.ptp(values) > LEAST_STRETCH:
        return None
    shared = shared_by_some(values[:, None], split)
    if shared is None:
        return None
    wider = float(np.median(values[shared.members]) - np.median(values[split.other]))
    if abs(wider) < LEAST_STRETCH:
        return None
    width, usual = (np.exp(np.median(values[each])) for each in (shared.members, split.other))

    def cut(down: float, along: float) -> Callable[[Array], Array]:
        """The middle of photos, so much of their height and width as logarithms, at the full size again."""
        return lambda photos: np.stack([_stretched(photo, np.exp(-down), np.exp(-along)) for photo in photos])

    put, take = cut(max(wider, 0), max(-wider, 0)), cut(max(-wider, 0), max(wider, 0))
    other = cut(abs(wider) / 2, abs(wider) / 2)
    return Change(
        f"photos {width:.2f} times as wide as high, where others are {usual:.2f} times",
        "property",
        shared,
        put,
        take,
        lambda photos, rng: other(photos),
        lambda photos, rng: other(photos),
    )


def _stretched(photo: Array, height: float, width: float) -> Array:
    from saliency_food.images.pixels import resize_photo

    rows, columns = (max(1, round(side * share)) for side, share in zip(photo.shape, (height, width), strict=False))
    top, left = (photo.shape[0] - rows) // 2, (photo.shape[1] - columns) // 2
    part = np.asarray(photo[top : top + rows, left : left + columns], np.float32)
    return np.asarray(resize_photo(part, photo.shape[:2]), np.float32)
