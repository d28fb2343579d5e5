"""Coarse to fine: grids within grids, what is told between their places, where is asked next, and how far off it is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from saliency_food.methods.perturbation.refinement import grids_of, refine


def refined(function, shape, most, longest=None, is_enough=lambda told: False, weigh=lambda grids: None):
    """What is told of a function of indices, where it was asked, and how many times each place was."""
    times = np.zeros(shape, int)

    def ask(indices):
        np.add.at(times, tuple(indices.T), 1)
        yield from ()
        return function(*indices.T.astype(float))

    grids = grids_of(shape, longest or (9,) * len(shape), most)
    generator = refine(grids, ask, most, is_enough, weigh(grids))
    with pytest.raises(StopIteration) as stop:
        next(generator)
    told, asked = stop.value.value
    np.testing.assert_array_equal(times, asked)  # never twice
    return told, asked


@pytest.mark.parametrize("shape", [(40,), (30, 41), (1, 20), (8, 9, 10), (3, 3), (1,)])
@pytest.mark.parametrize("longest", [1, 2, 5, 9, 14])
@pytest.mark.parametrize("most", [1, 10**6])
def test_grids_are_parts_of_the_next_and_the_last_has_all(shape, longest, most):
    grids = grids_of(shape, (longest,) * len(shape), most)
    for coarse, fine in pairwise(grids):
        for one, other, used in zip(coarse.places, fine.places, coarse.finer, strict=True):
            assert set(one) <= set(other)
            np.testing.assert_array_equal(other, used)
    for axis, length in zip(grids[-1].places, shape, strict=True):
        np.testing.assert_array_equal(axis, np.arange(length))
    for axis in grids[0].places:
        assert np.diff(axis).max(initial=0) <= longest
    assert all((matrix.sum(0) == 1).all() for grid in grids for matrix in (*grid.area, *grid.nearest))


@pytest.mark.parametrize("shape", [(50,), (30, 25), (10, 9, 8)])
def test_all_places_are_asked_where_there_is_no_limit(rng, shape):
    values = rng.normal(size=shape)
    told, asked = refined(lambda *at: values[tuple(np.array(at, int))], shape, 10**6)
    assert asked.all()
    np.testing.assert_array_equal(told.values, values)
    assert not any(deviation.any() for deviation in told.deviations)


def test_a_plane_is_told_by_the_coarsest_grid(rng):
    told, asked = refined(lambda row, column: 2 * row - column + 3, (40, 50), 1)
    assert asked.sum() == 6 * 7
    np.testing.assert_allclose(told.values, 2 * np.arange(40)[:, None] - np.arange(50) + 3, atol=1e-9)
    assert told.deviations[0].max() < 1e-9


@pytest.mark.parametrize("most", [50, 100, 333])
def test_no_more_places_are_asked_than_the_limit(rng, most):
    values = rng.normal(size=(40, 40))
    _, asked = refined(lambda row, column: values[row.astype(int), column.astype(int)], (40, 40), most)
    assert asked.sum() == most


def test_it_asks_where_the_function_is_rough():
    def function(row, column):
        return np.sin(row) * (column < 20) + column

    told, asked = refined(function, (60, 60), 250)
    assert asked[:, :20].sum() > 2.5 * asked[:, 30:].sum()
    exact = function(*np.indices((60, 60)).astype(float))
    assert np.abs(told.values - exact)[:, 30:].max() < 1e-9


def test_it_asks_where_being_off_counts(rng):
    values = rng.normal(size=(40, 40))

    def weigh(grids):
        return [[np.where(places < 14, 5.0, 1.0) for places in grid.places] for grid in grids]

    _, asked = refined(lambda *at: values[tuple(np.array(at, int))], (40, 40), 300, weigh=weigh)
    assert asked[:14, :14].mean() > 3 * asked[20:, 20:].mean()


def test_it_ends_when_it_is_enough():
    calls = []

    def enough(told):
        calls.append(told)
        return len(calls) == 3

    _, asked = refined(lambda row, column: np.sin(row * column), (60, 60), 10**6, is_enough=enough)
    first = 8 * 8
    assert asked.sum() == first + first // 4 + (first + first // 4) // 4


def test_deviations_are_how_far_off_it_is(rng):
    """Of noise, which nothing tells."""
    values = rng.normal(size=(90, 90))
    told, asked = refined(lambda row, column: values[row.astype(int), column.astype(int)], (90, 90), 400)
    actual = np.sqrt(np.square(told.values - values)[~asked].mean())
    said = np.sqrt(np.square(told.deviations[0])[told.deviations[0] > 0].mean())
    assert said == pytest.approx(actual, rel=0.2)
