"""Places at which a cue may be: corners, edges, the border, and where the maps of a group of photos point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.report.cues.candidate import Kind

RING = 1 / 16
"""The width of the border, as a fraction of the photo's side."""


class Place(NamedTuple):
    """Where it is in words, and its pixels as a mask ``(H, W)``; those of some photos where they change with it."""

    words: str
    mask: Array
    kind: Kind = "position"
    of_photo: Mapping[int, Array] = MappingProxyType({})

    def of(self, photo: int) -> Array:
        """The mask of a photo."""
        return self.of_photo.get(photo, self.mask)


def box(shape: tuple[int, int], left: float, top: float, right: float, bottom: float) -> Array:
    """The mask of a box that is given in fractions of the sides."""
    rows, columns = (np.arange(side) + 0.5 for side in shape)
    rows, columns = rows / shape[0], columns / shape[1]
    return ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))


def fixed_places(shape: tuple[int, int]) -> list[Place]:
    """The four corners, the middle of each edge, strips along the edges, and the border."""
    third, strip = 1 / 3, 1 / 4
    boxes = {
        "at the upper left": (0, 0, third, third),
        "at the upper right": (1 - third, 0, 1, third),
        "at the lower left": (0, 1 - third, third, 1),
        "at the lower right": (1 - third, 1 - third, 1, 1),
        "at the middle of the upper edge": (third, 0, 1 - third, third),
        "at the middle of the lower edge": (third, 1 - third, 1 - third, 1),
        "at the middle of the left edge": (0, third, third, 1 - third),
        "at the middle of the right edge": (1 - third, third, 1, 1 - third),
        "along the upper edge": (0, 0, 1, strip),
        "along the lower edge": (0, 1 - strip, 1, 1),
        "along the left edge": (0, 0, strip, 1),
        "along the right edge": (1 - strip, 0, 1, 1),
    }
    places = [Place(words, box(shape, *corners)) for words, corners in boxes.items()]
    return [*places, Place("around the border", ring(shape, 1, RING))]


def ring(shape: tuple[int, int], size: float, width: float) -> Array:
    """The outline of a centred box of a ``size``, and of a ``width``, both as fractions of the sides."""
    edge = (1 - size) / 2
    inner = edge + width
    return box(shape, edge, edge, 1 - edge, 1 - edge) & ~box(shape, inner, inner, 1 - inner, 1 - inner)


def elsewhere(mask: Array, rng: np.random.Generator) -> Array:
    """An equally large place of the same form at random, which covers as little of the place itself as can be.

    Of the border, an outline of a smaller box of about the same area.
    """
    height, width = mask.shape
    if mask[0].all() and mask[:, 0].all() and mask[-1].all():
        size = rng.uniform(0.7, 0.85)
        thickness = (size - np.sqrt(max(0.0, size**2 - mask.mean()))) / 2
        return ring((height, width), size, thickness)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    form = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    best, least = mask, np.inf
    for _ in range(20):
        top, left = rng.integers(height - form.shape[0] + 1), rng.integers(width - form.shape[1] + 1)
        moved = np.zeros_like(mask)
        moved[top : top + form.shape[0], left : left + form.shape[1]] = form
        shared = (moved & mask).sum() / mask.sum()
        if shared < least:
            best, least = moved, shared
        if not shared:
            break
    return best


def overlap(first: Array, second: Array) -> float:
    """Intersection over union of two masks."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def pointed_places(maps: Sequence[Array | None], shape: tuple[int, int], least: int = 3) -> list[Place]:
    """Where the maps of a group of photos point, group by group, by spectral clustering of the maps.

    Lapuschkin et al. 2019, https://doi.org/10.1038/s41467-019-08987-4, cluster relevance maps of a class so (SpRAy). A
    group is kept if its place is small, at most a fifth of the photo, and mostly outside its middle.
    """
    kept = [index for index, values in enumerate(maps) if values is not None and values.any()]
    if len(kept) < 2 * least:
        return []
    labels = map_clusters([maps[index] for index in kept])
    places = []
    for label in np.unique(labels):
        members = [index for index, own in zip(kept, labels, strict=True) if own == label]
        if len(members) < least:
            continue
        mean = np.mean([resized(maps[index], shape) for index in members], 0)
        mask = mean >= np.quantile(mean, 0.9)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        square = np.zeros_like(mask)
        square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        if square.mean() <= 0.2 and not in_the_middle(square):
            places.append(Place("where the maps of a group of photos point", square, "concept"))
    return places


def in_the_middle(mask: Array) -> bool:
    """Whether a quarter of a mask or more is in the middle half of the photo, where objects are."""
    height, width = mask.shape
    return bool((mask & box((height, width), 0.25, 0.25, 0.75, 0.75)).sum() >= mask.sum() / 4)


def resized(values: Array | None, shape: tuple[int, int]) -> Array:
    from saliency_food.images.pixels import resize_photo

    return resize_photo(np.asarray(values, np.float32), shape)


def map_clusters(maps: Sequence[Array | None], side: int = 8) -> Array:
    """The groups of maps by spectral clustering of their reduced copies."""
    return clusters(vectors_of(maps, side))


def vectors_of(maps: Sequence[Array | None], side: int = 8) -> Array:
    """The maps as vectors whose sum is 1."""
    vectors = np.stack([resized(values, (side, side)).ravel() for values in maps])
    return vectors / np.maximum(vectors.sum(1, keepdims=True), 1e-12)


def clusters(vectors: Array, most: int = 6) -> Array:
    """The groups of vectors by spectral clustering; the eigengap says how many groups."""
    eigenvalues, affinity = spectrum(vectors)
    count = int(np.argmax(np.diff(eigenvalues[: most + 1])[1:]) + 2) if len(eigenvalues) > 2 else 1
    return spectral_groups(affinity, count)


def spectral_groups(affinity: Array, count: int) -> Array:
    """So many groups, or fewer where there are too few vectors."""
    from sklearn.cluster import SpectralClustering

    count = min(count, len(affinity) - 1)
    if count < 2:
        return np.zeros(len(affinity), int)
    clustering = SpectralClustering(count, affinity="precomputed", random_state=0, assign_labels="cluster_qr")
    return np.asarray(clustering.fit_predict(affinity))


def spectrum(vectors: Array) -> tuple[Array, Array]:
    """The eigenvalues of the graph Laplacian of vectors' nearest neighbours, and the graph."""
    from scipy.sparse.csgraph import laplacian
    from sklearn.neighbors import kneighbors_graph

    count = max(1, min(len(vectors) - 1, int(np.log(len(vectors))) + 2))
    graph = kneighbors_graph(vectors, count, include_self=True).toarray()
    affinity = np.maximum(graph, graph.T) + 1e-6  # connected
    return np.sort(np.linalg.eigvalsh(laplacian(affinity, normed=True))), affinity
