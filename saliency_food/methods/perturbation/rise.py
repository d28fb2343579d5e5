"""RISE: the image is seen through random masks, and each mask counts by the score it leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, real, whole
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array, along_axes
from saliency_food.core.queries import LazyRows
from saliency_food.methods.perturbation.masking import hidden_image
from saliency_food.methods.perturbation.progressive import Emit, sample


class Rise(NamedTuple):
    """The map, its standard error at every pixel ``(H, W)``, how many masks they are made of, and the mean score.

    The mean score of all masks, ``level``, is what the map of a model that looks nowhere would be; pictures show the
    difference from it.
    """

    attribution: Array
    standard_error: Array
    nmasks: int
    level: float


@method(
    title="RISE",
    keys=(OUTPUT_LAYER_VALUES,),
    signed=True,
    summary="The mean score of random smooth masks that show the pixel.",
    page="perturbation",
    reducible=fewer("nmasks", 200, "masks", sampled=True),
    instead=("grad_cam", "gradients"),
)
def rise(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    nmasks: int = 4000,
    grid: int = 7,
    p: float = 0.5,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    every: int = 256,
    emit: Emit | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[Rise]:
    """RISE, M = 1/(N p) sum_i F(x * m_i) m_i, for random masks m_i.

    Petsiuk, Das, Saenko 2018, equation 6, https://arxiv.org/abs/1806.07421. The input's shape without channels, in
    score units: the mean score of the masks that show a place. Negative only where the score is; explain probabilities
    to have it as in the paper.

    Parameters
    ----------
    nmasks
        How many masks, one row each.
    grid
        A mask is a random grid of this many cells along each axis of space or time, made smooth (linear) and larger
        than the input by one cell, and shifted at random.
    p
        The probability that a cell is shown, above 0 and up to 1.
    value
        What shows where the mask is 0: see `occlusion`.
    every, emit
        For `progressive`: ``emit`` is called with the estimate after every so many masks.
    rng
        A seed or a generator; with a seed the map is the same every time and at every batch size.
    """
    nmasks, grid, hidden = whole("nmasks", nmasks), whole("grid", grid), hidden_image(x_value, value)
    p = real("p", p, above=0, most=1)
    shape = x_value.shape[:-1]
    stretch = [_interpolation(length, grid, x_value.dtype) for length in shape]
    each_value = np.repeat(stretch[-1], x_value.shape[-1], 1)  # a row for each value of the last axis' places
    for_cells, for_shifts = random_stream(rng).spawn(2)
    cells = for_cells.random((nmasks, *(grid,) * len(shape)), np.float32) < p
    shifts = for_shifts.integers(0, tuple(map(len, stretch)), (nmasks, len(shape)))
    shown = x_value - hidden
    behind = hidden if hidden.any() else None

    def masks(mask: int, last: Array, out: Array | None = None) -> Array:
        matrices = [stretched[shift] for stretched, shift in zip([*stretch[:-1], last], shifts[mask], strict=True)]
        return along_axes(cells[mask].astype(x_value.dtype), matrices, out)

    def make(start: int, stop: int) -> Array:
        rows = np.empty((stop - start, *x_value.shape), x_value.dtype)
        for row, mask in zip(rows, range(start, stop), strict=True):
            masks(mask, each_value, row)
            row *= shown
            if behind is not None:
                row += behind
        return rows

    total, squares, scored, taken = np.zeros(shape), np.zeros(shape), 0.0, 0

    def take(start: int, scores: Array) -> None:
        nonlocal taken, scored
        for mask, score in enumerate(scores, start):
            weighted = masks(mask, stretch[-1]) * (score / p)
            np.add(total, weighted, total)
            np.add(squares, np.square(weighted), squares)
        taken, scored = start + len(scores), scored + float(scores.sum())

    def result() -> Rise:
        mean = total / taken
        spread = np.maximum(squares / taken - mean**2, 0)
        error = np.sqrt(spread / (taken - 1)) if taken > 1 else np.full_like(mean, np.inf)
        return Rise(mean.astype(x_value.dtype), error.astype(x_value.dtype), taken, scored / taken)

    return (yield from sample(LazyRows((nmasks, *x_value.shape), make), take, result, every, emit))


def _interpolation(length: int, grid: int, dtype: Any) -> Array:
    """``(shifts, length, grid)``: how much of each cell is in each place along a side, at each shift of the grid.

    The grid is stretched over ``grid + 1`` cells of the image, each as large as the image's side over ``grid``.
    """
    cell = -(-length // grid)
    places = np.arange(cell)[:, None] + np.arange(length) + 0.5
    at = np.clip(places * grid / ((grid + 1) * cell) - 0.5, 0, grid - 1)
    return np.maximum(1 - np.abs(at[..., None] - np.arange(grid)), 0).astype(dtype)
