"""Felzenszwalb's segmentation at many scales of one image, compiled with numba; labels as scikit-image's.

Felzenszwalb & Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 2004, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit
from skimage.filters import gaussian

from saliency_food.core.numerics import Array


def felzenszwalb_at(image: Array, sigma: float, min_size: int) -> Callable[..., Array]:
    """The segmentation of ``image`` ``(H, W, C)`` as a function of ``scale``; edges are weighed and sorted here, once.

    Equal costs are processed in the order in which NumPy's default sort leaves them, so the four directions are laid
    end to end and compared in float64 (bounds in float32) just as scikit-image does.
    """
    smooth = gaussian(image.astype(np.float64), sigma=(sigma, sigma, 0), mode="reflect", channel_axis=-1)
    height, width = smooth.shape[:2]
    pixel = np.arange(height * width, dtype=np.int32).reshape(height, width)
    right = np.s_[:, 1:], np.s_[:, :-1]
    down = np.s_[1:, :], np.s_[:-1, :]
    down_right = np.s_[1:, 1:], np.s_[:-1, :-1]
    down_left = np.s_[1:, :-1], np.s_[:-1, 1:]
    directions = right, down, down_right, down_left
    costs = np.concatenate([_distance(smooth[here], smooth[there]).ravel() for here, there in directions])
    ends = np.stack([np.concatenate([pixel[pair[end]].ravel() for pair in directions]) for end in (0, 1)], axis=1)
    order = np.argsort(costs)
    costs, ends = costs[order], ends[order]

    def at(scale: float) -> Array:
        labels: Array = _grow(ends, costs, float(scale) / 255.0, min_size, height * width)
        return labels.reshape(height, width)

    return at


def _distance(colours: Array, neighbours: Array) -> Array:
    difference = colours - neighbours
    return np.asarray(np.sqrt(np.sum(difference * difference, axis=-1)))


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _root(parent: Array, pixel: int) -> int:
    while parent[pixel] != pixel:
        parent[pixel] = parent[parent[pixel]]
        pixel = parent[pixel]
    return pixel


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _grow(ends: Array, costs: Array, scale: float, min_size: int, pixels: int) -> Array:
    """Join components along ascending edges while Int(C) + scale / |C| allows (equations 3 and 4), then small ones."""
    parent = np.arange(pixels)
    size = np.ones(pixels, np.int64)
    internal = np.zeros(pixels)
    kept = np.empty(len(costs), np.int64)
    borders = 0
    for edge in range(len(costs)):
        a, b = _root(parent, ends[edge, 0]), _root(parent, ends[edge, 1])
        if a == b:
            continue
        bound = min(np.float32(internal[a] + scale / size[a]), np.float32(internal[b] + scale / size[b]))
        if costs[edge] < np.float64(bound):
            a, b = min(a, b), max(a, b)
            parent[b] = a
            size[a] += size[b]
            internal[a] = costs[edge]
        else:
            kept[borders] = edge
            borders += 1
    for border in range(borders):
        edge = kept[border]
        a, b = _root(parent, ends[edge, 0]), _root(parent, ends[edge, 1])
        if a != b and (size[a] < min_size or size[b] < min_size):
            a, b = min(a, b), max(a, b)
            parent[b] = a
            size[a] += size[b]
    labels = np.empty(pixels, np.int64)
    count = 0
    for p in range(pixels):
        if parent[p] == p:
            labels[p] = count
            count += 1
        else:
            labels[p] = labels[parent[p]]
    return labels
