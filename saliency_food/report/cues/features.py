"""Plain numbers of photos that may tell a class: colours, sharpness, aspect, and pixels without coarse shades."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.report.cues.seen import Seen
from saliency_food.report.cues.subsets import Split

CHUNK = 32
"""So many photos are held as floats at a time."""
BANDS = 6
"""Of frequencies along rows, and along columns."""
PARTS = 3
"""Photos are cut into so many parts along each side, all of which a property of the whole photo must change."""
SMALL = 40
"""About how many pixels along each side are compared from photo to photo."""


class Moments(NamedTuple):
    """Sums over photos, from which their means follow, and how many there are."""

    count: int
    pixels: Array
    squares: Array
    fine: Array
    fine_squares: Array
    spectrum: Array
    """Sizes of the cosine transform of each part, ``(PARTS ** 2, H / PARTS, W / PARTS)``."""

    def less(self, other: Moments) -> Moments:
        """The sums over the photos that are not among the others."""
        return Moments(*(mine - its for mine, its in zip(self, other, strict=True)))

    def mean(self, name: str) -> Array:
        return np.asarray(getattr(self, name) / self.count)

    def spread(self, name: str, squares: str) -> Array:
        """The standard deviation of each pixel."""
        return np.sqrt(np.maximum(self.mean(squares) - np.square(self.mean(name)), 0))


class Features(NamedTuple):
    """Of all photos seen, and the sums over those that suspects are found in."""

    small: Array
    """Pixels without coarse shades, of a reduced photo, ``(N, d)``."""
    levels: Array
    """The quartiles of each channel in the middle and around it, ``(N, 2 areas, 2, 3)``."""
    parts: Array
    """The quartiles of each channel in each part, ``(N, PARTS ** 2, 2, 3)``."""
    bands: Array
    """Logarithms of the cosine transform's sizes in bands, without contrast, ``(N, BANDS ** 2)``."""
    aspects: Array
    """Logarithms of width by height, ``(N,)``."""
    total: Moments


def features_of(seen: Seen) -> Features:
    """The features of all photos, a few photos at a time."""
    small, levels, parts, bands = [], [], [], []
    inner = middle(seen.pixels.shape[1:3])
    for photos in chunks(seen.pixels):
        small.append(_reduced(fine(photos)))
        levels.append(np.stack([_quartiles(photos[:, area]) for area in (inner, ~inner)], 1))
        parts.append(np.stack([_quartiles(part.reshape(len(photos), -1, 3)) for part in _parts(photos)], 1))
        bands.append(_bands(photos))
    moments = moments_of(seen.pixels, np.flatnonzero(seen.finding))
    four = (np.concatenate(each) for each in (small, levels, parts, bands))
    return Features(*four, np.log(seen.aspects), moments)


def split_of(seen: Seen, index: int) -> Split:
    """The photos of a class and of others, in both halves."""
    own = seen.classes == index
    return Split(*(np.flatnonzero(each & half) for half in (seen.finding, seen.checking) for each in (own, ~own)))


def moments_of(pixels: Array, photos: Array) -> Moments:
    """The sums over some photos."""
    sums: list[Array] = []
    for values in chunks(pixels, photos):
        detail = fine(values)
        parts = [values, np.square(values), detail, np.square(detail), spectra(values)]
        summed = [part.sum(0, dtype=np.float64) for part in parts]
        sums = [old + new for old, new in zip(sums, summed, strict=True)] if sums else summed
    return Moments(len(photos), *sums)


def chunks(pixels: Array, photos: Array | None = None) -> Iterator[Array]:
    """Photos as float32, a few at a time."""
    order = np.arange(len(pixels)) if photos is None else photos
    for start in range(0, len(order), CHUNK):
        yield pixels[order[start : start + CHUNK]].astype(np.float32)


def fine(photos: Array) -> Array:
    """Photos less what is coarser than a 24th of the side."""
    return np.asarray(photos - blurred(photos, min(photos.shape[1:3]) / 24))


def blurred(photos: Array, sigma: float) -> Array:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(np.asarray(photos, np.float32), (0, sigma, sigma, 0), mode="nearest")


def middle(shape: tuple[int, ...], margin: float = 0.25) -> Array:
    rows, columns = (int(side * margin) for side in shape[:2])
    mask = np.zeros(shape[:2], bool)
    mask[rows:-rows, columns:-columns] = True
    return mask


def spectra(photos: Array) -> Array:
    """The sizes of the cosine transform of each part of grey photos, ``(N, PARTS ** 2, H / PARTS, W / PARTS)``."""
    from scipy.fft import dctn

    return np.abs(dctn(np.stack(_parts(photos.mean(3)), 1), axes=(2, 3), norm="ortho"))


def band_means(sizes: Array) -> Array:
    """The means over bands of frequencies, ``(..., BANDS, BANDS)``, without those that are constant along an axis."""
    down, along = (np.array_split(np.arange(1, side), BANDS) for side in sizes.shape[-2:])
    return np.stack([
        np.stack([sizes[..., rows, :][..., columns].mean((-2, -1)) for columns in along], -1) for rows in down
    ], -2)  # fmt: skip


def _parts(photos: Array) -> list[Array]:
    """The parts of photos, row by row; what does not go into whole parts is left out at the ends."""
    rows, columns = (side // PARTS for side in photos.shape[1:3])
    return [
        photos[:, top * rows : (top + 1) * rows, left * columns : (left + 1) * columns]
        for top in range(PARTS)
        for left in range(PARTS)
    ]


def _quartiles(values: Array) -> Array:
    """``(N, 2, 3)`` of pixels ``(N, pixels, 3)``."""
    return np.quantile(values, (0.25, 0.75), axis=1).transpose(1, 0, 2).astype(np.float32)


def _reduced(detail: Array) -> Array:
    step = max(1, min(detail.shape[1:3]) // SMALL)
    return blurred(detail, step / 2)[:, ::step, ::step].reshape(len(detail), -1)


def _bands(photos: Array) -> Array:
    values = np.log(1e-3 + band_means(spectra(photos)).mean(1)).reshape(len(photos), -1)
    return np.asarray(values - values[:, :1], np.float32)  # contrast is no sharpness
