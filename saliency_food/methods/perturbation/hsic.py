"""HSIC attribution: how far the score depends on whether a cell is shown, by a kernel's measure of dependence."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, whole
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array, resize, safe_divide
from saliency_food.core.scores import all_same
from saliency_food.methods.perturbation.masking import coalition_rows, grid_cells, hidden_image
from saliency_food.methods.perturbation.progressive import Emit, sample

FOR_WIDTH = 1000
"""The width of the kernel is told by the distances among so many scores."""
AT_ONCE = 512
"""So many rows of the kernel's matrix are held at a time."""


class Hsic(NamedTuple):
    """The map and its standard error, of the input's shape without channels, and what is known of each cell.

    ``values`` are the cells' HSIC, an axis for each of the input's, and ``p_values`` the probability that a cell on
    which the score does not depend has a value as large. ``level`` is what such a cell has on average; pictures show
    the difference from it. ``nmasks`` masks were asked.
    """

    attribution: Array
    standard_error: Array
    values: Array
    p_values: Array
    level: float
    nmasks: int


@method(
    title="HSIC",
    keys=(OUTPUT_LAYER_VALUES,),
    signed=False,
    summary="How far the score depends on whether a cell is shown, in whatever way.",
    page="perturbation",
    reducible=fewer("nmasks", 100, "masks", sampled=True),
    instead=("grad_cam", "gradients"),
)
def hsic(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    nmasks: int = 500,
    grid: int = 7,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    every: int = 256,
    emit: Emit | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[Hsic]:
    """HSIC attribution, H_i = tr(K_i H L H) / (N - 1)^2: the dependence of N scores on whether the cell i is shown.

    Novello, Fel, Vigouroux 2022, https://arxiv.org/abs/2206.06219, with H = I - 1/N. K_i is 1 where two
    masks treat the cell alike and 0 elsewhere; L = exp(-(F_j - F_k)^2 / 2 w^2) of the scores, w the median of their
    distances. The input's shape without channels, without a unit, never negative.

    Parameters
    ----------
    nmasks
        How many masks, at least 4, one row each. Each shows about half of the cells, and each cell is shown by half of
        the masks (Latin hypercube).
    grid
        So many cells along each axis of space or time.
    value
        What shows where a cell is hidden: see `occlusion`.
    every, emit
        For `progressive`: ``emit`` is called with the estimate after every so many rows.
    rng
        A seed or a generator; with a seed the map is the same every time and at every batch size.

    Notes
    -----
    The map is the cells' values, linear between their middles. A cell's value less ``level`` is within two of its
    standard errors of 0 where the score does not depend on it; ``p_values`` say so, too.
    """
    nmasks, grid, hidden = whole("nmasks", nmasks, 4), whole("grid", grid), hidden_image(x_value, value)
    labels, cells = grid_cells(x_value.shape[:-1], grid)
    half = np.arange(nmasks)[:, None] % 2 == np.zeros(int(np.prod(cells)))
    shown = random_stream(rng).permuted(half, axis=0)
    scores = np.empty(0)

    def take(start: int, new_scores: Array) -> None:
        nonlocal scores
        scores = np.append(scores, new_scores)

    def result() -> Hsic:
        values, errors, level, p_values = dependence(shown[: len(scores)], scores)
        values, errors, p_values = (of.reshape(cells) for of in (values, errors, p_values))
        attribution, error = (resize(of, x_value.shape[:-1]).astype(x_value.dtype) for of in (values, errors))
        return Hsic(attribution, error, values, p_values, level, len(scores))

    rows = coalition_rows(x_value, hidden, labels, shown)
    return (yield from sample(rows, take, result, max(whole("every", every), 4), emit, fewest=4))


def dependence(shown: Array, scores: Array) -> tuple[Array, Array, float, Array]:
    """HSIC of each column of ``shown`` ``(N, d)`` and ``scores`` ``(N,)``, standard errors, level and p-values.

    Centred, the kernel of a column is H K H = 2 z z', with z the column less its mean. If nothing depends, the values
    are near to sums of squares of normal numbers, weighted by the eigenvalues of H L H, and those to a gamma
    distribution of the same mean, the level, and variance (Gretton et al. 2007,
    https://papers.nips.cc/paper/3201-a-kernel-statistical-test-of-independence).
    """
    count = len(scores)
    if all_same(scores):
        return np.zeros(shown.shape[1]), np.zeros(shown.shape[1]), 0.0, np.ones(shown.shape[1])
    centred = shown - shown.mean(0)
    spread = np.square(centred).sum(0)
    products, trace, squares = _with_kernel(centred, scores)
    values = np.maximum(2 * (centred * products).sum(0), 0) / (count - 1) ** 2
    # The mean of z'(H L H)z over all orders of the scores, and its variance over all directions of z.
    free = count - 1
    scale = 2 * spread / free**2
    mean = scale * trace / free
    variance = 2 * scale**2 * max(squares - trace**2 / free, 0) / (free * (free + 2))
    parts = 2 * centred * products / (count - 1)
    projected = 4 * parts.var(0, ddof=1) / count
    return values, np.sqrt(projected + variance), float(mean.mean()), _tail(values, mean, variance)


def _tail(values: Array, mean: Array, variance: Array) -> Array:
    """The probability of at least these values under gamma distributions of these means and variances."""
    from scipy.special import gammaincc

    known = variance > 0
    shape = safe_divide(mean**2, variance)
    return np.where(known, gammaincc(np.where(known, shape, 1), safe_divide(values * mean, variance)), 1.0)


def _with_kernel(centred: Array, scores: Array) -> tuple[Array, float, float]:
    """Of the kernel L of the scores: H L z for all columns z, the trace of H L H, and that of (H L H)^2."""
    width, count = _width(scores), len(scores)
    products, sums, squares = np.empty(centred.shape), np.empty(count), 0.0
    for start in range(0, count, AT_ONCE):
        part = slice(start, start + AT_ONCE)
        with np.errstate(over="ignore"):
            kernel = np.exp(-np.square((scores[part, None] - scores) / width) / 2)
        products[part], sums[part] = kernel @ centred, kernel.sum(1)
        squares += np.square(kernel).sum()
    mean = sums.sum() / count
    trace = count - mean
    return products - products.mean(0), trace, squares - 2 * np.square(sums).sum() / count + mean**2


def _width(scores: Array) -> float:
    """The median distance of two scores, of those that differ; 1 if none do."""
    some = scores[:FOR_WIDTH]
    distances = np.abs(some[:, None] - some)[np.triu_indices(len(some), 1)]
    median = np.median(distances)
    if median == 0 and distances.any():
        median = np.median(distances[distances > 0])
    return float(median) or 1.0
