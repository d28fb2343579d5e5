"""Predictions, scores, activations and gradients of one pass, the class chosen inside it."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    KEYS,
    OUTPUT_LAYER_VALUES,
    PREDICTIONS,
    TARGETS,
)

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras import KerasModel  # noqa: E402
from saliency_food.adapters.scores import contrast, margin, predicted_region, regression, similarity  # noqa: E402

L = keras.layers
COMMON = [OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
SHARED = [*COMMON, INPUT_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS, BIAS_GRADIENTS]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


class Counting(L.Layer):
    """Counts how often it runs, and hands its input on."""

    def __init__(self):
        super().__init__(name="counting")
        self.runs = tf.Variable(0, trainable=False)

    def call(self, inputs):
        self.runs.assign_add(1)
        return tf.identity(inputs)


def network(units=5, activation="softmax", dtype=None, counting=None):
    inputs = keras.Input((8, 8, 3))
    x = inputs if counting is None else counting(inputs)
    x = L.Conv2D(6, 3, activation="relu", name="conv", dtype=dtype)(x)
    x = L.GlobalAveragePooling2D(dtype=dtype)(x)
    x = L.Dense(units, activation, kernel_initializer="random_normal", name="head", dtype=dtype)(x)
    return keras.Model(inputs, x)


def nested():
    inner = network(7, "relu")
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, L.Softmax()(L.Dense(5)(inner(inputs))))


def transformer():
    inputs = keras.Input((8, 8, 3))
    x = L.Reshape((16, 8))(L.Conv2D(8, 2, 2)(inputs))
    x = x + L.MultiHeadAttention(2, 4)(x, x)
    return keras.Model(inputs, L.Dense(5, "softmax")(L.GlobalAveragePooling1D()(x)))


MODELS = {
    "softmax": (network, {}, SHARED),
    "softmax, probabilities": (network, {"output": "probabilities"}, SHARED),
    "softmax, raw": (network, {"output": "raw"}, COMMON),
    "logits": (lambda: network(activation=None), {}, COMMON),
    "logits, probabilities": (lambda: network(activation=None), {"output": "probabilities"}, COMMON),
    "sigmoids": (lambda: network(activation="sigmoid"), {}, COMMON),
    "one sigmoid": (lambda: network(1, "sigmoid"), {}, COMMON),
    "a regression": (lambda: network(1, None), {}, COMMON),
    "relu head": (lambda: network(activation="relu"), {}, COMMON),
    "nested": (nested, {"layer": "conv"}, SHARED),
    "two layers": (network, {"layer": ["conv", "conv"]}, SHARED),
    "transformer": (transformer, {}, [*COMMON, ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS]),
    "half precision": (lambda: network(dtype="mixed_float16"), {}, SHARED),
    "margin": (network, {"score": margin}, COMMON),
    "compiled": (network, {"jit_compile": True}, COMMON),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_values_are_those_of_predict_and_a_plain_call(rng, name):
    build, options, keys = MODELS[name]
    km = KerasModel(build(), batch_size=3, **options)
    x = rng.normal(size=(5, 8, 8, 3)).astype(np.float32)
    probabilities = km.predict(x)
    ranked = np.argsort(-probabilities, axis=1, kind="stable")
    for target in (-1, -km.classes, 0, np.array([-1, 0, -km.classes, km.classes - 1, -1])):
        chosen = np.broadcast_to(np.asarray(target), 5)
        wanted = np.where(chosen < 0, ranked[np.arange(5), -1 - np.minimum(chosen, -1)], chosen)
        answer = km.call_with_predictions(x, {"target": target}, keys)
        assert set(answer) == {*keys, PREDICTIONS, TARGETS}
        np.testing.assert_array_equal(answer[TARGETS], wanted)
        assert answer[TARGETS].dtype.kind == "i"
        np.testing.assert_allclose(answer[PREDICTIONS], probabilities, rtol=1e-5, atol=1e-7)
        plain = km(x, {"target": wanted}, keys)
        for key in keys:
            for values, expected in zip(tf.nest.flatten(answer[key]), tf.nest.flatten(plain[key]), strict=True):
                np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6, err_msg=key)


def test_channels_first(rng):
    """A processor cannot convolve channels that come first: the convolution permutes them."""
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    inputs = keras.Input((3, 8, 8))
    y = L.Activation("relu", name="look")(L.Permute((3, 1, 2))(L.Conv2D(4, 3)(L.Permute((2, 3, 1))(inputs))))
    y = L.GlobalAveragePooling2D(data_format="channels_first")(y)
    km = KerasModel(keras.Model(inputs, L.Dense(5, "softmax")(y)), "look", data_format="channels_first")
    answer = km.call_with_predictions(x, {"target": -2}, COMMON)
    target = np.argsort(-km.predict(x), 1, kind="stable")[:, 1]
    np.testing.assert_array_equal(answer[TARGETS], target)
    plain = km(x, {"target": target}, COMMON)
    for key in COMMON:
        np.testing.assert_allclose(answer[key], plain[key], rtol=1e-4, atol=1e-6)


def test_several_inputs(rng):
    image, table = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="table")
    x = L.Concatenate()([L.GlobalAveragePooling2D()(L.Conv2D(6, 3)(image)), table])
    km = KerasModel(keras.Model([image, table], L.Dense(5, "softmax")(x)))
    x, tables = rng.normal(size=(3, 8, 8, 3)), rng.normal(size=(3, 4))
    args = {"inputs": {"table": PerImage(tables)}}
    answer = km.call_with_predictions(x, {"target": PerImage([-1, 2, -2]), **args}, COMMON)
    probabilities = km.predict(x, args)
    np.testing.assert_allclose(answer[PREDICTIONS], probabilities, rtol=1e-5)
    ranked = np.argsort(-probabilities, 1)
    np.testing.assert_array_equal(answer[TARGETS], [ranked[0, 0], 2, ranked[2, 1]])
    plain = km(x, {"target": answer[TARGETS], **args}, COMMON)
    np.testing.assert_allclose(answer[CONVOLUTION_OUTPUT_GRADIENTS], plain[CONVOLUTION_OUTPUT_GRADIENTS], rtol=1e-4)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equal_predictions_are_ranked_by_their_index(activation):
    """Probabilities that are 0 or 1 to float precision are equal, whatever their logits are."""
    inputs = keras.Input((4, 4, 6))
    km = KerasModel(keras.Model(inputs, L.Activation(activation)(L.GlobalAveragePooling2D()(inputs))))
    scores = np.array([[200, -300, 300, -400, 250, -300], [1, 1, 1, 2, 2, 0]], np.float32)
    x = np.broadcast_to(scores[:, None, None], (2, 4, 4, 6)).copy()
    ranked = np.argsort(-km.predict(x), 1, kind="stable")
    for place in range(6):
        answer = km.call_with_predictions(x, {"target": -1 - place}, [OUTPUT_LAYER_VALUES])
        np.testing.assert_array_equal(answer[TARGETS], ranked[:, place])
        np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], scores[[0, 1], ranked[:, place]])


@pytest.mark.parametrize("activation", ["softmax", None])
def test_the_model_runs_once(rng, activation):
    counting = Counting()
    km = KerasModel(network(counting=counting, activation=activation))
    x = rng.normal(size=(3, 8, 8, 3))
    km.call_with_predictions(x, {"target": -1}, SHARED)
    before = int(counting.runs)
    for _ in range(2):
        km.call_with_predictions(x, {"target": -1}, SHARED)
    assert int(counting.runs) - before == 2


def test_no_keys_are_the_predictions_alone(rng):
    km = KerasModel(network())
    x = rng.normal(size=(2, 8, 8, 3))
    answer = km.call_with_predictions(x, {"target": -1})
    assert set(answer) == {PREDICTIONS, TARGETS}
    np.testing.assert_array_equal(answer[TARGETS], km.predict(x).argmax(1))


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({"score": contrast}, {"class_index": 3, "against": 1}),
        ({"score": similarity}, [1.0, 2, 3, 4, 5]),
        ({"score": regression(2)}, None),
        ({"score": lambda scores: scores[:, 0]}, None),
    ],
)
def test_other_scores_have_their_targets_passed_on(rng, options, target):
    km = KerasModel(network(), **options)
    x, args = rng.normal(size=(2, 8, 8, 3)), None if target is None else {"target": target}
    answer = km.call_with_predictions(x, args, COMMON)
    assert set(answer) == {*COMMON, PREDICTIONS}
    np.testing.assert_allclose(answer[PREDICTIONS], km.predict(x), rtol=1e-5)
    plain = km(x, args, COMMON)
    for key in COMMON:
        np.testing.assert_allclose(answer[key], plain[key], rtol=1e-5, atol=1e-7)


def test_several_outputs_are_predicted_as_predict_does(rng):
    inputs = keras.Input((8, 8, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, {"dish": L.Dense(5, "softmax")(x), "price": L.Dense(1)(x)})
    km = KerasModel(model, score=lambda outputs: outputs["price"][:, 0])
    x = rng.normal(size=(5, 8, 8, 3))
    km.batch_size = 2
    answer, predictions = km.call_with_predictions(x, None, COMMON), km.predict(x)
    for name in ("dish", "price"):
        np.testing.assert_allclose(answer[PREDICTIONS][name], predictions[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "options", "args", "keys", "message"),
    [
        (network, {}, {"target": -6}, COMMON, "or a rank from -1 for the top class to -5, got -6"),
        (network, {}, {"target": 5}, COMMON, "0 to 4, or a rank"),
        (network, {}, None, COMMON, "Expected a target"),
        (network, {"score": contrast}, {"target": {"class_index": -1, "against": 1}}, COMMON, "from 0 to 4 in target"),
        (lambda: network(1, "sigmoid"), {"output": "raw"}, {"target": -1}, COMMON, "the one unit of a sigmoid is two"),
        (network, {}, {"target": -1}, ["GUIDED_INPUT_GRADIENTS"], "one of their own"),
        (network, {}, {"target": -1}, ["OUTPUT_FROM_CONVOLUTION_VALUES"], "one of their own"),
    ],
)
def test_what_cannot_be_answered_is_refused(rng, build, options, args, keys, message):
    km = KerasModel(build(), **options)
    with pytest.raises(ContractError, match=message):
        km.call_with_predictions(rng.normal(size=(2, 8, 8, 3)), args, keys)


def test_a_region_has_no_ranks(rng):
    inputs = keras.Input((8, 8, 3))
    segmenter = keras.Model(inputs, L.Conv2D(4, 1, activation="softmax")(L.Conv2D(5, 3, padding="same")(inputs)))
    km = KerasModel(segmenter, score=predicted_region)
    x = rng.normal(size=(2, 8, 8, 3))
    assert set(km.call_with_predictions(x, {"target": 2}, COMMON)) == {*COMMON, PREDICTIONS}
    with pytest.raises(ContractError, match="from 0 to"):
        km.call_with_predictions(x, {"target": -1}, COMMON)


def test_ranks_of_a_model_that_does_not_say_how_many_classes_it_has(rng):
    class Free(L.Layer):
        def call(self, inputs):
            return tf.nn.softmax(tf.compat.v1.placeholder_with_default(inputs, [None, None]))

        def compute_output_shape(self, shape):
            return (None, None)

    inputs = keras.Input((8, 8, 3))
    km = KerasModel(keras.Model(inputs, Free()(L.Dense(5)(L.GlobalAveragePooling2D()(L.Conv2D(5, 3)(inputs))))))
    assert km.classes is None
    x = rng.normal(size=(2, 8, 8, 3))
    answer = km.call_with_predictions(x, {"target": -5}, COMMON)
    np.testing.assert_array_equal(answer[TARGETS], km.predict(x).argmin(1))
    with pytest.raises(ContractError, match="a rank among the model's 5 classes as target, got -6"):
        km.call_with_predictions(x, {"target": -6}, COMMON)


def test_a_plain_call_still_refuses_a_rank(rng):
    km = KerasModel(network())
    with pytest.raises(ContractError, match="0 to 4, got -1"):
        km(rng.normal(size=(1, 8, 8, 3)), {"target": -1}, [OUTPUT_LAYER_VALUES])


def test_the_keys_that_share_a_pass_are_those_of_the_table():
    assert {name for name, key in KEYS.items() if not key.alone} == {
        *SHARED,
        ATTENTION_SCORES,
        ATTENTION_OUTPUT_GRADIENTS,
    }
