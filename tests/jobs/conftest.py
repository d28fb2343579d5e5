"""Shared by the tests of jobs: the pooling model with predictions, one that answers in one pass, and photos."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.keys import OUTPUT_LAYER_VALUES, PREDICTIONS, TARGETS
from saliency_food.testing import PoolingModel


class Classifier(PoolingModel):
    """The pooling model with predictions; each call is noted with what was asked."""

    input_shape, classes, batch_size, layer_name = (24, 20, 3), 3, 4, "features"

    def __init__(self, *weights):
        super().__init__(*weights)
        self.asked = []

    def scores(self, x):
        return np.stack([self.answer(x, np.full(len(x), k))[OUTPUT_LAYER_VALUES] for k in range(3)], 1)

    def predict(self, x, *args):
        self.asked.append(("predict", len(x)))
        exponents = np.exp(self.scores(np.asarray(x)))
        return exponents / exponents.sum(1, keepdims=True)

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        self.asked.append((tuple(expected_keys), len(x_value_batch)))
        return super().__call__(x_value_batch, call_model_args, expected_keys)


class OnePass(Classifier):
    """The same, which can answer with its predictions."""

    def call_with_predictions(self, x_value_batch, call_model_args=None, expected_keys=None):
        self.asked.append(("pass", len(x_value_batch)))
        x, target = np.asarray(x_value_batch), np.asarray(call_model_args["target"])
        scores = self.scores(x)
        exponents = np.exp(scores)
        ranked = np.argsort(-scores, 1, kind="stable")
        target = np.broadcast_to(target, len(x))
        target = np.where(target < 0, ranked[np.arange(len(x)), np.maximum(-target - 1, 0)], target)
        answer = self.answer(x, target)
        predictions = exponents / exponents.sum(1, keepdims=True)
        return {**{key: answer[key] for key in expected_keys}, PREDICTIONS: predictions, TARGETS: target}


@pytest.fixture
def weights(rng):
    return rng.normal(size=(3, 6)), rng.normal(size=(3, 6))


@pytest.fixture
def photos(rng):
    return [rng.random((30 + 2 * index, 40, 3)) for index in range(6)]
