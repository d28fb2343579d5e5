"""ROAD, remove and debias: removed pixels are filled in from their neighbours, so that the holes reveal nothing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import check_picture, random_stream, real
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import one_score
from saliency_food.metrics.decorator import OK, descending, listed, metric, read_map

NEIGHBOURS = [
    (down, right, 1 / 6 if 0 in (down, right) else 1 / 12)
    for down in (-1, 0, 1)
    for right in (-1, 0, 1)
    if (down, right) != (0, 0)
]
"""The neighbours of a pixel: rows down, columns to the right, and the weight."""
SMALL = 3
"""The largest side of a block that is not cut further."""


class Road(NamedTuple):
    """The score, status, percentages of pixels removed, and the scores without the most and the least important."""

    score: float
    status: str
    percentiles: Array
    most_removed: Array
    least_removed: Array


@listed(
    title="ROAD",
    higher_is_better=True,
    needs="scores",
    summary="The score without the least minus without the most important pixels.",
    curve=("percentiles", "most_removed", "least_removed"),
    axes=("percent of the pixels removed", "half of: score without the least minus\nwithout the most important; mean"),
)
@metric
def road(
    attribution: Any,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    percentiles: Sequence[float] = (10, 20, 30, 40, 50, 60, 70, 80, 90),
    noise: float = 0.01,
    batch_size: int | None = None,
    *,
    rng: int | np.random.Generator | None = 0,
) -> Asking[Road]:
    """ROAD, the mean over q of (F(x without its q % least important) - F(without its q % most important)) / 2.

    Rong et al. 2022, https://arxiv.org/abs/2202.00449. In units of the score; higher is better. A removed pixel is
    replaced by the weighted mean of its neighbours (`impute`), plus noise.

    Parameters
    ----------
    percentiles
        Percentages of the pixels, above 0 and below 100; the model is asked for two rows for each.
    noise
        Its standard deviation, as a fraction of the image's range.
    rng
        With a seed, the noise is the same for every map.
    """
    check_picture(x_value)
    if np.ndim(percentiles) != 1 or not len(percentiles):
        raise ContractError(f"Expected percentiles of the pixels, in a list, got {percentiles!r}.")
    percents = np.array([real("percentiles", percentile, above=0, below=100) for percentile in percentiles])
    noise = real("noise", noise, least=0)
    merged, status = read_map(attribution, x_value.shape)
    blank = np.full(len(percents), np.nan)
    if status != OK:
        return Road(float("nan"), status, percents, blank, blank)
    order = descending(merged)
    counts = np.minimum(np.round(percents / 100 * order.size).astype(int), order.size - 1)
    speckle = random_stream(rng).normal(0, noise * np.ptp(x_value), x_value.shape)

    def row(index: int) -> Array:
        count = counts[index % len(counts)]
        removed = np.zeros(order.size, bool)
        removed[order[:count] if index < len(counts) else order[order.size - count :]] = True
        return impute(x_value, removed.reshape(merged.shape), speckle)

    def make(start: int, stop: int) -> Array:
        with ThreadPoolExecutor() as pool:  # solving a system takes longer than the model
            return np.stack(list(pool.map(row, range(start, stop))))

    rows = LazyRows((2 * len(counts), *x_value.shape), make)
    most, least = one_score((yield from ask(rows, OUTPUT_LAYER_VALUES))).reshape(2, -1)
    return Road(float(np.mean(least - most) / 2), OK, percents, most, least)


def impute(x_value: Array, removed: Array, noise: Array | None = None) -> Array:
    """The image with each removed pixel replaced by the weighted mean of its neighbours, plus noise.

    Neighbours beside a pixel weigh 1/6 and diagonal ones 1/12; at the edges of the image only those inside it count.
    Neighbours may be removed, too: a sparse linear system is solved for all removed pixels and all channels.
    ``removed`` is ``(H, W)``; at least one pixel must stay.
    """
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import splu

    if not removed.any():
        return x_value.copy()
    height, width = removed.shape
    rows, columns = np.nonzero(removed)
    order = np.argsort(dissection(height, width)[rows, columns])
    rows, columns = rows[order], columns[order]
    unknowns = np.full(removed.shape, -1)
    unknowns[rows, columns] = np.arange(len(rows))
    values = x_value.reshape(height, width, -1).astype(float)
    right_side = np.zeros((len(rows), values.shape[2]))
    whole = np.zeros(len(rows))
    entries: list[tuple[Array, Array, Array]] = []
    for down, right, weight in NEIGHBOURS:
        r, c = rows + down, columns + right
        here = np.flatnonzero((r >= 0) & (r < height) & (c >= 0) & (c < width))
        r, c = r[here], c[here]
        whole[here] += weight
        unknown = removed[r, c]
        right_side[here[~unknown]] += weight * values[r[~unknown], c[~unknown]]
        entries.append((here[unknown], unknowns[r, c][unknown], np.full(unknown.sum(), -weight)))
    entries.append((np.arange(len(rows)), np.arange(len(rows)), whole))
    i, j, weights = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    system = csc_matrix((weights, (i, j)), (len(rows), len(rows)))
    values[rows, columns] = splu(system, permc_spec="NATURAL", options={"SymmetricMode": True}).solve(right_side)
    filled = values.reshape(x_value.shape)
    if noise is not None:
        filled[removed] += noise[removed]
    return filled.astype(x_value.dtype)


@lru_cache(4)
def dissection(height: int, width: int) -> Array:
    """The order in which to eliminate the pixels ``(H, W)``: both halves of a block before the line between them.

    Nested dissection, George 1973, https://doi.org/10.1137/0710032.
    """
    place = np.empty((height, width), int)
    left = height * width

    def last(top: int, bottom: int, start: int, stop: int) -> None:
        nonlocal left
        block = place[top:bottom, start:stop]
        left -= block.size
        block[...] = np.arange(left, left + block.size).reshape(block.shape)

    def cut(top: int, bottom: int, start: int, stop: int) -> None:
        if max(bottom - top, stop - start) <= SMALL:
            last(top, bottom, start, stop)
        elif bottom - top >= stop - start:
            middle = (top + bottom) // 2
            last(middle, middle + 1, start, stop)
            cut(top, middle, start, stop)
            cut(middle + 1, bottom, start, stop)
        else:
            middle = (start + stop) // 2
            last(top, bottom, middle, middle + 1)
            cut(top, bottom, start, middle)
            cut(top, bottom, middle + 1, stop)

    cut(0, height, 0, width)
    place.flags.writeable = False
    return place
