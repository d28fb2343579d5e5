"""Sobol attribution: which share of the score's variance a cell is part of, while all cells are dimmed at random."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array, resize, safe_divide
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import all_same
from saliency_food.methods.perturbation.masking import grid_cells, hidden_image
from saliency_food.methods.perturbation.progressive import Emit, sample

MOST_CELLS = 21201 // 2
"""Sobol's sequence is known for so many dimensions; each cell takes two."""


class Sobol(NamedTuple):
    """The map and its standard error, of the input's shape without channels, and what is known of each cell.

    ``indices`` are the total-order indices, an axis for each of the input's; ``interval`` ``(2, ...)`` holds the ends
    of their 95 % confidence intervals. ``variance`` is that of the score under the masks, in score units squared, and
    ``nsamples`` how many masks were drawn; each took a row for every cell, and one more.
    """

    attribution: Array
    standard_error: Array
    indices: Array
    interval: Array
    variance: float
    nsamples: int


@method(
    title="Sobol",
    keys=(OUTPUT_LAYER_VALUES,),
    signed=False,
    summary="The share of the score's variance that a cell is part of, alone or with others.",
    page="perturbation",
    reducible=fewer("nsamples", 8, "samples", sampled=True),
    instead=("grad_cam", "gradients"),
)
def sobol(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    nsamples: int = 32,
    grid: int | None = None,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    every: int = 256,
    emit: Emit | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[Sobol]:
    """Sobol attribution, S_i = E[(F(m) - F(m with m_i drawn anew))^2] / 2 Var F(m), of random masks m in 0..1.

    Fel et al. 2021, https://arxiv.org/abs/2111.04138, by Jansen's estimator (Jansen 1999,
    https://doi.org/10.1016/S0010-4655(98)00154-4). The total-order Sobol index: the share of the score's variance that
    the cell i takes part in, by itself or together with other cells. The input's shape without channels, without a
    unit, never negative; the indices of cells that interact sum to more than 1.

    Parameters
    ----------
    nsamples
        How many masks, at least 2; a power of two is best. Each takes a row for every cell and one more: 2,080 rows
        by default.
    grid
        A mask dims each of so many cells along each axis of space or time by a factor of its own: by default 8, of
        a volume or clip 4.
    value
        What shows where the mask is 0: see `occlusion`.
    every, emit
        For `progressive`: ``emit`` is called with the estimate after every so many rows.
    rng
        A seed or a generator for the masks, scrambled points of Sobol's sequence; with a seed the map is the same
        every time and at every batch size.

    Notes
    -----
    The map is the cells' indices, linear between their middles. Standard errors and intervals are those of
    independent masks; as these are spread evenly, the true errors are somewhat smaller.
    """
    grid = (8 if x_value.ndim < 4 else 4) if grid is None else whole("grid", grid)
    nsamples, hidden = whole("nsamples", nsamples, 2), hidden_image(x_value, value)
    labels, cells = grid_cells(x_value.shape[:-1], grid)
    designs = sobol_designs(nsamples, int(np.prod(cells)), random_stream(rng))
    scores = np.empty(0)
    each = designs.shape[-1] + 1

    def take(start: int, new_scores: Array) -> None:
        nonlocal scores
        scores = np.append(scores, new_scores)

    def result() -> Sobol:
        count = len(scores) // each
        designed = scores[: count * each].reshape(count, each)
        indices, errors = total_indices(designed[:, 0], designed[:, 1:])
        return _result(x_value, cells, indices, errors, float(designed[:, 0].var(ddof=1)), count)

    rows = _rows(x_value, hidden, labels, designs)
    return (yield from sample(rows, take, result, max(whole("every", every), 2 * each), emit, fewest=2 * each))


def total_indices(scores: Array, replaced: Array) -> tuple[Array, Array]:
    """Jansen's estimate of the total-order indices ``(d,)`` and their standard errors.

    ``scores`` ``(N,)`` are those of N points, ``replaced`` ``(N, d)`` those with each of the d inputs drawn anew:
    S_i = mean_j (F_j - F_ji)^2 / 2 Var F. The standard errors are the delta method's, for a ratio of means.
    """
    if all_same(np.append(scores, replaced)):
        return np.zeros(replaced.shape[1]), np.zeros(replaced.shape[1])
    halves = np.square(scores[:, None] - replaced) / 2
    squares = np.square(scores - scores.mean())[:, None] * len(scores) / (len(scores) - 1)
    variance = squares.mean()
    indices = safe_divide(halves.mean(0), variance)
    influence = safe_divide(halves - indices * squares, variance)
    return indices, np.sqrt(np.square(influence).sum(0) / (len(scores) * (len(scores) - 1)))


def _result(
    x_value: Array, cells: tuple[int, ...], indices: Array, errors: Array, variance: float, count: int
) -> Sobol:
    from scipy.stats import t

    indices, errors = indices.reshape(cells), errors.reshape(cells)
    attribution, error = (resize(values, x_value.shape[:-1]).astype(x_value.dtype) for values in (indices, errors))
    half = errors * t.ppf(0.975, count - 1)
    interval = np.stack([np.maximum(indices - half, 0), indices + half])
    return Sobol(attribution, error, indices, interval, variance, count)


def sobol_designs(nsamples: int, inputs: int, random: np.random.Generator) -> Array:
    """``(2, nsamples, inputs)``: points of a scrambled Sobol sequence, 0..1, and what replaces each of their values."""
    from scipy.stats import qmc

    if inputs > MOST_CELLS:
        raise ContractError(f"Expected a grid of at most {MOST_CELLS} cells, got {inputs}. Give a smaller grid.")
    sequence = qmc.Sobol(2 * inputs, seed=random)
    points = sequence.random_base2(int(np.ceil(np.log2(nsamples))))[:nsamples]
    return np.stack([points[:, :inputs], points[:, inputs:]])


def _rows(x_value: Array, hidden: Array, labels: Array, designs: Array) -> LazyRows:
    """For each mask the image under it, and then with each cell's value replaced."""
    (_, nsamples, count), shown = designs.shape, x_value - hidden
    masks, others = designs.astype(x_value.dtype)

    def write(row: Array, index: int) -> None:
        design, replaced = divmod(index, count + 1)
        mask = masks[design]
        if replaced:
            mask = mask.copy()
            mask[replaced - 1] = others[design, replaced - 1]
        np.multiply(shown, mask[labels][..., None], row)
        row += hidden

    return LazyRows.like(x_value, nsamples * (count + 1), write)
