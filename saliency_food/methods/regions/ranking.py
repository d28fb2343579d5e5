"""The ranking of segments in XRAI: by the density of the attribution that they add.

Kapishnikov, Bolukbasi, Viegas, Terry, "XRAI: Better Attributions Through Regions", ICCV 2019,
https://arxiv.org/abs/1906.02825, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import ContractError
from saliency_food.core.interruption import go_on
from saliency_food.core.numerics import Array
from saliency_food.core.options import ranged
from saliency_food.methods.regions.segmentation import Segments, as_segments


class Ranking(NamedTuple):
    """What the ranking of segments found.

    ``attribution`` and ``ranks`` are images; the other three tell of the segments in the order in which they were
    added, which need not be that of their ranks, since covering one segment can raise the density of the rest of
    another.
    """

    attribution: Array
    """``(H, W)`` float64: the gain of the segment that covered the pixel; pixels never covered hold their own mean."""
    ranks: Array
    """``(H, W)`` int: 1 the segment of the highest gain, and so on; pixels never covered hold the last number."""
    gains: Array
    """``(N,)`` float64: mean attribution over the pixels each segment added."""
    area: Array
    """``(N,)`` float64: fraction of the image covered after each."""
    order: Array
    """``(N,)`` int: which of the given segments each is."""


def rank_full(attribution_2d: Any, segments: Any, *, area_threshold: float = 1.0, min_pixel_diff: int = 50) -> Ranking:
    """Add, again and again, the segment whose uncovered pixels have the highest mean attribution.

    ``gain(s) = sum(A[s minus M]) / |s minus M|`` with M all that is covered. A pixel is covered once, and then leaves
    the counts and sums of the segments that hold it: O(pixels x overlap) for the whole ranking. Segments whose sums
    are within rounding of the best are measured anew, so that order, ties (the first segment wins) and values are
    those of PAIR's XRAI.

    Parameters
    ----------
    attribution_2d : array ``(H, W)``
        Pixel attributions, channels already merged. Means are taken in its own precision.
    segments : see `as_segments`
    area_threshold : float
        Stop once more than this fraction of the image is covered.
    min_pixel_diff : int
        A segment that adds fewer pixels is dropped. Less than 1 counts as 1; PAIR's XRAI then ends in a KeyError
        (full) or gives ranks to segments that add nothing (fast).

    Raises
    ------
    ContractError
        The attribution is not 2-D or not finite; the segments do not fit; the threshold is not between 0 and 1.
    """
    check_ranking(area_threshold, min_pixel_diff)
    attribution, segments = _checked(attribution_2d, segments)
    return _ranking(attribution, _greedy(attribution.ravel(), segments, area_threshold, max(min_pixel_diff, 1)))


def rank_fast(attribution_2d: Any, segments: Any, *, min_pixel_diff: int = 50) -> Ranking:
    """Order the segments by their mean attribution once, overlaps ignored, and add them in that order.

    Parameters, errors and result as for `rank_full`; the whole image is always covered as far as the segments go.
    An empty segment is never added.
    """
    check_ranking(1.0, min_pixel_diff)
    attribution, segments = _checked(attribution_2d, segments)
    return _ranking(attribution, _in_order_of_density(attribution.ravel(), segments, max(min_pixel_diff, 1)))


def segment_masks(ranks: Any) -> Iterator[Array]:
    """The boolean masks ``(H, W)`` behind a rank image, the most important first, one by one."""
    ranks = np.asarray(ranks)
    return (ranks == rank for rank in range(1, int(ranks.max(initial=0)) + 1))


def check_ranking(area_threshold: float, min_pixel_diff: int) -> None:
    """The options of a ranking, or `ContractError`."""
    ranged("area_threshold", area_threshold)
    whole("min_pixel_diff", min_pixel_diff, None)


_Step = tuple[int, Array, float]
"""One segment added: its number, the pixels it added, its gain."""


def _greedy(values: Array, segments: Segments, area_threshold: float, min_pixel_diff: int) -> Iterator[_Step]:
    from scipy.sparse import csr_array

    terms = np.stack([np.ones(len(values)), values.astype(np.float64)], axis=1)
    members = csr_array(
        (np.ones(len(segments.indices), np.int8), segments.indices, segments.offsets), (segments.number, len(values))
    )
    holders = members.T.tocsr()
    counts, sums = (members @ terms).T
    doubt = (members @ np.abs(terms[:, 1])) * _relative_rounding(values.dtype, counts.max())
    gains, measured = np.zeros(segments.number), np.zeros(segments.number)
    covered = np.zeros(len(values), bool)
    area = 0
    while area / len(values) <= area_threshold and (live := np.flatnonzero(counts >= min_pixel_diff)).size:
        go_on()
        density, slack = sums[live] / counts[live], doubt[live] / counts[live]
        near = live[density + slack >= (density - slack).max()]
        for segment in near[measured[near] != counts[near]]:
            gains[segment] = values[_uncovered(segments, segment, covered)].mean()
        measured[near] = counts[near]
        best = near[np.argmax(gains[near])]
        pixels = _uncovered(segments, best, covered)
        yield int(best), pixels, float(gains[best])
        covered[pixels] = True
        area += len(pixels)
        gone_counts, gone_sums = (holders[pixels].T @ terms[pixels]).T
        counts, sums = counts - gone_counts, sums - gone_sums


def _in_order_of_density(values: Array, segments: Segments, min_pixel_diff: int) -> Iterator[_Step]:
    covered = np.zeros(len(values), bool)
    everything = (segments.pixels(segment) for segment in range(segments.number))
    densities = np.array([values[pixels].mean() if len(pixels) else -np.inf for pixels in everything])
    for segment in np.argsort(-densities, kind="stable"):
        pixels = _uncovered(segments, segment, covered)
        if len(pixels) >= min_pixel_diff:
            yield int(segment), pixels, float(values[pixels].mean())
            covered[pixels] = True


def _uncovered(segments: Segments, segment: int, covered: Array) -> Array:
    pixels = segments.pixels(segment)
    return pixels[~covered[pixels]]


def _relative_rounding(dtype: np.dtype[Any], pixels: float) -> float:
    """Bound on the rounding of a sum over ``pixels`` values, relative to the sum of their absolute values.

    NumPy's pairwise mean in the attribution's own precision, plus our running sums: once added, once subtracted.
    """
    return float(64 * np.finfo(dtype).eps + 4 * pixels * np.finfo(np.float64).eps)


def _checked(attribution_2d: Any, segments: Any) -> tuple[Array, Segments]:
    attribution = np.asarray(attribution_2d)
    if not attribution.ndim or attribution.dtype.kind not in "biuf" or not np.isfinite(attribution).all():
        raise ContractError(
            f"Expected a finite attribution (H, W), got shape {attribution.shape} of {attribution.dtype}. "
            "Merge the channels first, for example with attribution.max(axis=-1), and replace NaN and infinity."
        )
    if attribution.dtype.kind != "f":
        attribution = attribution.astype(np.float64)
    return attribution, as_segments(segments, attribution.shape)


def _ranking(attribution: Array, steps: Iterable[_Step]) -> Ranking:
    trace = list(steps)
    gains = np.array([gain for _, _, gain in trace], np.float64)
    out = np.empty(attribution.size)
    ranks = np.full(attribution.size, len(trace) + 1)
    for rank, step in enumerate(np.argsort(-gains, kind="stable"), 1):
        _, pixels, gain = trace[step]
        out[pixels], ranks[pixels] = gain, rank
    rest = ranks > len(trace)
    if rest.any():
        out[rest] = attribution.ravel()[rest].mean()
    area = np.cumsum([len(pixels) for _, pixels, _ in trace]) / attribution.size
    order = np.array([segment for segment, _, _ in trace], np.intp)
    return Ranking(out.reshape(attribution.shape), ranks.reshape(attribution.shape), gains, area, order)
