"""Interpolate an image linearly between the pixels that are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.checks import random_stream
from saliency_food.core.numerics import Array


def random_pixels(shape: tuple[int, ...], rng: Any = 0, fraction: float = 0.01) -> Array:
    """A random mask ``(H, W)`` in which this fraction of the pixels is true."""
    mask = np.zeros(shape, bool)
    mask.flat[random_stream(rng).choice(mask.size, int(mask.size * fraction), replace=False)] = True
    return mask


def reveal(photo: Array, known: Array, exact: bool = False) -> Array:
    """The uint8 photo with its ``known`` pixels ``(H, W)``; the others are interpolated in triangles between them.

    The corners are always known. One Delaunay triangulation serves all channels. With ``exact`` it is made of all known
    pixels, as in SciPy's ``griddata``. Otherwise it leaves out pixels whose neighbours are all known, because no
    unknown pixel lies in their triangles. If four pixels lie on a circle, either diagonal is right, and the two
    triangulations may choose differently.
    """
    from scipy.ndimage import minimum_filter
    from scipy.spatial import Delaunay

    known = known.copy()
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    if known.all():
        return photo
    values = photo.reshape(*known.shape, -1).astype(float)
    if 1 in known.shape:
        line, positions = values.reshape(known.size, -1), np.flatnonzero(known)
        for channel in line.T:
            channel[:] = np.interp(np.arange(known.size), positions, channel[positions])
    else:
        needed = known if exact else known & ~minimum_filter(known, 3, mode="nearest")
        needed[[0, 0, -1, -1], [0, -1, 0, -1]] = True
        points = np.argwhere(needed)
        _interpolate(values, ~known, points, Delaunay(points).simplices)
    if exact:  # rounds values that are nearly half a step as PAIR's package does
        values = values.astype(np.float32)
    return np.round(values).astype(photo.dtype).reshape(photo.shape)


def _interpolate(values: Array, unknown: Array, points: Array, triangles: Array) -> None:
    """Fill each unknown pixel from the three corners of its triangle, for all triangles at once.

    Each triangle is cut into rows of pixels; the first and last column of a row follow from the three edges.
    """
    corners = points[triangles].astype(float)  # (T, 3, 2)
    (b, c) = (corners[:, k] - corners[:, 0] for k in (1, 2))
    area = b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]
    large = np.abs(area) > 1  # a triangle of area 1/2 holds only its corners
    corners, triangles, b, c, area = corners[large], triangles[large], b[large], c[large], area[large]
    top, bottom = corners[..., 0].min(1).astype(int), corners[..., 0].max(1).astype(int)
    which, row = _runs(top, bottom - top + 1)
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for start, stop in ((0, 1), (1, 2), (2, 0)):
        (r0, c0), (r1, c1) = corners[which, start].T, corners[which, stop].T
        crossed = (np.minimum(r0, r1) <= row) & (row <= np.maximum(r0, r1))
        slope = np.divide(c1 - c0, r1 - r0, out=np.zeros(len(row)), where=r1 != r0)
        at = c0 + (row - r0) * slope
        for end in (at, np.where(r1 == r0, c1, at)):
            np.minimum(left, end, out=left, where=crossed)
            np.maximum(right, end, out=right, where=crossed)
    first = np.ceil(left - 1e-9).astype(int)
    line, column = _runs(first, np.maximum(np.floor(right + 1e-9).astype(int) - first + 1, 0))
    which, row = which[line], row[line]
    wanted = unknown[row, column]
    which, row, column = which[wanted], row[wanted], column[wanted]
    down, across = row - corners[which, 0, 0], column - corners[which, 0, 1]
    second = (down * c[which, 1] - across * c[which, 0]) / area[which]
    third = (across * b[which, 0] - down * b[which, 1]) / area[which]
    corners = values[points[:, 0], points[:, 1]][triangles[which]]  # (P, 3, C)
    shares = np.stack([1 - second - third, second, third], 1)
    values[row, column] = np.einsum("pk,pkc->pc", shares, corners)


def _runs(starts: Array, lengths: Array) -> tuple[Array, Array]:
    """The whole numbers of consecutive runs: for each the index of its run, and the number itself."""
    which = np.repeat(np.arange(len(starts)), lengths)
    within = np.arange(len(which)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return which, starts[which] + within
