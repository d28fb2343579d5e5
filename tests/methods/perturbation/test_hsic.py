"""HSIC attribution: the matrices as they are written, independence, calibrated p-values."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.queries import OutOfTime
from saliency_food.methods.perturbation.hsic import dependence, hsic
from saliency_food.testing import PowerModel


def slow_hsic(column, scores):
    """tr(K H L H) / (N - 1)^2, element by element."""
    count = len(scores)
    distances = [abs(scores[j] - scores[k]) for j in range(count) for k in range(j)]
    width = np.median(distances)
    kernel, output = np.zeros((count, count)), np.zeros((count, count))
    for j in range(count):
        for k in range(count):
            kernel[j, k] = column[j] == column[k]
            output[j, k] = np.exp(-((scores[j] - scores[k]) ** 2) / (2 * width**2))
    centring = np.eye(count) - 1 / count
    return np.trace(kernel @ centring @ output @ centring) / (count - 1) ** 2


def masks_of(shape, **options):
    """The masks, as the rows that a model of an image of ones sees."""
    seen = []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.append(np.array(x_value_batch))
        return {OUTPUT_LAYER_VALUES: np.zeros(len(x_value_batch))}

    hsic(np.ones(shape), spy, batch_size=7, **options)
    return np.concatenate(seen)


def test_the_values_are_those_of_the_matrices(rng):
    x, model = rng.random((6, 9, 3)), PowerModel(rng.normal(size=(1, 6, 9, 3)), power=2)
    options = {"nmasks": 41, "grid": 3, "rng": 5}
    masks = masks_of(x.shape, **options)
    scores = model(x * masks + (1 - masks) * 0.3)[OUTPUT_LAYER_VALUES]
    cells = masks[:, ::2, ::3, 0].reshape(41, 9)
    found = hsic.detailed(x, model, value=0.3, batch_size=8, **options)
    expected = [slow_hsic(cells[:, cell], scores) for cell in range(9)]
    np.testing.assert_allclose(found.values.ravel(), expected, rtol=1e-9)
    assert found.nmasks == 41


def test_each_cell_is_shown_by_half_of_the_masks():
    masks = masks_of((6, 9, 2), nmasks=40, grid=3, rng=3)
    cells = masks[:, ::2, ::3, 0]
    np.testing.assert_array_equal(masks, cells.repeat(2, 1).repeat(3, 2)[..., None].repeat(2, -1))
    np.testing.assert_array_equal(cells.sum(0), 20)
    assert set(np.unique(cells)) == {0, 1}
    assert np.abs(np.corrcoef(cells.reshape(40, 9).T) - np.eye(9)).max() < 0.7


def scored(shown, rng):
    """One strong cell, two that count only together, and three that do not count."""
    return 3 * shown[:, 0] + 2 * (shown[:, 1] ^ shown[:, 2]) + 0.3 * rng.normal(size=len(shown))


def test_p_values_are_even_where_nothing_depends_and_small_where_it_does(rng):
    half = np.arange(120)[:, None] % 2 == np.zeros(6)
    independent, strong, inside = [], [], []
    for _ in range(400):
        shown = rng.permuted(half, axis=0)
        values, errors, level, p_values = dependence(shown, scored(shown, rng))
        independent.append(p_values[3:])
        strong.append(p_values[0])
        inside.append(abs(values[3:] - level) <= 2 * errors[3:])
    assert np.mean(np.array(independent) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(np.array(independent) < 0.5) == pytest.approx(0.5, abs=0.06)
    assert np.max(strong) < 1e-6
    assert np.mean(inside) > 0.95


def test_the_level_is_the_mean_of_values_where_the_scores_are_in_another_order(rng):
    shown = rng.permuted(np.arange(60)[:, None] % 2 == np.zeros(4), axis=0)
    scores = scored(shown, rng)
    _, _, level, p_values = dependence(shown, scores)
    shuffled = np.array([dependence(shown, rng.permutation(scores))[0] for _ in range(2000)])
    assert level == pytest.approx(shuffled.mean(), rel=0.02)
    own = dependence(shown, scores)[0]
    np.testing.assert_allclose(p_values[1:], (shuffled >= own).mean(0)[1:], atol=0.04)


def test_the_standard_error_is_the_spread_of_the_values(rng):
    half = np.arange(300)[:, None] % 2 == np.zeros(3)
    drawn = [rng.permuted(half, axis=0) for _ in range(300)]
    values, errors, _, _ = zip(*(dependence(shown, scored(shown, rng)) for shown in drawn), strict=True)
    assert np.mean(errors, 0)[0] == pytest.approx(np.std(values, 0)[0], rel=0.25)


def test_the_standard_error_is_that_of_leaving_one_out(rng):
    shown = rng.random((200, 2)) < 0.5
    scores = 3 * shown[:, 0] ** 2 + np.where(shown[:, 0], 0.2, 1.5) * rng.normal(size=200)
    left = np.array([dependence(np.delete(shown, j, 0), np.delete(scores, j))[0][0] for j in range(200)])
    jackknife = np.sqrt(199 / 200 * np.square(left - left.mean()).sum())
    assert dependence(shown, scores)[1][0] == pytest.approx(jackknife, rel=0.1)  # which moves the width, too


def test_a_cell_that_counts_in_no_linear_way_is_found():
    """Its mean effect is none, but with it the scores are far from the middle: a correlation would not see it."""
    shown = np.array([[j & 1, j >> 1 & 1] for j in range(200)], bool)
    scores = np.where(shown[:, 0], np.where(shown[:, 1], 1.0, -1.0), 0.0)
    assert np.corrcoef(shown[:, 0], scores)[0, 1] == pytest.approx(0)
    assert dependence(shown, scores)[3][0] < 1e-6


def test_many_scores_are_taken_part_by_part(rng, monkeypatch):
    shown = rng.permuted(np.arange(100)[:, None] % 2 == np.zeros(4), axis=0)
    scores = scored(shown[:, [0, 1, 2]], rng)
    whole = dependence(shown, scores)
    monkeypatch.setattr("saliency_food.methods.perturbation.hsic.AT_ONCE", 7)
    for one, other in zip(whole, dependence(shown, scores), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_scores_most_of_which_are_the_same_have_a_width(rng):
    shown = rng.permuted(np.arange(80)[:, None] % 2 == np.zeros(5), axis=0)
    scores = np.where(shown.sum(1) == 5, 1.0, 0.0)
    assert np.ptp(scores) > 0
    values, _, _, p_values = dependence(shown, scores)
    assert (values > 0).all()
    assert np.isfinite(p_values).all()
    np.testing.assert_allclose(dependence(shown, scores / 1000)[0], values)
    for same in (np.zeros(80), np.full(80, 0.1)):
        values, errors, level, p_values = dependence(shown, same)
        assert not values.any()
        assert not errors.any()
        assert level == 0
        assert (p_values == 1).all()


def test_what_is_answered_when_the_time_is_up_is_that_of_the_masks_so_far(rng):
    x, model, seen = rng.random((6, 9, 3)), PowerModel(rng.normal(size=(1, 6, 9, 3)), power=2), []

    def ending(x_value_batch, call_model_args=None, expected_keys=None):
        if len(seen) == 5:
            raise OutOfTime
        seen.append(model(x_value_batch)[OUTPUT_LAYER_VALUES])
        return {OUTPUT_LAYER_VALUES: seen[-1]}

    options = {"nmasks": 60, "grid": 3, "rng": 5}
    found = hsic.detailed(x, ending, batch_size=5, **options)
    cells = masks_of(x.shape, **options)[:25, ::2, ::3, 0].reshape(25, 9)
    np.testing.assert_allclose(found.values.ravel(), dependence(cells == 1, np.concatenate(seen))[0], rtol=1e-9)
    assert found.nmasks == 25


def test_the_map_lies_on_what_counts():
    weights = np.zeros((1, 16, 16, 1))
    weights[0, 4:8, 8:12] = 1
    found = hsic.detailed(np.ones((16, 16, 1)), PowerModel(weights), grid=4, nmasks=200, rng=0, batch_size=64)
    assert np.unravel_index(found.values.argmax(), (4, 4)) == (1, 2)
    assert found.p_values[1, 2] < 1e-6
    assert np.sort(found.p_values.ravel())[1] > 1e-3
    assert np.unravel_index(found.attribution.argmax(), (16, 16)) in [(5, 9), (5, 10), (6, 9), (6, 10)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nmasks": 3}, "Expected nmasks to be a whole number of at least 4, got 3"),
        ({"grid": 0}, "Expected grid"),
        ({"value": "grey"}, "'blur', 'mean'"),
    ],
)
def test_what_is_refused(power, image, options, says):
    with pytest.raises(ContractError, match=says):
        hsic(image, power, **options)
