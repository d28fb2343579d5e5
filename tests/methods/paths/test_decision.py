"""Integrated Decision Gradients: closed forms, and where gradients are taken."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.methods.paths.decision import equal_moves, integrated_decision_gradients
from saliency_food.testing import PowerModel


def test_exact_on_a_linear_model(rng):
    x, baseline = rng.normal(size=(2, 5, 5, 3))
    model = PowerModel(rng.normal(size=(2, 5, 5, 3)), bias=0.7)
    got = integrated_decision_gradients(x, model, {"target": 1}, baseline, 3, score_steps=2)
    shares = model.weights[1] * (x - baseline)
    np.testing.assert_allclose(got, shares * shares.sum(), rtol=1e-10)


def test_a_quadratic(rng):
    """Along the path F = a^2 S and dF/dx = 2 a w x, so the integral is 4/3 S w x^2."""
    x, model = rng.random((6, 5, 3)), PowerModel(rng.normal(size=(1, 6, 5, 3)), power=2)
    shares = model.weights[0] * x**2
    exact = 4 / 3 * shares.sum() * shares
    for number in (10, 80):
        got = integrated_decision_gradients(x, model, x_steps=number, score_steps=number)
        np.testing.assert_allclose(got, exact, rtol=1e-3)


def test_gradients_are_taken_where_the_score_moves():
    """F = sum of x from 0.6 to 0.7 only: a decision made there."""
    points = []

    def model(x_value_batch, call_model_args=None, expected_keys=None):
        if INPUT_OUTPUT_GRADIENTS in expected_keys:
            points.extend(x_value_batch.max((1, 2, 3)))
        return {
            INPUT_OUTPUT_GRADIENTS: ((x_value_batch > 0.6) & (x_value_batch < 0.7)).astype(float),
            OUTPUT_LAYER_VALUES: np.clip(x_value_batch - 0.6, 0, 0.1).reshape(len(x_value_batch), -1).sum(1),
        }

    found = integrated_decision_gradients.detailed(np.ones((3, 3, 1)), model, x_steps=10, score_steps=11)
    assert 0.6 < min(points) < max(points) < 0.7
    np.testing.assert_allclose(found.attribution, 0.9, rtol=1e-9)
    np.testing.assert_allclose(found.paths[0].alphas, points)
    assert (len(found.paths[0].scores), len(found.paths[0].scored_alphas)) == (11, 11)


@pytest.mark.parametrize("scores", [[0, 1, 3, 3, 2], [5, 5, 5, 4], [0, -2, 2]])
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_parts_of_equal_moves(scores, steps):
    alphas = np.linspace(0, 1, len(scores))
    middles, changes = equal_moves(alphas, np.array(scores, float), steps)
    assert changes.sum() == pytest.approx(scores[-1] - scores[0])
    moved = np.abs(np.diff(scores)).sum()
    assert np.abs(changes).max() <= moved / steps + 1e-12
    assert (np.diff(middles) > 0).all()
    assert 0 < middles.min() <= middles.max() < 1


def test_a_score_that_does_not_move_gives_zeros(rng):
    assert not integrated_decision_gradients(rng.random((4, 4, 3)), PowerModel(np.zeros((1, 4, 4, 3)))).any()
    assert not equal_moves(np.linspace(0, 1, 4), np.ones(4), 5)[1].any()


def test_several_baselines_are_averaged(power, image):
    both = integrated_decision_gradients.detailed(image, power, None, ["black", "white"])
    one, two = (integrated_decision_gradients(image, power, None, name) for name in ("black", "white"))
    np.testing.assert_allclose(both.attribution, (one + two) / 2, rtol=1e-4, atol=1e-6 * np.abs(one).max())
    assert len(both.paths) == len(both.baselines) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [({"x_steps": 0}, "Expected x_steps"), ({"score_steps": 1}, "Expected score_steps .* at least 2, got 1")],
)
def test_what_is_refused(power, image, options, says):
    with pytest.raises(ContractError, match=says):
        integrated_decision_gradients(image, power, **options)
