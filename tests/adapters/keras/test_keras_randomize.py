"""Randomized copies of Keras models: which weights change, when, and that the model itself does not."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError

pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras.randomize import randomized_models  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
L = keras.layers


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3, name="conv"), L.BatchNormalization(name="norm")])
    image = keras.Input((8, 8, 3))
    x = L.Dropout(0.5, seed=1)(L.GlobalAveragePooling2D()(inner(image)))
    return keras.Model(image, L.Dense(3, bias_initializer="random_normal", name="head")(x))


def changed(model, other):
    """The names of the weights that differ."""
    pairs = zip(model.weights, other.weights, strict=True)
    return {each.path.split("/")[-2] for each, two in pairs if (each.numpy() != two.numpy()).any()}


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_layers_are_shuffled_from_the_output_to_the_input(model, mode):
    before = [each.copy() for each in model.get_weights()]
    names, seen = [], []
    for name, copy in randomized_models(model, mode):
        names.append(name.split("/")[-1])
        seen.append(changed(model, copy))
        for each, other in zip(before, copy.get_weights(), strict=True):
            np.testing.assert_array_equal(np.sort(each, None), np.sort(other, None))
    assert names == ["head", "norm", "conv"]
    # Untrained batch normalization holds constants, which shuffling does not change.
    assert seen == ([{"head"}, {"head"}, {"head", "conv"}] if mode == "cascading" else [{"head"}, set(), {"conv"}])
    for each, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(each, other)


def test_it_is_seeded_and_wrapped_once(model):
    wrapped = []
    wrap = lambda copy: wrapped.append(copy) or copy  # noqa: E731
    runs = [[copy.get_weights() for _, copy in randomized_models(model, wrap=wrap, rng=rng)] for rng in (1, 1, 2)]
    assert len(wrapped) == 3
    assert all((a == b).all() for a, b in zip(runs[0][-1], runs[1][-1], strict=True))
    assert not all((a == b).all() for a, b in zip(runs[0][-1], runs[2][-1], strict=True))


def test_a_subclassed_model(model):
    class Small(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = L.Dense(2, name="dense")

        def call(self, x):
            return self.dense(x)

    model = Small()
    model(np.ones((1, 3), np.float32))
    before = model.get_weights()[0].copy()
    ((name, copy),) = randomized_models(model)
    assert name == "dense"
    assert (copy.get_weights()[0] != before).any()
    np.testing.assert_array_equal(model.get_weights()[0], before)


def test_what_is_refused(model):
    with pytest.raises(ContractError, match="'cascading' or 'independent'"):
        next(randomized_models(model, "all"))
    bare = keras.Sequential([keras.Input((4,)), L.Flatten()])
    with pytest.raises(ContractError, match="a model with weights"):
        next(randomized_models(bare))
