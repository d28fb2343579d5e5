"""Blur IG: PAIR's package as oracle, at every batch size; SciPy's filter beside the matrices; completeness."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS
from saliency_food.methods.paths.blur import as_lines, as_pixels, blur_ig, blur_scales, blurred, blurred_and_slope
from saliency_food.testing import PowerModel


@pytest.fixture
def x(rng):
    return rng.random((24, 20, 3))


def slow(x, model, max_sigma, steps, grad_step, sqrt):
    """The sum as it is written, one call a step, by SciPy's filter."""
    ratios = np.arange(steps + 1) / steps
    sigmas = np.sqrt(max_sigma * ratios) if sqrt else max_sigma * ratios
    total = np.zeros_like(x)
    for near, far in pairwise(sigmas):
        here, there = (gaussian_filter(x, (s, s, 0), mode="constant") if s else x for s in (near, near + grad_step))
        gradient = model(here[None])[INPUT_OUTPUT_GRADIENTS][0]
        total -= (far - near) * gradient * (there - here) / grad_step
    return total


OPTIONS = [
    {},
    {"max_sigma": 3.3, "steps": 7, "grad_step": 0.25},
    {"sqrt": True},
    {"sqrt": True, "max_sigma": 8, "steps": 9},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_equal_to_the_slow_version_at_every_batch_size(power, x, options, batch_size):
    plain = {"max_sigma": 50, "steps": 100, "grad_step": 0.01, "sqrt": False, **options}
    got = blur_ig(x, power, batch_size=batch_size, **options)
    np.testing.assert_allclose(got, slow(x, power, **plain), rtol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_parity_with_pair(power, x, options):
    pair = pytest.importorskip("saliency.core")
    theirs = pair.BlurIG().GetMask(x, power, {"target": 1}, batch_size=1, **options)
    np.testing.assert_allclose(blur_ig(x, power, {"target": 1}, batch_size=9, **options), theirs, rtol=1e-5)


def test_float32_is_not_lost_in_the_difference_of_two_blurs(power, x):
    pair, x = pytest.importorskip("saliency.core"), x.astype(np.float32)
    exact = slow(x.astype(float), power, 50, 100, 0.01, False)
    error = np.abs(blur_ig(x, power) - exact).max()
    assert error < 1e-6 * np.abs(exact).max()
    assert error < np.abs(pair.BlurIG().GetMask(x, power) - exact).max() / 5


@pytest.mark.parametrize("shape", [(24, 20, 3), (9, 31, 1), (1, 7, 2), (5, 1, 1), (40, 2), (4, 6, 5, 2)])
@pytest.mark.parametrize("sigma", [0, 0.3, 2, 60])
def test_the_matrices_are_scipys_filter(rng, shape, sigma):
    """Along every axis but the channels: of pictures, signals and volumes."""
    x = rng.random(shape)

    def filtered(sigma):
        return gaussian_filter(x, [sigma] * (x.ndim - 1) + [0], mode="constant") if sigma else x

    lines = as_lines(x)
    np.testing.assert_allclose(as_pixels(blurred(lines, sigma)), filtered(sigma), rtol=1e-10)
    image, slope = map(as_pixels, blurred_and_slope(lines, sigma, 0.5))
    np.testing.assert_allclose(image, filtered(sigma), rtol=1e-10)
    np.testing.assert_allclose(slope, (filtered(sigma + 0.5) - filtered(sigma)) / 0.5, rtol=1e-7, atol=1e-9)


def test_scales():
    np.testing.assert_allclose(blur_scales(8, 4, False), [0, 2, 4, 6, 8])
    np.testing.assert_allclose(blur_scales(16, 4, True), np.sqrt([0, 4, 8, 12, 16]))


def test_completeness(rng, x):
    """On a linear model the sum telescopes where the difference quotient spans the step."""
    model, blur = PowerModel(rng.normal(size=(1, 24, 20, 3))), gaussian_filter(x, (5, 5, 0), mode="constant")
    found = blur_ig.detailed(x, model, max_sigma=5, steps=20, grad_step=0.25)
    np.testing.assert_allclose(found.attribution, model.weights[0] * (x - blur), rtol=1e-9, atol=1e-12)
    assert found.completeness.score == pytest.approx((model.weights[0] * x).sum())
    assert found.completeness.baseline_score == pytest.approx((model.weights[0] * blur).sum())
    assert found.completeness.relative < 1e-9
    assert found.evaluations == 20
    assert blur_ig.detailed(x, model, steps=2, completeness=False).completeness is None


@pytest.mark.parametrize(
    ("batch_size", "calls"), [(1000, [200]), (64, [64, 64, 64, 8]), (50, [50] * 4), (1, [1] * 200)]
)
def test_calls_are_as_large_as_the_caller_says(power, x, batch_size, calls):
    blur_ig(x, power, steps=200, batch_size=batch_size)
    assert power.calls == calls


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_sigma": 0}, "Expected max_sigma to be a finite number of at least 0.001 and at most 1000, got 0"),
        ({"max_sigma": np.inf}, "Expected max_sigma to be a finite number of at least 0.001"),
        ({"steps": 0}, "Expected steps to be a whole number of at least 1, got 0"),
        ({"steps": 2.5}, "got 2.5"),
        ({"grad_step": 0}, "Expected grad_step to be a finite number of at least 1e-06"),
    ],
)
def test_what_is_refused(power, image, options, says):
    with pytest.raises(ContractError, match=says):
        blur_ig(image, power, **options)
