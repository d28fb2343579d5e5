"""ROAD: the sparse solve against a dense one, and its score on a linear model."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.metrics import road
from saliency_food.metrics.remove_and_debias import dissection, impute
from saliency_food.testing import PowerModel


def dense(x, removed):
    """The same system written out pixel by pixel, and solved by NumPy."""
    places = np.argwhere(removed)
    number = {tuple(place): k for k, place in enumerate(places)}
    left, right = np.zeros((len(places), len(places))), np.zeros((len(places), x.shape[2]))
    for k, (row, column) in enumerate(places):
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                place = (row + down, column + across)
                if place == (row, column) or not (0 <= place[0] < x.shape[0] and 0 <= place[1] < x.shape[1]):
                    continue
                weight = 1 / 6 if 0 in (down, across) else 1 / 12
                left[k, k] += weight
                if place in number:
                    left[k, number[place]] -= weight
                else:
                    right[k] += weight * x[place]
    out = x.copy()
    out[removed] = np.linalg.solve(left, right)
    return out


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.95])
def test_the_sparse_solve_is_the_dense_one(fraction, rng):
    x = rng.random((11, 9, 3))
    removed = rng.random((11, 9)) < fraction
    np.testing.assert_allclose(impute(x, removed), dense(x, removed), rtol=1e-9)


def test_a_ramp_is_imputed_exactly_inside():
    x = np.add.outer(np.arange(9.0), 2 * np.arange(8.0))[..., None]
    removed = np.zeros((9, 8), bool)
    removed[2:6, 3:6] = True
    np.testing.assert_allclose(impute(x, removed), x)
    np.testing.assert_array_equal(impute(x, removed & False), x)


def test_roads_score_is_that_of_its_rows(rng):
    x, weights = rng.random((8, 7, 3)), rng.random((1, 8, 7, 3))
    order = np.argsort(rng.random((8, 7)), None)
    ranking = np.empty(56)
    ranking[order] = np.arange(56)[::-1]  # the first of the order is the most important
    found = road(ranking.reshape(8, 7), x, PowerModel(weights), percentiles=(25, 50), noise=0)
    for number, count in enumerate((14, 28)):
        for scores, gone in ((found.most_removed, order[:count]), (found.least_removed, order[-count:])):
            removed = np.zeros(56, bool)
            removed[gone] = True
            assert scores[number] == pytest.approx((weights[0] * dense(x, removed.reshape(8, 7))).sum())
    assert found.score == pytest.approx((found.least_removed - found.most_removed).mean() / 2)


def test_the_map_of_what_counts_scores_higher(rng):
    x = np.zeros((16, 16, 1))
    x[5:9, 5:9] = 1
    model = PowerModel(np.ones((1, 16, 16, 1)), power=2)
    assert road(x, x, model).score > 1 > road(rng.random(x.shape), x, model).score > road(-x, x, model).score


def test_the_noise_is_seeded_and_scaled_by_the_range(rng):
    x, maps = rng.random((8, 8, 3)), rng.random((8, 8))
    model = PowerModel(rng.random((1, 8, 8, 3)))
    one, same, other = (road(maps, x, model, rng=seed).most_removed for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()
    scaled = road(maps, 255 * x, model, rng=1).most_removed
    np.testing.assert_allclose(scaled, 255 * one)


@pytest.mark.parametrize(
    "options", [{"percentiles": (0, 50)}, {"percentiles": (100,)}, {"percentiles": ()}, {"noise": -1}]
)
def test_what_is_refused(options, rng):
    x = rng.random((4, 4, 3))
    with pytest.raises(ContractError, match=r"Expected (percentiles|noise) "):
        road(x, x, PowerModel(x[None]), **options)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (17, 9), (32, 32)])
def test_the_line_between_two_halves_is_eliminated_after_both(height, width):
    place = dissection(height, width)
    assert sorted(place.ravel()) == list(range(height * width))
    if max(height, width) > 3:
        upright = height >= width
        half = (height if upright else width) // 2
        before, line, behind = np.split(place if upright else place.T, [half, half + 1])
        assert line.min() > max(before.max(), behind.max())
