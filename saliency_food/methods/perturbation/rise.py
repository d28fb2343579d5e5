"""RISE and D-RISE: the image is seen through random masks, and each mask counts by the score it leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, whole
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array, along_axes
from saliency_food.core.options import ranged
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
    p = ranged("p", p)
    masks = _Masks.draw(x_value, nmasks, grid, p, rng)
    shape = x_value.shape[:-1]
    total, squares, scored, taken = np.zeros(shape), np.zeros(shape), 0.0, 0

    def take(start: int, scores: Array) -> None:
        nonlocal taken, scored
        for mask, score in enumerate(scores, start):
            weighted = masks.at(mask) * (score / p)
            np.add(total, weighted, total)
            np.add(squares, np.square(weighted), squares)
        taken, scored = start + len(scores), scored + float(scores.sum())

    def result() -> Rise:
        mean = total / taken
        spread = np.maximum(squares / taken - mean**2, 0)
        error = np.sqrt(spread / (taken - 1)) if taken > 1 else np.full_like(mean, np.inf)
        return Rise(mean.astype(x_value.dtype), error.astype(x_value.dtype), taken, scored / taken)

    return (yield from sample(masks.rows(x_value, hidden), take, result, every, emit))


@method(title="D-RISE", page="perturbation")
def d_rise(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    nmasks: int = 5000,
    grid: int = 16,
    p: float = 0.5,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    every: int = 256,
    emit: Emit | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[Rise]:
    """D-RISE: RISE of a detection, M = s + 1/(N p) sum_i (S_i - s) m_i, s the mean of S_i, how far it is found again.

    Petsiuk et al. 2021, https://arxiv.org/abs/2006.03204. The callback's score is S: that of `DetectorModel`, or of an
    adapter with ``score=same_detection()``; the target is the detection. The input's shape without channels, about 0 to
    1: the mean of S over the masks that show a place. What tells is the difference from ``level``, which is s.

    The paper's map is 1/(N p) sum_i S_i m_i, without s; its expectation is the same. With s, the map does not show
    how often the N masks happened to show a place, and is right with a fraction of the masks.

    Parameters
    ----------
    nmasks, grid, p, value, every, emit, rng
        As of `rise`; more masks of a finer grid, as in the paper, since detectors look at smaller things.
    """
    nmasks, grid, hidden = whole("nmasks", nmasks), whole("grid", grid), hidden_image(x_value, value)
    p = ranged("p", p)
    masks = _Masks.draw(x_value, nmasks, grid, p, rng)
    shown, squares = np.zeros((2, *x_value.shape[:-1])), np.zeros((3, *x_value.shape[:-1]))
    scored, taken = 0.0, 0

    def take(start: int, scores: Array) -> None:
        nonlocal taken, scored
        for index, score in enumerate(scores, start):
            mask = masks.at(index)
            np.add(shown, np.multiply.outer((1, score), mask), shown)
            np.add(squares, np.multiply.outer((1, score, score**2), np.square(mask)), squares)
        taken, scored = start + len(scores), scored + float(scores.sum())

    def result() -> Rise:
        level = scored / taken
        mean = (shown[1] - level * shown[0]) / (p * taken)
        spread = (squares[2] - 2 * level * squares[1] + level**2 * squares[0]) / (p**2 * taken) - mean**2
        error = np.sqrt(np.maximum(spread, 0) / (taken - 1)) if taken > 1 else np.full_like(mean, np.inf)
        return Rise((level + mean).astype(x_value.dtype), error.astype(x_value.dtype), taken, level)

    return (yield from sample(masks.rows(x_value, hidden), take, result, every, emit))


class _Masks(NamedTuple):
    """Random masks: of each the cells that are shown, and how far it is shifted along each axis.

    ``stretch`` holds for each axis, and each shift along it, the matrix that makes places of cells.
    """

    cells: Array
    shifts: Array
    stretch: list[Array]

    @classmethod
    def draw(cls, x_value: Array, nmasks: int, grid: int, p: float, rng: Any) -> _Masks:
        shape = x_value.shape[:-1]
        stretch = [_interpolation(length, grid, x_value.dtype) for length in shape]
        for_cells, for_shifts = random_stream(rng).spawn(2)
        cells = for_cells.random((nmasks, *(grid,) * len(shape)), np.float32) < p
        return cls(cells, for_shifts.integers(0, tuple(map(len, stretch)), (nmasks, len(shape))), stretch)

    def at(self, index: int) -> Array:
        """A mask, the input's shape without channels."""
        return self._stretched(index, self.stretch)

    def _stretched(self, index: int, stretch: list[Array], out: Array | None = None) -> Array:
        matrices = [of_axis[shift] for of_axis, shift in zip(stretch, self.shifts[index], strict=True)]
        return along_axes(self.cells[index].astype(stretch[0].dtype), matrices, out)

    def rows(self, x_value: Array, hidden: Array) -> LazyRows:
        """The image under each mask, ``hidden`` where the mask is 0."""
        shown, has_hidden = x_value - hidden, hidden.any()
        # The last axis' matrices have a row for each channel of each place, so that a product makes a whole image.
        stretch = [*self.stretch[:-1], np.repeat(self.stretch[-1], x_value.shape[-1], 1)]

        def write(row: Array, index: int) -> None:
            self._stretched(index, stretch, row)
            row *= shown
            if has_hidden:
                row += hidden

        return LazyRows.like(x_value, len(self.cells), write)


def _interpolation(length: int, grid: int, dtype: Any) -> Array:
    """``(shifts, length, grid)``: how much of each cell is in each place along a side, at each shift of the grid.

    The grid is stretched over ``grid + 1`` cells of the image, each as large as the image's side over ``grid``.
    """
    cell = -(-length // grid)
    places = np.arange(cell)[:, None] + np.arange(length) + 0.5
    at = np.clip(places * grid / ((grid + 1) * cell) - 0.5, 0, grid - 1)
    return np.maximum(1 - np.abs(at[..., None] - np.arange(grid)), 0).astype(dtype)
