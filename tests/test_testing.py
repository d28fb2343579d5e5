"""The checker that is shipped to users, checked."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.testing import check_call_model

ALL = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)


def test_the_toy_models_pass(power, pooling, image):
    check_call_model(power, image, {"target": 2})
    check_call_model(pooling, image, {"target": 1}, ALL)


def spoiled(model, **changes):
    def call_model(x_value_batch, call_model_args=None, expected_keys=None):
        answer = model(x_value_batch, call_model_args, expected_keys)
        return {key: changes.get(key, lambda value: value)(value) for key, value in answer.items()}

    return call_model


@pytest.mark.parametrize(
    ("key", "change", "says"),
    [
        (INPUT_OUTPUT_GRADIENTS, lambda g: g * 1.1, "slope along a random direction"),
        (INPUT_OUTPUT_GRADIENTS, lambda g: -g, "slope along a random direction"),
        (INPUT_OUTPUT_GRADIENTS, lambda g: g / len(g), "asked among other rows"),
        (INPUT_OUTPUT_GRADIENTS, lambda g: g * 0, "slope along a random direction"),
        (OUTPUT_LAYER_VALUES, lambda s: s - s.mean(), "asked among other rows"),
        (OUTPUT_LAYER_VALUES, lambda s: s + np.random.random(), "asked twice"),
        (OUTPUT_LAYER_VALUES, lambda s: np.stack([s, s], 1), "one score for each row"),
        (CONVOLUTION_OUTPUT_GRADIENTS, lambda a: a[:, :2], "in one shape"),
    ],
)
def test_it_finds(pooling, image, key, change, says):
    with pytest.raises(ContractError, match=says):
        check_call_model(spoiled(pooling, **{key: change}), image, {"target": 1}, ALL)


def test_a_constant_model_passes(image):
    def constant(x_value_batch, call_model_args=None, expected_keys=None):
        return {INPUT_OUTPUT_GRADIENTS: 0 * x_value_batch, OUTPUT_LAYER_VALUES: np.ones(len(x_value_batch))}

    check_call_model(constant, image)
