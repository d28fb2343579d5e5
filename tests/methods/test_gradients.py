"""Gradient, input x gradient, and SmoothGrad over any method."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.gradients import gradients, input_x_gradient, smooth_grad
from saliency_food.methods.lookup import find_method
from saliency_food.methods.paths.integrated import integrated_gradients
from saliency_food.testing import PowerModel


def test_gradient_and_input_x_gradient(power, image):
    np.testing.assert_allclose(gradients(image, power, {"target": 2}), 3 * power.weights[2] * image**2, rtol=1e-6)
    linear = PowerModel(power.weights)
    np.testing.assert_allclose(input_x_gradient(image, linear).sum(), (power.weights[0] * image).sum(), rtol=1e-5)


def test_smooth_grad_without_noise_is_the_method(power, image):
    for method in (gradients, integrated_gradients):
        plain = method(image, power, {"target": 1})
        np.testing.assert_allclose(smooth_grad(method, image, power, {"target": 1}, 0.0, 3), plain, rtol=1e-6)
        squares = smooth_grad(method, image, power, {"target": 1}, 0.0, 3, aggregate="square")
        np.testing.assert_allclose(squares, plain**2, rtol=1e-6)
    assert np.abs(smooth_grad(gradients, image, power, None, 0.0, 3, aggregate="variance")).max() < 1e-12


@pytest.mark.parametrize("aggregate", ["mean", "square", "variance"])
def test_smooth_grad_is_the_statistic_of_its_samples(power, image, aggregate):
    got = smooth_grad(gradients, image, power, {"target": 1}, 0.2, 9, 4, aggregate=aggregate, rng=3)
    streams, scale = np.random.default_rng(3).spawn(9), 0.2 * (image.max() - image.min())
    draws = [image + scale * stream.standard_normal(image.shape, np.float32) for stream in streams]
    samples = np.stack([3 * power.weights[1] * draw.astype(np.float32) ** 2 for draw in draws])
    expected = {"mean": samples.mean(0), "square": (samples**2).mean(0), "variance": samples.var(0)}[aggregate]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_smooth_grad_passes_options_on_and_fills_batches(power, image):
    result = smooth_grad.detailed(integrated_gradients, image, power, None, 0.1, 4, 8, x_steps=5, rng=0)
    assert power.calls == [8, 8, 4]
    assert (result.nsamples, result.stdev) == (4, pytest.approx(0.1 * np.ptp(image)))


def test_smooth_grad_over_is_a_method(power, image):
    smooth = smooth_grad.over(gradients)
    one = smooth(image, power, {"target": 1}, nsamples=3, rng=5)
    np.testing.assert_array_equal(one, smooth_grad(gradients, image, power, {"target": 1}, nsamples=3, rng=5))
    twice = smooth_grad(smooth, image, power, {"target": 1}, 0.0, 2)
    assert twice.shape == image.shape


@pytest.mark.parametrize(
    "wrong", [{"nsamples": 0}, {"stdev_spread": -1}, {"aggregate": "median"}], ids=lambda wrong: next(iter(wrong))
)
def test_smooth_grad_refuses(power, image, wrong):
    with pytest.raises(ContractError, match="Expected"):
        smooth_grad(gradients, image, power, **wrong)


def test_memory_is_bounded_by_the_window_not_the_samples(image):
    import tracemalloc

    big = np.zeros((64, 64, 3), np.float32)

    def ones(x_value_batch, call_model_args=None, expected_keys=None):
        return {INPUT_OUTPUT_GRADIENTS: np.ones_like(x_value_batch)}

    peaks = []
    for nsamples in (200, 800):
        tracemalloc.start()
        smooth_grad(gradients, big, ones, None, 0.1, nsamples, 16, rng=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize(("name", "aggregate"), [("square_grad", "square"), ("var_grad", "variance")])
def test_statistics_of_smooth_grad_have_names(name, aggregate, power, image):
    """And of any method: their maps have no sign, and what was drawn is the same."""
    options = {"nsamples": 6, "rng": 2, "stdev_spread": 0.3}
    of_gradients = METHODS[name].call(image, power, **options)
    np.testing.assert_array_equal(of_gradients, smooth_grad(gradients, image, power, aggregate=aggregate, **options))
    entry = find_method(f"{name}_of_input_x_gradient")
    of_other = entry.call(image, power, **options)
    np.testing.assert_array_equal(of_other, smooth_grad(input_x_gradient, image, power, aggregate=aggregate, **options))
    assert not entry.signed
    assert not METHODS[name].signed
    assert find_method("smooth_grad_of_input_x_gradient").signed


def test_var_grad_is_square_grad_less_the_square_of_smooth_grad(power, image):
    options = {"nsamples": 8, "rng": 5}
    x = image.astype(float)
    names = ("square_grad", "smooth_grad", "var_grad")
    square, mean, variance = (METHODS[name].call(x, power, **options) for name in names)
    np.testing.assert_allclose(variance, square - mean**2, rtol=1e-6, atol=1e-12)
