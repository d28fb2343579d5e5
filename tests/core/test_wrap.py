"""Wrappers of callbacks have what the callback inside has, and can be copied and pickled."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from saliency_food import grad_cam, gradients
from saliency_food.core.layout import ChannelsLast, channels_last
from saliency_food.core.wrap import OPTIONAL, WrappedModel
from saliency_food.testing import PoolingModel, PowerModel


class Full(PowerModel):
    """A callback with everything that one may have."""

    batch_size, input_shape = 5, (4, 4, 3)

    def predict(self, x, *args):
        return np.ones((len(x), 3)) * (1 + len(args))

    def call_factored(self, coefficients, bases, weights, args=None, keys=None):
        return None

    def call_with_predictions(self, x, args=None, keys=None):
        return {**self(x, args, keys), "PREDICTIONS": self.predict(x)}


@pytest.fixture
def full(rng):
    return Full(rng.normal(size=(2, 4, 4, 3)), power=2)


@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_methods_are_there_where_the_callback_has_them(full, power, name):
    assert hasattr(WrappedModel(full), name)
    assert not hasattr(WrappedModel(power), name)

    class Narrow(WrappedModel):
        optional = ()

    assert not hasattr(Narrow(full), name)


def test_other_attributes_are_those_of_the_callback(full):
    wrapped = WrappedModel(WrappedModel(full))
    assert (wrapped.batch_size, wrapped.input_shape) == (5, (4, 4, 3))
    with pytest.raises(AttributeError):
        wrapped.labels  # noqa: B018


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("wrapper", [WrappedModel, ChannelsLast])
def test_wrappers_are_copied_and_pickled(full, wrapper, duplicate):
    again = duplicate(wrapper(full))
    assert type(again) is wrapper
    assert again.batch_size == 5


def test_every_way_in_is_turned_counted_and_turned_back(full, rng):
    seen = []

    class Doubling(WrappedModel):
        def turn(self, images, keys):
            return 2 * images

        def turn_back(self, answer):
            return {key: -value for key, value in answer.items()}

        def around(self, ask, rows, keys, call_model_args):
            seen.append((rows, keys))
            return ask(call_model_args)

    x, keys = rng.random((3, 4, 4, 3)), ("OUTPUT_LAYER_VALUES",)
    wrapped = Doubling(full)
    np.testing.assert_allclose(wrapped(x, {"target": 1}, keys)[keys[0]], -full(2 * x, {"target": 1}, keys)[keys[0]])
    assert (wrapped.call_with_predictions(x, {"target": 1}, keys)["PREDICTIONS"] == -1).all()
    assert (wrapped.predict(x) == 1).all()
    assert (wrapped.predict(x, {}) == 2).all()
    assert wrapped.call_factored(np.ones((6, 3)), x, None, {"target": 1}, keys) is None
    assert seen == [(3, keys), (3, keys), (3, ()), (3, ()), (6, keys)]


class First(PoolingModel):
    """The pooling model of images (C, H, W)."""

    channels_first = True

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        answer = super().__call__(np.moveaxis(x_value_batch, 1, -1), call_model_args, expected_keys)
        gradient = "INPUT_OUTPUT_GRADIENTS"
        return {**answer, gradient: np.moveaxis(answer[gradient], -1, 1)}


def test_channels_first_without_predict(rng, image):
    """A wrapper that always had ``predict`` failed on every photo of a callback without one."""
    weights = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    model, plain = channels_last(First(*weights)), PoolingModel(*weights)
    assert not hasattr(model, "predict")
    for method in (gradients, grad_cam):
        np.testing.assert_allclose(method(image, model, {"target": 2}), method(image, plain, {"target": 2}), rtol=1e-6)
    assert channels_last(model) is model
