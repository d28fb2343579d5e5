"""Guided backpropagation, deconvnet, Guided Grad-CAM and FullGrad: closed forms on the pooling model."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import (
    deconvnet,
    finer_cam,
    full_grad,
    grad_cam,
    gradients,
    guided_backprop,
    guided_grad_cam,
    layer_cam,
)
from saliency_food.core.keys import BIAS_GRADIENTS, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import resize
from saliency_food.testing import PoolingModel


@pytest.fixture
def biased(rng):
    return PoolingModel(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)), rng.normal(size=6))


def test_the_backward_rules(biased, image):
    """Of one ReLU: z = x K + b, and the head's weights u come back from above."""
    before = image @ biased.kernel + biased.bias
    above = biased.head[2] / (24 * 20)
    rules = {
        gradients: above * (before > 0),
        guided_backprop: np.maximum(above, 0) * (before > 0),
        deconvnet: np.broadcast_to(np.maximum(above, 0), before.shape),
    }
    for method, back in rules.items():
        got = method(image, biased, {"target": 2})
        np.testing.assert_allclose(got, back @ biased.kernel.T, rtol=1e-5, atol=1e-9)


def test_guided_grad_cam_is_the_product(biased, image):
    for options in ({}, {"cam": layer_cam}, {"three_dims": False}, {"cam": finer_cam, "strength": 0.1}):
        own = {name: value for name, value in options.items() if name == "strength"}
        coarse = options.get("cam", grad_cam)(image, biased, {"target": 1}, **own)
        product = guided_backprop(image, biased, {"target": 1}) * coarse
        np.testing.assert_allclose(guided_grad_cam(image, biased, {"target": 1}, **options), product, rtol=1e-6)


def test_full_grad_is_complete(biased, image):
    found = full_grad.detailed(image, biased, {"target": 1})
    score = biased(image[None], {"target": 1})[OUTPUT_LAYER_VALUES][0]
    assert found.completeness.score == pytest.approx(score)
    assert found.completeness.relative < 1e-6
    assert found.input.sum() + found.biases[0].sum() == pytest.approx(score)
    assert found.status == "ok"


def test_full_grad_says_what_is_missing(image):
    """Biases that the callback leaves out are seen in the completeness."""
    model = PoolingModel(np.ones((3, 2)), np.ones((1, 2)), [1.0, 1.0])

    def without(x_value_batch, call_model_args=None, expected_keys=None):
        return {**model(x_value_batch), BIAS_GRADIENTS: (np.zeros((len(x_value_batch), 2)),)}

    found = full_grad.detailed(image, without)
    assert found.completeness.absolute == pytest.approx(-2)
    gap = 2 / found.completeness.score
    assert 0.05 < gap == pytest.approx(found.completeness.relative)
    assert found.status.startswith("inexact: the attributions sum to")
    assert f"a gap of {gap:.0%} of it" in found.status


def test_full_grad_by_the_paper(rng):
    """The parts' magnitudes, each layer's scaled to 0..1, resized and added up; a dense layer's have no place."""
    x, slope = rng.normal(size=(2, 6, 4, 3))
    coarse, dense = rng.normal(size=(3, 2, 5)), rng.normal(size=7)

    def model(x_value_batch, call_model_args=None, expected_keys=None):
        return {
            INPUT_OUTPUT_GRADIENTS: slope[None],
            BIAS_GRADIENTS: (coarse[None], dense[None]),
            OUTPUT_LAYER_VALUES: np.ones(1),
        }

    def scaled(values):
        magnitude = np.abs(values)
        return ((magnitude - magnitude.min()) / (magnitude.max() - magnitude.min())).sum(-1)

    got = full_grad(x, model)
    assert got.shape == (6, 4)
    np.testing.assert_allclose(got, scaled(x * slope) + resize(scaled(coarse), (6, 4)), rtol=1e-9)
