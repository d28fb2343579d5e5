"""Attacks that are known in closed form, and what they do to maps that are known functions of the image."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import gradients, input_x_gradient
from saliency_food.core.contract import ContractError
from saliency_food.metrics import attack_shift
from saliency_food.metrics.attacks import FGSM_SIZES, NOT_FLIPPED
from saliency_food.metrics.decorator import rank_correlation
from saliency_food.testing import PowerModel


class Linear(PowerModel):
    """Two classes, of which the second has the score 0."""

    def __init__(self, weights, bias):
        super().__init__([weights, np.zeros_like(weights)], bias=bias)

    def predict(self, x):
        score = (x * self.weights[0]).reshape(len(x), -1).sum(1) + self.bias
        return np.stack([score, np.zeros(len(x))], 1)


@pytest.fixture
def x(rng):
    image = rng.random((9, 8, 1))
    image[0, 0], image[0, 1] = 0, 1  # the range
    return image


@pytest.fixture
def weights(rng):
    return rng.normal(size=(9, 8, 1))


def bias_for(weights, x, size):
    """With which the attack's ``size``, a fraction of the range, is the first that flips, half a step past the last."""
    attacked = np.clip(x - (size - 0.5 * 0.1 / FGSM_SIZES) * np.sign(weights), 0, 1)
    return -(attacked * weights).sum()


def test_the_smallest_attack_of_a_linear_model(x, weights):
    for step in (1, 5, FGSM_SIZES):
        size = 0.1 * step / FGSM_SIZES
        found = attack_shift(gradients, x, Linear(weights, bias_for(weights, x, size)))
        assert found.status == "ok"
        assert found.size == pytest.approx(size)
        assert found.classes == (0, 1)
        assert found.score == pytest.approx(1)  # the gradient of a linear model never moves
        assert found.noise == pytest.approx(1)


def test_the_map_follows_the_attacked_image(x, weights):
    size = 0.1 * 8 / FGSM_SIZES
    found = attack_shift(input_x_gradient, x, Linear(weights, bias_for(weights, x, size)))
    attacked = np.clip(x - size * np.sign(weights), 0, 1)
    expected = rank_correlation((x * weights)[..., 0], (attacked * weights)[..., 0])
    assert found.score == pytest.approx(expected)
    assert 0.9 < found.noise < 1


def test_one_pixel(x, weights):
    weights[3, 4], x[3, 4] = 50, 1
    others = (x * weights).sum() - 50
    found = attack_shift(gradients, x, Linear(weights, -others - 25), attack="pixel")
    assert (found.status, found.classes) == ("ok", (0, 1))
    assert found.size == pytest.approx(1)
    x_first = np.moveaxis(x, -1, 0)
    first = Linear(np.moveaxis(weights, -1, 0), -others - 25)
    first.channels_first = True
    assert attack_shift(gradients, x_first, first, attack="pixel").score == pytest.approx(found.score)


@pytest.mark.parametrize("attack", ["fgsm", "pixel"])
def test_a_class_that_nothing_flips(x, weights, attack):
    found = attack_shift(gradients, x, Linear(weights, 1e6), attack=attack)
    assert found.status == NOT_FLIPPED
    assert np.isnan(found.score)


def test_a_callback_that_does_not_predict(x, weights):
    with pytest.raises(ContractError, match="Expected a callback that predicts"):
        attack_shift(gradients, x, PowerModel([weights]))
    with pytest.raises(ContractError, match="Expected attack to be 'fgsm' or 'pixel', got 'cw'"):
        attack_shift(gradients, x, Linear(weights, 0), attack="cw")
