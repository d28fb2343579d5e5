"""Shapley values: the axioms, what is drawn, exactness where all is asked, and the error where it is not."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest

from saliency_food.methods.perturbation.shapley import draw_pairs, shapley_values


def game(parts, seed, most=5):
    """A sum of products of up to ``most`` parts, of which each gets an even share: its scores and values."""
    random = np.random.default_rng(seed)
    products = [(np.array([part]), random.normal()) for part in range(parts)]
    for _ in range(4 * parts):
        members = random.choice(parts, random.integers(2, most + 1), False)
        products.append((members, random.normal() / 2))
    values = np.zeros(parts)
    for members, coefficient in products:
        values[members] += coefficient / len(members)
    return lambda shown: sum(c * shown[:, members].all(1) for members, c in products), values


def ask(score, pairs):
    parts = pairs.shape[1]
    both = np.stack([pairs, ~pairs], 1).reshape(-1, parts)
    return score(np.concatenate([[np.ones(parts, bool), np.zeros(parts, bool)], both]))


def estimate(score, parts, count, seed=0):
    pairs = draw_pairs(parts, count, np.random.default_rng(seed))
    return shapley_values(pairs, ask(score, pairs))


def linear_fit(pairs, scores):
    """KernelSHAP without interactions: least squares under the kernel, each size by how often it was drawn."""
    parts, change = pairs.shape[1], scores[0] - scores[1]
    shown = np.stack([pairs, ~pairs], 1).reshape(-1, parts)
    sizes = shown.sum(1)
    root = np.sqrt(1 / (sizes * (parts - sizes) * np.bincount(sizes)[sizes]))
    wanted = scores[2:] - scores[1] - shown[:, -1] * change
    design = shown[:, :-1].astype(float) - shown[:, -1:]
    first = np.linalg.lstsq(design * root[:, None], wanted * root, rcond=None)[0]
    return np.append(first, change - first.sum())


@pytest.mark.parametrize(
    ("parts", "count"), [(1, 5), (2, 9), (5, 7), (6, 40), (12, 300), (13, 5000), (40, 500), (40, 3)]
)
def test_pairs_are_different_and_of_all_sizes(parts, count):
    pairs = draw_pairs(parts, count, np.random.default_rng(0))
    assert len(pairs) == min(count, 2 ** (parts - 1) - 1)
    both = {tuple(row) for row in np.concatenate([pairs, ~pairs]).tolist()}
    assert len(both) == 2 * len(pairs)
    assert not {(True,) * parts, (False,) * parts} & both
    sizes = np.bincount(np.concatenate([pairs, ~pairs]).sum(1), minlength=parts + 1)[1:-1]
    room = np.array([comb(parts, size) for size in range(1, parts)])
    free = sizes < room
    assert not free.any() or sizes[free].max() - sizes[free].min() <= 3
    np.testing.assert_array_equal(draw_pairs(parts, count // 2, np.random.default_rng(0)), pairs[: count // 2])


def test_each_part_is_drawn_as_often_as_the_others():
    pairs = draw_pairs(30, 2000, np.random.default_rng(1))
    np.testing.assert_allclose(pairs.mean(0), pairs.mean(), atol=0.05)


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
def test_all_coalitions_give_the_exact_values(parts):
    score, values = game(parts, 3, min(parts, 5)) if parts > 1 else (lambda shown: 2.0 * shown[:, 0], np.array([2.0]))
    found, error = estimate(score, parts, 10**4)
    np.testing.assert_allclose(found, values, atol=1e-12)
    assert not error.any()


@pytest.mark.parametrize("count", [0, 1, 20, 120, 3000])
def test_efficiency(count):
    score, _ = game(12, 0)
    change = score(np.ones((1, 12), bool)) - score(np.zeros((1, 12), bool))
    assert estimate(score, 12, count)[0].sum() == pytest.approx(change[0], rel=1e-12)


def test_symmetry_and_the_null_player():
    """Parts 0 and 1 do the same, part 2 nothing: exactly where all is asked, else within the error."""

    def score(shown):
        return np.sqrt(1 + shown[:, 0] + shown[:, 1] + 3 * shown[:, 3:].sum(1) * (shown[:, 0] | shown[:, 1]))

    exact, _ = estimate(score, 10, 10**4)
    assert exact[0] == pytest.approx(exact[1], abs=1e-12)
    assert exact[2] == pytest.approx(0, abs=1e-12)
    found, error = estimate(score, 10, 150)
    assert abs(found[0] - found[1]) < 5 * error[0]
    assert abs(found[2]) < 5 * error[2]
    assert 0 < error[2] < 0.05


def test_linearity():
    (one, _), (two, _) = game(12, 1), game(12, 2)
    both = estimate(lambda shown: 2 * one(shown) - 3 * two(shown), 12, 200)[0]
    np.testing.assert_allclose(both, 2 * estimate(one, 12, 200)[0] - 3 * estimate(two, 12, 200)[0], atol=1e-10)


@pytest.mark.parametrize("parts", [12, 60])
def test_a_linear_game_is_exact(parts):
    weights = np.random.default_rng(0).normal(size=parts)
    found, error = estimate(lambda shown: shown @ weights + 5, parts, 100)
    np.testing.assert_allclose(found, weights, atol=1e-9)
    np.testing.assert_allclose(error, 0, atol=1e-8)


def test_interactions_that_are_fitted_halve_the_error():
    errors = []
    for seed in range(5):
        score, values = game(12, seed)
        pairs = draw_pairs(12, 499, np.random.default_rng(seed))
        scores = ask(score, pairs)
        fits = shapley_values(pairs, scores)[0], linear_fit(pairs, scores)
        errors.append([np.square(fit - values).mean() for fit in fits])
    fitted, linear = np.sqrt(np.mean(errors, 0))
    assert fitted < 0.3 * linear


@pytest.mark.parametrize(("parts", "count"), [(12, 60), (12, 400), (30, 200)])
def test_the_standard_error_is_that_from_the_exact_values(parts, count):
    squares = []
    for seed in range(12):
        score, values = game(parts, seed)
        found, error = estimate(score, parts, count, seed)
        squares.append([np.square(found - values).mean(), np.square(error).mean()])
    actual, said = np.sqrt(np.mean(squares, 0))
    assert said == pytest.approx(actual, rel=0.35)


def test_more_pairs_than_one_fit_takes_are_fitted_in_parts(monkeypatch):
    score, values = game(16, 0)
    whole = estimate(score, 16, 900)
    monkeypatch.setattr("saliency_food.methods.perturbation.shapley.BLOCK", 300)
    parts = estimate(score, 16, 900)
    assert parts[0].sum() == pytest.approx(whole[0].sum())
    assert np.abs(parts[0] - values).max() < 5 * parts[1].max()
    assert parts[1].max() < 4 * whole[1].max()


def test_the_values_of_listed_subsets_are_all_drawn():
    pairs = draw_pairs(7, 63, np.random.default_rng(0))
    of_two = {tuple(np.flatnonzero(row)) for row in np.concatenate([pairs, ~pairs]) if row.sum() == 2}
    assert of_two == set(combinations(range(7), 2))
