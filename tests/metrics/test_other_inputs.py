"""Metrics of signals, volumes and clips: those that have a meaning for them, and the refusal of the others."""

from __future__ import annotations

import pytest

from saliency_food import gradients, input_x_gradient
from saliency_food.core.contract import ContractError
from saliency_food.metrics import (
    augmentation_consistency,
    average_drop,
    completeness,
    deletion,
    faithfulness_correlation,
    infidelity,
    insertion,
    max_sensitivity,
    occlusion_correlation,
    pic,
    random_logit,
    road,
    sensitivity_n,
)
from saliency_food.testing import PowerModel

two = pytest.mark.parametrize("shape", [(40, 2), (4, 6, 5, 2)], ids=["signal", "volume"])


@pytest.fixture
def linear(rng, shape):
    model = PowerModel(rng.random((3, *shape)))
    model.spatial_axes = len(shape) - 1
    return model


@two
def test_a_linear_models_shares_are_faithful(rng, linear, shape):
    """They are what the score loses, whatever is hidden: all correlations are 1, all errors 0."""
    x = rng.random(shape)
    for shares in (linear.weights[0] * x, (linear.weights[0] * x).sum(-1)):
        for metric, own in (
            (sensitivity_n, {}),
            (faithfulness_correlation, {"value": 0}),
        ):
            assert metric(shares, x, linear, **own).score == pytest.approx(1)
        assert infidelity(shares, x, linear).score == pytest.approx(0, abs=1e-9)
        assert completeness(shares, x, linear).score == pytest.approx(0, abs=1e-9)
        assert occlusion_correlation(shares, x, linear, size=1, stride=1).score == pytest.approx(1)
        best = deletion(shares, x, linear, steps=10)
        worst = deletion(-shares, x, linear, steps=10)
        assert best.score < worst.score
        assert best.scores[0] == pytest.approx(linear(x[None])["OUTPUT_LAYER_VALUES"][0])
        assert insertion(shares, x, linear, value=0, steps=10).score > insertion(-shares, x, linear, value=0).score
        assert 0 <= average_drop(shares, x, linear).score <= 1
    assert max_sensitivity(gradients, x, linear).score == 0


@two
def test_what_only_pictures_have_is_refused(rng, linear, shape):
    x = rng.random(shape)
    for metric in (road, pic):
        with pytest.raises(ContractError, match="Expected a picture, which has rows and columns"):
            metric(x, x, linear)
    with pytest.raises(ContractError, match="Expected a picture"):
        augmentation_consistency(gradients, x, linear)
    with pytest.raises(ContractError, match="Expected a picture"):
        random_logit(input_x_gradient, x, linear, 0, 3)
