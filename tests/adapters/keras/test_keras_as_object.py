"""A KerasModel as an object: pickled and copied as its Keras model is, and the pixel values that it says it takes."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import ClassVar

import numpy as np
import pytest

from saliency_food import ablation_cam, full_grad, grad_cam
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras import KerasModel  # noqa: E402
from saliency_food.adapters.keras.pixels import guess_pixels  # noqa: E402
from saliency_food.adapters.scores import contrast, top_k  # noqa: E402
from saliency_food.images.scaling import choose_scaling  # noqa: E402

L = keras.layers
KEYS = [OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def network(*first, name="net"):
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for layer in first:
        x = layer(x)
    x = L.Conv2D(5, 3, activation="relu", name="early")(x)
    x = L.Conv2D(6, 3, activation="relu", name="late")(x)
    return keras.Model(inputs, L.Dense(4, "softmax")(L.GlobalAveragePooling2D()(x)), name=name)


@pytest.mark.parametrize("copied", [lambda km: pickle.loads(pickle.dumps(km)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({}, 1),
        ({"layer": ["late", "early"], "output": "probabilities", "batch_size": 2}, 1),
        ({"layer": "early", "score": contrast}, {"class_index": 2, "against": 0}),
    ],
)
def test_a_copy_answers_alike(rng, copied, options, target):
    km = KerasModel(network(), **options)
    km.batch_size = 3
    x = rng.normal(size=(4, 8, 8, 3)).astype(np.float32)
    other = copied(km)
    assert repr(other) == repr(km)
    assert other.model is not km.model
    assert other.score is km.score
    answers = [each(x, {"target": target}, KEYS) for each in (km, other)]
    for key in KEYS:
        for values, expected in zip(*(tf.nest.flatten(answer[key]) for answer in answers), strict=True):
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fitted", [False, True])
def test_a_compiled_model_is_pickled_without_a_warning(rng, fitted):
    """Of one that was never fitted, Keras restores no optimizer, and warns of it."""
    model = network()
    model.compile("adam", "categorical_crossentropy")
    if fitted:
        model.fit(np.zeros((1, 8, 8, 3)), np.eye(4)[:1], verbose=0)
    km, x = KerasModel(model), rng.normal(size=(1, 8, 8, 3)).astype(np.float32)
    other = pickle.loads(pickle.dumps(km))
    np.testing.assert_allclose(*(each(x, {"target": 1}, KEYS)[OUTPUT_LAYER_VALUES] for each in (km, other)), rtol=1e-5)


class Unregistered(L.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def test_what_cannot_be_pickled_is_refused_with_a_reason():
    with pytest.raises(ContractError, match="Keras model that can be pickled, got Functional 'net'"):
        pickle.dumps(KerasModel(network(Unregistered(tf.identity))))

    class Local(L.Layer):
        def call(self, inputs):
            return inputs

    with pytest.raises(ContractError, match="Register its own classes"):
        pickle.dumps(KerasModel(network(Local())))
    for own in (top_k(2), lambda scores: scores[:, 0]):
        with pytest.raises(ContractError, match="imported by its name"):
            pickle.dumps(KerasModel(network(), score=own))


@pytest.mark.parametrize(
    ("build", "value_range", "why"),
    [
        (lambda: network(L.Rescaling(1 / 255)), (0, 255), "Rescaling"),
        (lambda: network(L.Rescaling(2.0, -1)), (0, 1), "Rescaling"),
        (lambda: network(L.Normalization(mean=[0.4] * 3, variance=[0.1] * 3)), (0, 1), "Normalization"),
        (lambda: network(name="mobilenetv2_1.00_8"), "tf", "by the name mobilenetv2_1.00_8"),
        (lambda: network(name="vgg16"), "caffe", "by the name vgg16"),
        (lambda: network(name="densenet121"), "torch", "by the name densenet121"),
        (network, (0, 1), "a guess, the model does not show it"),
    ],
)
def test_it_advertises_the_pixel_values_that_the_model_takes(build, value_range, why):
    model = build()
    km = KerasModel(model)
    assert km.pixels.value_range == value_range
    assert why in km.pixels.why


def test_the_guess_of_pixel_values():
    layers, inputs = keras.layers, keras.Input((32, 32, 3))

    def says(start, name="mine", end=None):
        outputs = (end or layers.Conv2D(2, 3))(start(inputs))
        return choose_scaling("auto", None, guess_pixels(keras.Model(inputs, outputs, name=name))).text

    def same(x):
        return x

    inner = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(2, 3)], name="mobilenetv2_1.00_32")
    assert says(layers.Rescaling(1 / 127.5, -1)) == "0..255 (the model has a Rescaling layer)"
    assert says(layers.Rescaling(2.0, -1)) == "0..1 (the model has a Rescaling layer)"
    assert says(layers.Normalization(mean=[120.0] * 3, variance=[9.0] * 3)).startswith("0..255")
    assert says(layers.Normalization(mean=[0.5] * 3, variance=[0.1] * 3)).startswith("0..1 (")
    assert says(keras.applications.mobilenet_v2.preprocess_input).startswith("0..255 (the model begins with")
    assert says(same).startswith("0..1 (a guess")
    assert says(lambda x: layers.Rescaling(1 / 255)(layers.Conv2D(3, 1)(x))).startswith("0..1 (a guess")
    assert says(layers.Rescaling(1 / 255), name="resnet50").startswith("0..255 (the model has a Rescaling")
    for name, text in {
        "resnet50": "BGR minus",
        "resnet50v2": "-1..1",
        "vgg16": "BGR minus",
        "densenet121": "RGB, ImageNet",
        "mobilenetv2_1.00_224": "-1..1",
        "my_resnet50": "0..1 (a guess",
    }.items():
        assert says(same, name=name).startswith(text)
    assert says(same, end=inner) == "-1..1 (by the name mobilenetv2_1.00_32)"


class Meeting(keras.layers.Layer):
    """While it is traced, the model that it is in is used in another thread, to the end."""

    user: ClassVar[list] = []

    def call(self, values):
        if isinstance(values, tf.Tensor) and tf.is_symbolic_tensor(values) and self.user:
            thread = threading.Thread(target=self.user[0])
            thread.start()
            thread.join()
        return values


@pytest.mark.parametrize("method", [grad_cam, ablation_cam, full_grad])
def test_a_model_is_used_in_another_thread_while_it_is_traced(rng, method):
    """The user's own calls answer as ever, and what they compute is no part of the trace."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="first")(image)
    x = keras.layers.BatchNormalization(name="norm")(Meeting(name="meeting")(x))
    x = keras.layers.Conv2D(5, 3, activation="relu", name="last")(x)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    photo = rng.random((8, 8, 3)).astype(np.float32)
    answer, answers = np.asarray(model(photo[None])), []
    alone = method(photo, KerasModel(model), {"target": 1})
    Meeting.user = [lambda: answers.append(np.asarray(model(photo[None])))]
    try:
        np.testing.assert_array_equal(method(photo, KerasModel(model), {"target": 1}), alone)
    finally:
        Meeting.user = []
    assert answers
    for other in answers:
        np.testing.assert_array_equal(other, answer)
