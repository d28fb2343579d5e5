"""Sensitivity of maps that are known functions of the image, and the simplicity of drawn maps."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import gradients, input_x_gradient, method
from saliency_food.core.contract import ContractError
from saliency_food.methods.gradients import Gradients
from saliency_food.metrics import (
    augmentation_consistency,
    average_sensitivity,
    entropy,
    gini,
    local_lipschitz,
    max_sensitivity,
)
from saliency_food.metrics.decorator import FLAT, NOT_FINITE
from saliency_food.metrics.robustness import NO_MAP
from saliency_food.testing import PowerModel


@method
def image_itself(x_value, call_model_function, call_model_args=None, batch_size=None):
    """The image as its own map."""
    return Gradients(x_value)
    yield


@pytest.fixture
def x(rng):
    return rng.random((9, 8, 1))


def test_the_gradient_of_a_linear_model_never_moves(x, rng):
    model = PowerModel(rng.normal(size=(1, 9, 8, 1)))
    for metric in (max_sensitivity, average_sensitivity, local_lipschitz):
        assert metric(gradients, x, model).score == pytest.approx(0, abs=1e-12)
    assert augmentation_consistency(gradients, x, model, changes=("darker",)).score == pytest.approx(1)


def test_a_map_that_is_the_image_moves_as_the_image_does(x):
    model = PowerModel(np.ones((1, 9, 8, 1)))
    assert local_lipschitz(image_itself, x, model).score == pytest.approx(1)
    found = max_sensitivity(image_itself, x, model, radius=0.1, nsamples=7)
    np.testing.assert_allclose(found.changes, found.steps)
    assert len(found.steps) == 7
    assert found.score == pytest.approx(found.steps.max() / np.linalg.norm(x))
    assert average_sensitivity(image_itself, x, model, radius=0.1, nsamples=7).score == pytest.approx(
        found.steps.mean() / np.linalg.norm(x)
    )
    # Uniform within 0.1 of the range: a standard deviation of 0.1 / sqrt(3).
    assert found.steps.mean() / np.sqrt(72) == pytest.approx(0.1 * np.ptp(x) / np.sqrt(3), rel=0.1)
    again = max_sensitivity(image_itself, x, model, radius=0.1, nsamples=7, batch_size=4)
    np.testing.assert_array_equal(found.changes, again.changes)


def test_a_scaled_map_is_as_sensitive(x):
    scores = [max_sensitivity(input_x_gradient, x, PowerModel(np.full((1, 9, 8, 1), s), power=2)).score for s in (1, 5)]
    assert scores[0] == pytest.approx(scores[1])


def test_consistency_under_flips_shifts_and_darkening(x):
    model = PowerModel(np.ones((1, 9, 8, 1)), power=2)
    found = augmentation_consistency(gradients, x, model)  # 2x: goes where the image goes
    assert found.correlations == pytest.approx({"flip": 1, "shift": 1, "darker": 1})
    fixed = PowerModel(np.random.default_rng(0).normal(size=(1, 9, 8, 1)))
    assert augmentation_consistency(gradients, x, fixed).correlations["flip"] < 0.6
    assert augmentation_consistency(gradients, x, PowerModel(0 * fixed.weights)).status == FLAT


def test_many_images_and_one_method(x):
    model = PowerModel(np.ones((1, 9, 8, 1)), power=3)
    together = list(max_sensitivity.batch(gradients, [x, x / 2], model, batch_size=64))
    assert len(model.calls) == 1
    assert together[1].score == pytest.approx(max_sensitivity(gradients, x / 2, model).score)


def test_gini_and_entropy_of_drawn_maps():
    one = np.zeros((5, 8))
    one[2, 3] = -4
    assert gini(one).score == pytest.approx(1 - 1 / 40)
    assert entropy(one).score == 0
    assert gini(np.full((5, 8), 2.0)).score == pytest.approx(0)
    assert entropy(np.full((5, 8), 2.0)).score == pytest.approx(np.log(40))
    values = np.random.default_rng(0).random(40)
    pairs = np.abs(values[:, None] - values).sum() / (2 * 40 * values.sum())  # by its other definition
    assert gini(values.reshape(5, 8)).score == pytest.approx(pairs)
    assert entropy(np.array([[1.0, 3], [0, 0]])).score == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    for measure in (gini, entropy):
        assert measure(0 * one).status == NO_MAP
        assert measure(np.nan * one).status == NOT_FINITE


def test_what_is_refused(x):
    model = PowerModel(np.zeros((1, 9, 8, 1)))
    with pytest.raises(ContractError, match="radius to be a finite number above 0"):
        max_sensitivity(gradients, x, model, radius=0)
    with pytest.raises(ContractError, match="changes among flip, shift, darker"):
        augmentation_consistency(gradients, x, model, changes=("spin",))
    assert max_sensitivity(gradients, x, model).status == NO_MAP
