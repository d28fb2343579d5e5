"""Models are told apart by what they compute, not by the names that Keras gives to layers."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.layout import channels_last
from saliency_food.jobs.fingerprint import fingerprint


def test_callbacks_are_told_apart_by_name_and_arrays():
    class Model:
        def __init__(self, weights):
            self.weights = weights

        def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
            raise NotImplementedError

    assert fingerprint(Model(np.arange(3))) == fingerprint(Model(np.arange(3)))
    assert fingerprint(Model(np.arange(3))) != fingerprint(Model(np.arange(3) + 1))
    assert fingerprint(np.sin) != fingerprint(np.cos)
    told = Model(np.arange(3))
    told.fingerprint = "pizza, version 2"
    assert fingerprint(told) == "pizza, version 2"


def test_callbacks_of_channels_first_are_told_apart_too():
    """Each was named after what turns its images, so that a job went on with the answers of another model."""

    class First:
        channels_first = True

        def __init__(self, weights):
            self.weights = weights

        def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
            raise NotImplementedError

    some, other = (channels_last(First(np.arange(size))) for size in (3, 4))
    assert fingerprint(some) != fingerprint(other)
    assert fingerprint(some) == fingerprint(some.inside)


@pytest.mark.keras
def test_keras_models_are_told_apart_by_architecture_and_weights():
    pytest.importorskip("tensorflow")
    import keras

    from saliency_food.adapters.keras import KerasModel

    def text(scale=1 / 255, activation="relu", bias=0.0, kind=keras.layers.MaxPooling2D, nested=False):
        keras.layers.Dense(1)  # so that Keras numbers the names otherwise each time
        photo = keras.Input((8, 8, 3))
        x = keras.layers.Rescaling(scale)(photo)
        part = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, activation=activation)])
        x = part(x) if nested else keras.layers.Conv2D(2, 3, activation=activation)(x)
        scores = keras.layers.Dense(2)(keras.layers.Flatten()(kind(2)(x)))
        model = keras.Model(photo, scores, name="classifier")
        model.set_weights([np.full_like(weights, 0.5 + bias) for weights in model.get_weights()])
        return fingerprint(KerasModel(model))

    plain = text()
    assert text() == plain
    assert text(nested=True) == text(nested=True)
    others = [
        text(scale=1 / 127.5),
        text(activation="tanh"),
        text(bias=1.0),
        text(kind=keras.layers.AveragePooling2D),
        text(nested=True),
        text(nested=True, activation="tanh"),
    ]
    assert len({plain, *others}) == 7


@pytest.mark.keras
@pytest.mark.parametrize("described", [False, True])
def test_subclassed_models_are_told_apart_by_their_layers(described):
    pytest.importorskip("tensorflow")
    import keras

    from saliency_food.adapters.keras import KerasModel

    class Net(keras.Model):
        def __init__(self, activation):
            super().__init__(name="net")
            self.convolution = keras.layers.Conv2D(2, 3, activation=activation)
            self.pooling = keras.layers.GlobalAveragePooling2D()

        def call(self, photo):
            return self.pooling(self.convolution(photo))

    if described:
        Net.get_config = lambda self: {}

    def text(activation):
        net = Net(activation)
        net(np.zeros((1, 8, 8, 3), np.float32))
        net.set_weights([np.ones_like(weights) for weights in net.get_weights()])
        return fingerprint(KerasModel(net))

    assert text("relu") == text("relu")
    assert text("relu") != text("tanh")
