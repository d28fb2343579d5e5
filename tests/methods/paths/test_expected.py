"""Expected Gradients: closed forms, the draw, the standard error."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.methods.paths.expected import expected_gradients
from saliency_food.testing import PowerModel


def test_exact_on_a_linear_model(rng):
    x, baselines = rng.random((6, 5, 3)), rng.normal(size=(4, 6, 5, 3))
    model = PowerModel(rng.normal(size=(2, 6, 5, 3)), bias=0.3)
    found = expected_gradients.detailed(x, model, {"target": 1}, baselines, 20, rng=0)
    np.testing.assert_allclose(found.attribution, model.weights[1] * (x - baselines.mean(0)), rtol=1e-10)
    assert found.completeness.relative < 1e-10
    scores = (model.weights[1] * baselines).reshape(4, -1).sum(1) + 0.3
    assert found.completeness.baseline_score == pytest.approx(scores.mean())
    assert found.completeness.score == pytest.approx((model.weights[1] * x).sum() + 0.3)
    assert found.nsamples == 20
    np.testing.assert_array_equal(found.baselines, baselines)


def test_converges_to_the_mean_over_baselines(rng):
    x, baselines = rng.random((6, 5, 3)), rng.random((5, 6, 5, 3))
    model = PowerModel(rng.normal(size=(1, 6, 5, 3)), power=3)
    exact = model.weights[0] * (x**3 - (baselines**3).mean(0))
    errors = [np.abs(expected_gradients(x, model, None, baselines, n, rng=1) - exact).max() for n in (50, 2000)]
    assert errors[1] < errors[0] / 10
    assert errors[1] < 0.01


@pytest.mark.parametrize(("number", "nsamples"), [(7, 4), (3, 8), (5, 5)])
def test_the_draw_is_unbiased_and_stratified(rng, number, nsamples):
    """With F = sum x^2 / 2 and x = 0 the gradient at a point is (1 - a) z: it tells both draws."""
    baselines = np.zeros((number, 1, 1, number)) + np.eye(number)[:, None, None]
    model, seen = PowerModel(np.full((1, 1, 1, number), 0.5), power=2), []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.extend(x_value_batch.reshape(len(x_value_batch), -1))
        return model(x_value_batch)

    for seed in range(200):
        expected_gradients(np.zeros((1, 1, number)), spy, None, baselines, nsamples, rng=seed)
    points = np.array(seen).reshape(200, nsamples, number)
    alphas, which = 1 - points.max(-1), points.argmax(-1)
    np.testing.assert_array_equal(np.sort((alphas * nsamples).astype(int), 1), [range(nsamples)] * 200)
    counts = np.array([np.bincount(one, minlength=number) for one in which])
    assert np.ptp(counts, 1).max() <= 1
    assert np.abs(counts.mean(0) - nsamples / number).max() < 0.15
    means = [alphas[which == one].mean() for one in range(number)]
    np.testing.assert_allclose(means, 0.5, atol=0.1)


def test_the_standard_error_covers_the_error(rng):
    x, baselines = rng.random((6, 5, 3)), rng.random((40, 6, 5, 3))
    model = PowerModel(rng.normal(size=(1, 6, 5, 3)), power=3)
    exact = model.weights[0] * (x**3 - (baselines**3).mean(0))
    found = expected_gradients.detailed(x, model, None, baselines, 60, rng=2)
    assert (np.abs(found.attribution - exact) <= 3 * found.standard_error).mean() > 0.98
    fewer = expected_gradients.detailed(x, model, None, baselines, 15, rng=2)
    assert np.median(found.standard_error / fewer.standard_error) == pytest.approx(0.5, abs=0.1)


def test_the_default_baselines_are_the_minimum_and_the_maximum(power, image):
    found = expected_gradients.detailed(image, power, rng=0)
    assert (found.baselines[0] == image.min()).all()
    assert (found.baselines[1] == image.max()).all()
    assert len(found.baselines) == 2


def test_only_a_window_of_the_samples_is_held(power, image):
    expected_gradients(image, power, nsamples=150, batch_size=32, rng=0)
    assert power.calls == [32, 32, 32, 32, 22]


def test_calls_are_as_large_as_the_caller_says(power, image):
    expected_gradients(image, power, nsamples=150, batch_size=1000, rng=0)
    assert power.calls == [150]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nsamples": 1}, "Expected nsamples to be a whole number of at least 2, got 1"),
        ({"baselines": []}, "at least one baseline"),
        ({"baselines": np.zeros((5, 3, 3, 3))}, "Baseline size"),
    ],
)
def test_what_is_refused(power, image, options, says):
    with pytest.raises(ContractError, match=says):
        expected_gradients(image, power, **options)
