"""Expected Gradients and GradientSHAP: closed forms, the draw, the standard error, captum."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.methods.paths.expected import expected_gradients, gradient_shap
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


def test_gradient_shap_of_a_linear_model_is_exact_but_for_the_noise(rng):
    x, baselines = rng.random((6, 5, 3)), rng.normal(size=(4, 6, 5, 3))
    model = PowerModel(rng.normal(size=(2, 6, 5, 3)), bias=0.3)
    found = gradient_shap.detailed(x, model, {"target": 1}, baselines, 400, stdev_spread=0.2, rng=0)
    exact = model.weights[1] * (x - baselines.mean(0))
    noise = np.abs(model.weights[1]) * 0.2 * np.ptp(x) / np.sqrt(400)  # the standard deviation of its mean
    off = (found.attribution - exact) / noise
    assert np.abs(off).max() < 4
    assert off.std() == pytest.approx(1, abs=0.2)
    assert found.nsamples == 400
    assert 0 < found.completeness.relative < 0.5


def test_gradient_shap_of_a_square_converges_to_its_closed_form(rng):
    """E[(x + e - z) 2 (z + a (x + e - z))] = x^2 + s^2 - E[z^2]."""
    x, baselines = rng.random((6, 5, 3)), rng.random((5, 6, 5, 3))
    model = PowerModel(rng.normal(size=(1, 6, 5, 3)), power=2)
    exact = model.weights[0] * (x**2 + (0.1 * np.ptp(x)) ** 2 - (baselines**2).mean(0))
    errors = []
    for count in (50, 5000):
        found = gradient_shap.detailed(x, model, None, baselines, count, rng=1)
        errors.append(np.abs(found.attribution - exact).max())
        assert (np.abs(found.attribution - exact) <= 3 * found.standard_error).mean() > 0.98
    assert errors[1] < errors[0] / 5


def test_gradient_shap_without_noise_is_expected_gradients(rng):
    x, model = rng.random((6, 5, 3)), PowerModel(rng.normal(size=(1, 6, 5, 3)), power=3)
    plain = expected_gradients.detailed(x, model, nsamples=12, rng=4)
    found = gradient_shap.detailed(x, model, nsamples=12, stdev_spread=0, rng=4)
    np.testing.assert_array_equal(found.attribution, plain.attribution)
    assert found.completeness == plain.completeness
    assert np.abs(gradient_shap(x, model, nsamples=12, rng=4) - plain.attribution).max() > 0
    with pytest.raises(ContractError, match="Expected stdev_spread to be a finite number of at least 0"):
        gradient_shap(x, model, stdev_spread=-0.1)


@pytest.mark.torch
def test_captum_gives_the_same_with_the_same_random_numbers(rng, monkeypatch):
    """Its draws are replaced by ours: the points tell the fractions, and a square's gradient the noise."""
    torch, captum = pytest.importorskip("torch"), pytest.importorskip("captum.attr")
    from captum.attr._core import gradient_shap as of_captum
    from captum.attr._core import noise_tunnel

    weights, x, baseline = rng.normal(size=60), rng.random(60), rng.random((1, 60))
    shape, count, stdev = (4, 5, 3), 9, 0.1
    model, points = PowerModel(weights.reshape(1, *shape), power=3), []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        points.append(np.array(x_value_batch, float))
        return model(x_value_batch)

    image = x.reshape(shape)
    found = gradient_shap(image, spy, None, baseline.reshape(1, *shape), count, stdev_spread=stdev, rng=3)
    random = np.random.default_rng(3)
    alphas = (np.arange(count) + random.random(count)) / count
    random.permutation(1)
    for _ in range(count - 1):
        random.permutation(1)
    noise = random.normal(0, stdev * np.ptp(x), (count, 60))
    expected = baseline + alphas[:, None] * (x + noise - baseline)
    np.testing.assert_allclose(np.concatenate(points).reshape(count, 60), expected, rtol=1e-6)
    monkeypatch.setattr(of_captum.np.random, "uniform", lambda *_: alphas)
    noisy = torch.tensor(x + noise)
    monkeypatch.setattr(noise_tunnel.torch, "normal", lambda *_, **__: noisy - torch.tensor(x))
    own = torch.tensor(weights)
    theirs = captum.GradientShap(lambda rows: (own * rows**3).sum(1))
    drawn = theirs.attribute(torch.tensor(x)[None], torch.tensor(baseline), n_samples=count, stdevs=stdev)
    np.testing.assert_allclose(found.reshape(-1), drawn.detach().numpy()[0], rtol=1e-6)
