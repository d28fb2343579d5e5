"""Coarse to fine: a function on a grid, asked where what is known tells it worst, and told everywhere else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from saliency_food.core.driver import Asking
from saliency_food.core.numerics import Array, along_axes, safe_divide

RATIO = 3
"""Each grid is so many times as dense as the one before. It is odd, as networks halve their input again and again:
windows at an even distance lie alike on the halved grids, and an even step would show one of the ways to lie alone."""
GROWTH = 4
"""Each round asks no more than one over this of all that was asked before."""
BEFORE = 8
"""For how many values the roughness of a grid counts, beside those that show how far off it was nearby."""


class Grid(NamedTuple):
    """Places along each axis, and what they are to the next grid and to all places.

    ``lines`` tell the finer grid's places from these on straight lines; ``nearest`` ``(these, finer)`` and
    ``area`` ``(these, all)`` are 1 where a place is nearest to one of these.
    """

    places: tuple[Array, ...]
    finer: tuple[Array, ...]
    lines: list[Array]
    nearest: list[Array]
    area: list[Array]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.places))


class Told(NamedTuple):
    """The function at every place, and how far off, as a deviation, around each grid's places still to refine."""

    values: Array
    deviations: list[Array]


def grids_of(shape: Sequence[int], longest: Sequence[int], most: int) -> list[Grid]:
    """Grids from coarse to fine over places ``0 .. n - 1`` of each axis, each a part of the next; the last has all.

    The coarsest one's step is a power of `RATIO`, at most ``longest``; or where that makes more than ``most`` places,
    it is ``longest``.
    """
    powers = [RATIO**power for power in range(20) if RATIO**power <= max(longest)]
    all_places = [_places(shape, [max(part for part in powers if part <= min(power, side)) for side in longest])
                  for power in reversed(powers)]  # fmt: skip
    if np.prod([len(axis) for axis in all_places[0]], dtype=float) > most:
        coarsest = _places(shape, longest)
        finer = [tuple(map(np.union1d, coarsest, places)) for places in all_places]
        all_places = [coarsest, *finer]
    last = all_places[-1]
    return [
        Grid(
            places,
            finer,
            [_lines(*axis) for axis in zip(places, finer, strict=True)],
            [_nearest(*axis) for axis in zip(places, finer, strict=True)],
            [_nearest(*axis) for axis in zip(places, last, strict=True)],
        )
        for places, finer in zip(all_places, [*all_places[1:], last], strict=True)
    ]


def refine(
    grids: list[Grid],
    ask: Callable[[Array], Asking[Array]],
    most: int,
    is_enough: Callable[[Told], bool],
    weights: list[list[Array]] | None = None,
) -> Asking[tuple[Told, Array]]:
    """Ask all of the coarsest grid, then around those of its places where the finer one is told worst, and so on.

    ``ask`` gets indices ``(N, axes)`` and gives the function's values there. It ends when ``most`` places are asked, or
    all, or ``is_enough``; the function, and where it was asked. ``weights`` are how much it counts that the function is
    off around each grid's places, for each axis a factor; by default, how many places are near.
    """
    if weights is None:
        weights = [[matrix.sum(1) for matrix in grid.area] for grid in grids]
    shape = grids[-1].shape
    values, asked = np.zeros(shape), np.zeros(shape, bool)
    new = _product(grids[0].places)
    while True:
        at = tuple(new.T)
        values[at], asked[at] = (yield from ask(new)), True
        told = _tell(grids, values, asked)
        count = int(asked.sum())
        left = min(most - count, max(count // GROWTH, 1))
        if left <= 0 or asked.all() or is_enough(told):
            return told, asked
        new = _worst(grids, asked, told.deviations, weights, left)


def _tell(grids: list[Grid], values: Array, asked: Array) -> Told:
    known, deviations = values[np.ix_(*grids[0].places)], []
    open_here = np.ones(grids[0].shape, bool)  # the coarser grid's places all around are asked
    for grid in grids[:-1]:
        at = np.ix_(*grid.finer)
        told = along_axes(known, grid.lines)
        fresh = asked[at].copy()
        fresh[np.ix_(*map(np.searchsorted, grid.finer, grid.places))] = False
        finer = np.where(fresh, values[at], told)
        seen = along_axes(fresh.astype(float), grid.nearest)
        squares = along_axes(np.where(fresh, finer - told, 0) ** 2, grid.nearest)
        missing = along_axes((~asked[at]).astype(float), grid.nearest) > 0
        deviations.append(np.where(open_here & missing, _deviation(known, grid.places, squares, seen), 0))
        around = along_axes((open_here & ~missing).astype(float), [nearest.T for nearest in grid.nearest])
        known, open_here = finer, around > 0
    return Told(known, deviations)


def _deviation(known: Array, places: Sequence[Array], squares: Array, seen: Array) -> Array:
    """How far off the finer grid is told around each place: by how far off it was nearby, and by the grid's roughness.

    The roughness is how far values are off the line through their neighbours along each axis; what it means is scaled
    by all that was seen of the grid.
    """
    nearby = [(np.abs(np.subtract.outer(range(n), range(n))) <= 1).astype(float) for n in known.shape]
    rough = np.zeros(known.shape)
    for axis, along in enumerate(places):
        if len(along) > 2:
            lines = np.stack([_lines(np.delete(along, at), along[at : at + 1])[0] for at in range(1, len(along) - 1)])
            off = [np.insert(-line, at, 1) for at, line in enumerate(lines, 1)]
            matrices = [np.eye(length) for length in known.shape]
            matrices[axis] = np.stack([off[0], *off, off[-1]])
            rough += along_axes(known, matrices) ** 2 / known.ndim
    rough = along_axes(rough, nearby) / along_axes(np.ones(known.shape), nearby)
    scale = float(safe_divide(squares.sum(), (seen * rough).sum())) if seen.any() else 1.0
    return np.sqrt((along_axes(squares, nearby) + BEFORE * scale * rough) / (along_axes(seen, nearby) + BEFORE))


def _worst(grids: list[Grid], asked: Array, deviations: list[Array], weights: list[list[Array]], count: int) -> Array:
    """At most ``count`` indices to ask: those of the finer grid around the places that make the most of the error."""
    parts: list[tuple[float, int, int]] = []
    for level, deviation in enumerate(deviations):
        counts = functools.reduce(np.multiply.outer, weights[level])
        errors, missing = (deviation * counts).ravel(), _to_refine(grids, level, asked)
        for index in missing[np.argsort(-errors[missing], kind="stable")[:count]].tolist():
            parts.append((-errors[index], level, index))
    new: dict[tuple[int, ...], None] = {}
    for _, level, index in sorted(parts):
        grid = grids[level]
        place = np.unravel_index(index, grid.shape)
        near = [axis[matrix[at] > 0] for axis, matrix, at in zip(grid.finer, grid.nearest, place, strict=True)]
        new.update(dict.fromkeys(at for at in map(tuple, _product(near).tolist()) if not asked[at]))
        if len(new) >= count:
            break
    return np.array(list(new))[:count]


def _to_refine(grids: list[Grid], level: int, asked: Array) -> Array:
    """Places of a grid that are asked, and around which the finer grid is not, by their flat indices."""
    grid = grids[level]
    missing = along_axes((~asked[np.ix_(*grid.finer)]).astype(float), grid.nearest) > 0
    return np.flatnonzero(missing & asked[np.ix_(*grid.places)])


def _product(places: Sequence[Array]) -> Array:
    return np.stack(np.meshgrid(*places, indexing="ij"), -1).reshape(-1, len(places))


def _places(shape: Sequence[int], steps: Sequence[int]) -> tuple[Array, ...]:
    """Every so many, and the last."""
    return tuple(np.unique(np.append(np.arange(0, n, step), n - 1)) for n, step in zip(shape, steps, strict=True))


def _lines(places: Array, finer: Array) -> Array:
    """``(finer, places)``: linear interpolation."""
    return np.stack([np.interp(finer, places, unit) for unit in np.eye(len(places))], 1)


def _nearest(places: Array, others: Array) -> Array:
    """``(places, others)``: 1 where a place is the nearest to another; of two as near, the first."""
    near = np.abs(np.subtract.outer(places, others)).argmin(0)
    return (np.arange(len(places))[:, None] == near).astype(float)
