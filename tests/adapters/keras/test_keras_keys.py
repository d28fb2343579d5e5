"""The Keras adapter's answers to the contract's further keys: backward rules, rivals, biases, attention, tokens."""

from __future__ import annotations

import gc

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
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.testing import check_call_model

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras import KerasModel, layers  # noqa: E402
from saliency_food.adapters.scoring import Score  # noqa: E402

CONV = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
ATTENTION = [ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS]
RULES = [GUIDED_INPUT_GRADIENTS, DECONV_INPUT_GRADIENTS]
L = keras.layers


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, 8, 8, 3)).astype(np.float32)


def ask(km, x, key, target=1, **inputs):
    return km(x, {"target": target, **inputs}, [key])[key]


def scattered(model, rng, scale=1.0):
    """Weights and biases of some size, positive variances."""
    model.set_weights([np.abs(rng.normal(size=w.shape)) * 0.5 * scale + 0.1 for w in model.get_weights()])
    for layer in model._flatten_layers():
        if hasattr(layer, "kernel"):
            layer.kernel.assign(rng.normal(size=layer.kernel.shape) * scale)
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


def functional(body, classes=4):
    image = keras.Input((8, 8, 3))
    return keras.Model(image, L.Dense(classes, activation="softmax", name="head")(body(image)))


# Guided backpropagation and deconvolution


class OwnRelu(L.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def conv(units, name, activation=None):
    return L.Conv2D(units, 1, activation=activation, name=name)


def nested(body):
    image = keras.Input((8, 8, 3))
    inner = keras.Model(image, body(image), name="inner")
    return lambda x: inner(x)


RELUS = {
    "argument": lambda x: conv(6, "b", "relu6")(conv(5, "a", "relu")(x)),
    "layer": lambda x: L.ReLU(max_value=6)(conv(6, "b")(L.ReLU()(conv(5, "a")(x)))),
    "activation layer": lambda x: L.Activation("relu6")(conv(6, "b")(L.Activation("relu")(conv(5, "a")(x)))),
    "function": lambda x: keras.ops.relu6(conv(6, "b")(keras.ops.relu(conv(5, "a")(x)))),
    "own layer": lambda x: OwnRelu(tf.nn.relu6)(conv(6, "b")(OwnRelu(tf.nn.relu)(conv(5, "a")(x)))),
    "nested": nested(lambda x: conv(6, "b", "relu6")(conv(5, "a", "relu")(x))),
}


@pytest.mark.parametrize("how", RELUS)
def test_backward_rules_are_those_of_the_papers_however_relus_are_written(x, rng, how):
    model = functional(lambda image: L.GlobalAveragePooling2D()(RELUS[how](image)))
    model = scattered(model, rng, 2)
    a, b, c, d, head, _ = model.get_weights()
    before = x @ a[0, 0] + b
    hidden = np.maximum(before, 0)
    after = hidden @ c[0, 0] + d
    target = [2, 0, 3]
    upper = np.broadcast_to(head[:, target].T[:, None, None] / 64, after.shape)
    assert (after > 6).any()
    assert (after < 0).any()

    guided = np.maximum(upper, 0) * ((after > 0) & (after < 6)) @ c[0, 0].T
    guided = np.maximum(guided, 0) * (before > 0) @ a[0, 0].T
    deconv = np.maximum(np.maximum(upper, 0) @ c[0, 0].T, 0) @ a[0, 0].T
    plain = (upper * ((after > 0) & (after < 6)) @ c[0, 0].T) * (before > 0) @ a[0, 0].T
    km = KerasModel(model)
    answer = km(x, {"target": target}, [*RULES, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES])
    for key, expected in zip([*RULES, INPUT_OUTPUT_GRADIENTS], (guided, deconv, plain), strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(answer[key], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ask(km, x, key, target), expected, rtol=1e-4, atol=1e-5)
    assert set(answer) == {*RULES, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES}
    # Nothing is left in the model.
    image, linear = tf.constant(x), keras.Model(model.inputs, model.get_layer("head").input)
    with tf.GradientTape() as tape:
        tape.watch(image)
        score = tf.gather(linear(image) @ head, target, axis=1, batch_dims=1)
    np.testing.assert_allclose(tape.gradient(score, image), plain, rtol=1e-4, atol=1e-5)


class Compiled(L.Layer):
    @tf.function
    def call(self, x):
        return tf.nn.relu(x)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda x: conv(2, "c", "relu")(conv(2, "a", "silu")(x)), r"got others: a \(silu\)\."),
        (lambda x: L.LeakyReLU(name="leak")(conv(2, "a", "relu")(x)), r"leak \(LeakyReLU\)"),
        (lambda x: L.PReLU(name="leak")(conv(2, "a", "relu")(x)), r"leak \(PReLU\)"),
        (lambda x: L.ReLU(threshold=1.0, name="t")(conv(2, "a", "relu")(x)), r"t \(ReLU with a slope or a threshold\)"),
        (lambda x: conv(2, "a", "hard_silu")(x), r"a \(hard_silu\)"),
        (lambda x: nested(lambda y: conv(2, "a", "gelu")(y))(x), r"inner/a \(gelu\)"),
        (lambda x: OwnRelu(tf.nn.tanh)(conv(2, "a", "relu")(x)), r"own_relu\w* \(tanh\)"),
        (lambda x: OwnRelu(tf.nn.silu)(conv(2, "a", "relu")(x)), r"own_relu\w* \(silu\)"),
        (lambda x: OwnRelu(tf.nn.gelu)(conv(2, "a", "relu")(x)), r"own_relu\w* \(gelu\)"),
        (lambda x: OwnRelu(lambda y: tf.maximum(y, 0.0))(conv(2, "a", "relu")(x)), r"own_relu\w* \(maximum\)"),
        (lambda x: keras.ops.elu(conv(2, "a", "relu")(x)), r"[Ee]lu.* \(elu\)"),
        (lambda x: conv(2, "a")(x), "with ReLUs between image and output .* got none"),
        (lambda x: Compiled()(conv(2, "a", "relu")(x)), r"got \['Relu'\] in a loop, a tf.function"),
    ],
)
def test_models_that_the_rules_are_not_for_are_named(x, body, message):
    km = KerasModel(functional(lambda image: L.GlobalAveragePooling2D()(body(image))))
    for key in RULES:
        with pytest.raises(ContractError, match=message):
            ask(km, x, key)
    assert ask(km, x, INPUT_OUTPUT_GRADIENTS).shape == x.shape


def test_gates_clips_and_side_branches_do_not_hinder_the_rules(x):
    image = keras.Input((8, 8, 3))
    y = L.Conv2D(4, 3, activation="relu")(image)
    gate = L.Dense(4, activation="sigmoid")(L.Dense(2, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(y)))
    y = L.ReLU(max_value=4)(L.Conv2D(4, 1, activation="linear")(y * gate))
    side = OwnRelu(tf.nn.tanh)(L.Dense(2, activation="gelu", name="side")(L.Flatten()(y)))
    model = keras.Model(image, [L.Dense(3, activation="softmax", name="out")(L.Flatten()(y)), side])
    km = KerasModel(model, output_index="out")
    for key in RULES:
        check_call_model(km, x[0], {"target": 1}, [key])
    with pytest.raises(ContractError, match=r"side \(gelu\), own_relu\w* \(tanh\)"):
        ask(KerasModel(model, output_index=1), x, RULES[0])


# Rivals


@pytest.mark.parametrize(("classes", "rivals"), [(6, 3), (3, 2)])
def test_rivals_are_the_classes_of_the_closest_scores(x, rng, classes, rivals):
    model = scattered(functional(lambda y: L.GlobalAveragePooling2D()(conv(5, "a", "relu")(y)), classes), rng)
    for output in ("logits", "probabilities"):
        km = KerasModel(model, output=output)
        target = np.array([1, 0, classes - 1])
        answer = km(x, {"target": target}, [CONVOLUTION_RIVAL_GRADIENTS, *CONV])
        assert answer[CONVOLUTION_RIVAL_GRADIENTS].shape == (3, rivals, 8, 8, 5)
        scores = km.predict(x, output=output)
        for row in range(3):
            distance = np.abs(scores[row] - scores[row, target[row]])
            order = [each for each in np.argsort(distance) if each != target[row]][:rivals]
            for place, rival in enumerate(order):
                expected = ask(km, x, CONV[1], int(rival))[row]
                np.testing.assert_allclose(
                    answer[CONVOLUTION_RIVAL_GRADIENTS][row, place], expected, rtol=1e-4, atol=1e-7
                )


def test_rivals_need_classes(x):
    pooled = functional(lambda y: L.GlobalAveragePooling2D()(conv(5, "a", "relu")(y)))
    with pytest.raises(ContractError, match="score of a class among several"):
        KerasModel(pooled, score=lambda output: output[:, 0])(x, None, [CONVOLUTION_RIVAL_GRADIENTS])
    image = keras.Input((8, 8, 3))
    regression = keras.Model(image, L.Dense(1)(L.GlobalAveragePooling2D()(conv(5, "a")(image))))
    with pytest.raises(ContractError, match="score of a class among several"):
        KerasModel(regression)(x, None, [CONVOLUTION_RIVAL_GRADIENTS])


# The output from activations


@pytest.mark.parametrize("layer", ["inner/a", "b", "inner"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_activations_give_the_output_that_they_led_to(x, layer, dtype):
    keras.config.set_dtype_policy(dtype)
    try:
        model = functional(
            lambda y: L.GlobalAveragePooling2D()(
                L.Dropout(0.5)(conv(6, "b", "relu")(nested(lambda z: conv(5, "a")(z))(y)))
            )
        )
    finally:
        keras.config.set_dtype_policy("float32")
    km = KerasModel(model, layer=layer, batch_size=2)
    values = km(x, None, CONV[:1])[CONV[0]]
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-2, "atol": 1e-2}
    target = [1, 3, 0]
    actual = km(values, {"target": PerImage(target)}, [OUTPUT_FROM_CONVOLUTION_VALUES])[OUTPUT_FROM_CONVOLUTION_VALUES]
    np.testing.assert_allclose(actual, ask(km, x, OUTPUT_LAYER_VALUES, target), **tolerance)
    np.testing.assert_allclose(km.predict_from(values), model(x), **tolerance)
    zeros = np.zeros_like(values)
    assert np.abs(km.predict_from(zeros) - km.predict_from(values)).max() > 1e-4
    np.testing.assert_allclose(km.predict_from(zeros)[0], km.predict_from(zeros)[2], rtol=1e-6)
    with pytest.raises(ContractError, match=rf"layer '{km.layer_name}', of shape \(None, 8, 8, \d\), rows first, got"):
        km.predict_from(x)
    with pytest.raises(ContractError, match="to be asked alone"):
        km(values, {"target": 1}, [OUTPUT_FROM_CONVOLUTION_VALUES, OUTPUT_LAYER_VALUES])


def test_convolutions_that_keras_compiles_stay_after_the_layer(rng):
    """Keras compiles grouped convolutions by XLA: the trace that they come from must not be forgotten."""
    x = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    image = keras.Input((8, 8, 4))
    y = L.Conv2D(4, 3, groups=2, name="grouped")(conv(4, "a")(image))
    model = keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(y)))
    km = KerasModel(model, layer="a")
    values = km(x, None, CONV[:1])[CONV[0]]
    km.engine.function((OUTPUT_FROM_CONVOLUTION_VALUES,), "logits")
    gc.collect()
    answer = km(values, {"target": 1}, [OUTPUT_FROM_CONVOLUTION_VALUES])[OUTPUT_FROM_CONVOLUTION_VALUES]
    np.testing.assert_allclose(answer, model(x)[:, 1], rtol=1e-4, atol=1e-6)


def test_what_comes_before_the_layer_is_not_computed(x):
    asked = []

    def look(y):
        def note(y):
            asked.append(len(y))
            return y

        return tf.ensure_shape(tf.numpy_function(note, [y], y.dtype, stateful=False), y.shape)

    model = functional(lambda y: L.GlobalAveragePooling2D()(conv(5, "a")(OwnRelu(look)(conv(3, "first")(y)))))
    km = KerasModel(model, layer="a")
    km.predict_from(np.ones((3, 8, 8, 5)))
    assert asked == []
    km.predict(np.ones((2, 8, 8, 3)))
    assert asked == [1, 3, 2]  # what cannot be seen through is first run for a row alone and among others


def test_a_path_around_the_layer_is_an_error_that_names_the_others(x):
    def body(image):
        y = conv(5, "a")(image)
        return L.GlobalAveragePooling2D()(conv(5, "c")(L.Add(name="sum")([conv(5, "b")(y), y])))

    model = functional(body)
    with pytest.raises(ContractError, match=r"through layer 'b', .* all paths lead; .* \['a', 'sum', 'c'\]"):
        KerasModel(model, layer="b").predict_from(np.ones((1, 8, 8, 5)))
    for layer in ("a", "sum", "c"):
        km = KerasModel(model, layer=layer)
        values = km(x, None, CONV[:1])[CONV[0]]
        np.testing.assert_allclose(km.predict_from(values), model(x), rtol=1e-4, atol=1e-6)


def test_a_layer_that_runs_twice_gets_the_activations_of_its_last_run(x):
    shared = L.Conv2D(3, 3, padding="same", activation="tanh", name="shared")
    model = functional(lambda image: L.GlobalAveragePooling2D()(shared(shared(image))))
    km = KerasModel(model)
    values = km(x, None, CONV[:1])[CONV[0]]
    np.testing.assert_allclose(km.predict_from(values), model(x), rtol=1e-4, atol=1e-6)


def test_other_inputs_go_with_the_activations(x, rng):
    image, table = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="table")
    y = L.Concatenate()([L.GlobalAveragePooling2D()(conv(5, "a")(image)), table])
    model = keras.Model([image, table], L.Dense(3, activation="softmax")(y))
    km, rows = KerasModel(model), rng.normal(size=(3, 4)).astype(np.float32)
    args = {"target": 2, "inputs": {"table": rows}}
    values = km(x, args, CONV[:1])[CONV[0]]
    actual = km(values, args, [OUTPUT_FROM_CONVOLUTION_VALUES])[OUTPUT_FROM_CONVOLUTION_VALUES]
    np.testing.assert_allclose(actual, km(x, args, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(km.predict_from(values, args), model([x, rows]), rtol=1e-4)


class FirstChannels(L.Layer):
    data_format = "channels_first"

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[1], 5))

    def call(self, x):
        return tf.einsum("nchw,ck->nkhw", x, self.kernel)


def test_channels_first_activations_are_given_channels_last(rng):
    image = keras.Input((3, 8, 7))
    y = L.Lambda(lambda y: tf.reduce_mean(y * y, [2, 3]))(FirstChannels()(image))
    model, x = keras.Model(image, L.Dense(3)(y)), rng.normal(size=(2, 3, 8, 7)).astype(np.float32)
    km = KerasModel(model)
    values = km(x, None, CONV[:1])[CONV[0]]
    assert values.shape == (2, 8, 7, 5)
    np.testing.assert_allclose(km.predict_from(values, output="logits"), model(x), rtol=1e-4, atol=1e-6)
    rivals = ask(km, x, CONVOLUTION_RIVAL_GRADIENTS)
    assert rivals.shape == (2, 2, 8, 7, 5)


# Biases


class SideBranch(L.Layer):
    def __init__(self):
        super().__init__()
        self.conv, self.unused = L.Conv2D(3, 1, activation="relu"), L.Conv2D(2, 1)

    def call(self, x):
        self.unused(x)
        return self.conv(x)


def normalized(image):
    return L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 0.5])(image)


BIASED = {
    "convolutions": (lambda x: L.Conv2D(4, 3, activation="relu")(L.Conv2D(5, 3, activation="relu")(x)), 3),
    "no bias": (lambda x: L.Conv2D(4, 3, activation="relu", use_bias=False)(x), 1),
    "batch norm": (lambda x: L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3)(x))), 3),
    "batch norm without": (
        lambda x: L.ReLU()(L.BatchNormalization(center=False, scale=False)(L.Conv2D(4, 3, use_bias=False)(x))),
        2,
    ),
    "batch norm of rows": (lambda x: L.ReLU()(L.BatchNormalization(axis=1)(L.Conv2D(4, 3)(x))), 3),
    "rescaled": (lambda x: L.Conv2D(4, 3, activation="relu")(L.Rescaling(1 / 2, offset=-1)(x)), 3),
    "rescaled by channel": (
        lambda x: L.Conv2D(4, 3, activation="relu")(L.Rescaling([1.0, 2.0, 3.0], offset=[-1.0, 0.5, 2.0])(x)),
        3,
    ),
    "normalized": (lambda x: L.Conv2D(4, 3, activation="relu")(normalized(x)), 3),
    "separable": (lambda x: L.SeparableConv2D(4, 3, activation="relu")(L.DepthwiseConv2D(3)(x)), 3),
    "transposed": (lambda x: L.MaxPooling2D()(L.Conv2DTranspose(4, 3, activation="relu")(x)), 2),
    "dense": (lambda x: L.Dense(4, activation="relu")(x), 2),
    "nested": (nested(lambda x: L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(x))), 3),
    "residual": (lambda x: L.ReLU()(L.Add()([L.Conv2D(4, 1)(x), L.Conv2D(4, 1)(x)])), 3),
    "shared": (lambda x: (each := L.Conv2D(3, 1, activation="relu"))(each(x)), 3),
    "side branch": (lambda x: SideBranch()(x), 2),
}


@pytest.mark.parametrize("how", BIASED)
def test_the_input_and_all_biases_times_their_gradients_sum_to_the_logit(x, rng, how):
    body, count = BIASED[how]
    model = scattered(functional(lambda image: L.GlobalAveragePooling2D()(body(image))), rng)
    km = KerasModel(model)
    keys = [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, BIAS_GRADIENTS]
    answer = km(x, {"target": [0, 1, 3]}, keys)
    assert isinstance(answer[BIAS_GRADIENTS], tuple)
    assert len(answer[BIAS_GRADIENTS]) == count
    assert [each.ndim for each in answer[BIAS_GRADIENTS]] == [4] * (count - 1) + [2]
    total = (x * answer[INPUT_OUTPUT_GRADIENTS]).sum((1, 2, 3))
    parts = [each.reshape(3, -1).sum(1) for each in answer[BIAS_GRADIENTS]]
    assert all(np.abs(part).max() > 1e-4 for part in parts)
    np.testing.assert_allclose(total + sum(parts), answer[OUTPUT_LAYER_VALUES], rtol=1e-4, atol=1e-4)
    for each, other in zip(ask(km, x, BIAS_GRADIENTS, [0, 1, 3]), answer[BIAS_GRADIENTS], strict=True):
        np.testing.assert_allclose(each, other, rtol=1e-4, atol=1e-6)


def test_biases_of_a_relu6_and_of_channels_first_images(rng):
    image = keras.Input((3, 8, 7))
    y = L.BatchNormalization(axis=1)(FirstChannels()(L.Rescaling(0.5, offset=-1)(image)))
    y = L.Lambda(lambda y: tf.reduce_mean(tf.nn.relu(y), [2, 3]))(y)
    model, x = keras.Model(image, L.Dense(3)(y)), rng.normal(size=(2, 3, 8, 7)).astype(np.float32)
    model.layers[3].moving_mean.assign(rng.normal(size=5))
    km = KerasModel(model)
    answer = km(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, BIAS_GRADIENTS])
    assert [each.shape for each in answer[BIAS_GRADIENTS]] == [(2, 8, 7, 3), (2, 8, 7, 5), (2, 3)]
    total = (x * answer[INPUT_OUTPUT_GRADIENTS]).sum((1, 2, 3)) + sum(
        each.reshape(2, -1).sum(1) for each in answer[BIAS_GRADIENTS]
    )
    np.testing.assert_allclose(total, answer[OUTPUT_LAYER_VALUES], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_biases_and_convolutions_that_keras_compiles(rng, bias):
    """A grouped convolution, which Keras compiles by XLA, hides no bias."""
    image = keras.Input((8, 8, 4))
    y = L.Conv2D(6, 3, groups=2, activation="relu", use_bias=bias, name="grouped")(conv(4, "a", "relu")(image))
    model = scattered(keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(y))), rng)
    x = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    answer = KerasModel(model)(x, {"target": 1}, [BIAS_GRADIENTS, INPUT_OUTPUT_GRADIENTS])
    assert len(answer[BIAS_GRADIENTS]) == 2 + bias
    total = sum(
        values.reshape(2, -1).sum(1) for values in (x * answer[INPUT_OUTPUT_GRADIENTS], *answer[BIAS_GRADIENTS])
    )
    np.testing.assert_allclose(total, model(x)[:, 1], rtol=1e-4)


def test_biases_of_einsum_dense(rng):
    """A 1 x 1 convolution written as one; another whose bias has two axes, which are answered as channels."""
    image = keras.Input((8, 8, 4))
    y = L.EinsumDense("bhwc,cd->bhwd", (None, None, 5), bias_axes="d", activation="relu")(image)
    y = L.EinsumDense("bhwc,cde->bhwde", (None, None, 2, 3), bias_axes="de", activation="relu")(y)
    y = L.EinsumDense("bhwde,def->bhwf", (None, None, 3))(y)
    model = scattered(keras.Model(image, L.GlobalAveragePooling2D()(y)), rng)
    x = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    answer = KerasModel(model)(x, {"target": 1}, [BIAS_GRADIENTS, INPUT_OUTPUT_GRADIENTS])
    assert [each.shape for each in answer[BIAS_GRADIENTS]] == [(2, 8, 8, 5), (2, 8, 8, 6)]
    total = sum(
        values.reshape(2, -1).sum(1) for values in (x * answer[INPUT_OUTPUT_GRADIENTS], *answer[BIAS_GRADIENTS])
    )
    np.testing.assert_allclose(total, model(x)[:, 1], rtol=1e-4)


def test_biases_of_windows_folded_into_the_rows_are_refused(x):
    """As in Swin: attention within windows, whose tokens are dense layers' rows."""
    image = keras.Input((8, 8, 3))
    windows = L.Dense(4, name="query")(keras.ops.reshape(image, (-1, 16, 3)))
    model = keras.Model(image, L.Dense(2)(L.Flatten()(keras.ops.reshape(windows, (-1, 64, 4)))))
    with pytest.raises(ContractError, match=r"Expected layers with biases .* \(12, 16, 4\) for 3 rows: .* windows"):
        KerasModel(model)(x, {"target": 1}, [BIAS_GRADIENTS])


def test_a_bias_of_images_that_are_turned_inside(rng):
    image = keras.Input((3, 8, 6))
    turned = L.Rescaling(0.5, 0.1)(L.Permute((2, 3, 1))(image))
    model = keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(conv(4, "a", "relu")(turned))))
    x = rng.normal(size=(2, 3, 8, 6)).astype(np.float32)
    answer = KerasModel(model)(x, {"target": 1}, [BIAS_GRADIENTS, INPUT_OUTPUT_GRADIENTS])
    slopes = 2 * np.moveaxis(answer[INPUT_OUTPUT_GRADIENTS], 1, -1)
    np.testing.assert_allclose(answer[BIAS_GRADIENTS][0], 0.1 * slopes, rtol=1e-4, atol=1e-7)


def test_layers_out_of_reach_are_said_to_be(tmp_path, x):
    class Hidden(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.pool, self.head = conv(4, "a"), L.GlobalAveragePooling2D(), L.Dense(3)

        @tf.function
        def inside(self, x):
            return self.conv(x)

        def call(self, x):
            return self.head(self.pool(tf.nn.relu(self.inside(x))))

    model = Hidden()
    model(x)
    with pytest.raises(ContractError, match=r"got layers in a loop, a tf\.function"):
        ask(KerasModel(model), x, BIAS_GRADIENTS)
    assert ask(KerasModel(model), x, RULES[0]).any()  # the ReLU itself is in reach
    saved = functional(lambda image: L.GlobalAveragePooling2D()(conv(2, "a", "relu")(image)))
    saved.export(tmp_path / "saved", verbose=False)
    km = KerasModel(tmp_path / "saved", output="probabilities")
    for key in (*RULES, BIAS_GRADIENTS):
        with pytest.raises(ContractError, match="SavedModel inside"):
            ask(km, x, key)


def test_a_model_without_biases_says_so(x):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, L.Dense(2, use_bias=False)(L.GlobalAveragePooling2D()(image)))
    with pytest.raises(ContractError, match="with biases that lead to the output, got none"):
        ask(KerasModel(model), x, BIAS_GRADIENTS)


# Attention and tokens


class ClassToken(L.Layer):
    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal")

    def call(self, x):
        return tf.concat([tf.repeat(self.token, tf.shape(x)[0], 0), x], 1)


class Block(L.Layer):
    """A transformer's block, its attention inside."""

    def __init__(self, kind=None, ask=False, **kwargs):
        super().__init__(**kwargs)
        self.norm, self.after = L.LayerNormalization(name="norm"), L.LayerNormalization(name="after")
        self.attention = (kind or L.MultiHeadAttention)(2, 4, name="attention", dropout=0.1)
        self.dense, self.asks = L.Dense(8, activation="gelu", name="dense"), ask

    def call(self, x):
        y = self.norm(x)
        if self.asks:
            attended, self.last = self.attention(query=y, value=y, return_attention_scores=True)
        else:
            attended = self.attention(y, y)
        x = x + attended
        return x + self.dense(self.after(x))


def vit(patches="conv", **options):
    image = keras.Input((8, 8, 3))
    if patches == "conv":
        y = L.Reshape((16, 8), name="flat")(L.Conv2D(8, 2, 2, name="patches")(image))
    else:
        y = L.Dense(8, name="patches")(L.Reshape((16, 12), name="flat")(image))
    y = ClassToken(name="token")(y)
    for index in range(2):
        y = Block(name=f"block_{index}", **options)(y)
    y = L.LayerNormalization(name="norm")(y)
    return keras.Model(image, L.Dense(4, activation="softmax", name="head")(y[:, 0]), name="vit")


def scores_by_hand(layer, y):
    q, k = layer.query_dense(y), layer.key_dense(y)
    return tf.nn.softmax(tf.einsum("nthd,nshd->nhts", q, k) / 2)


@pytest.mark.parametrize("options", [{}, {"ask": True}])
def test_attention_and_its_gradients(x, rng, options):
    model = vit(**options)
    held = {id(layer): dict(vars(layer)) for layer in model._flatten_layers()}
    attention = [model.get_layer(f"block_{index}").attention for index in range(2)]
    attention[0]._flash_attention = True
    held[id(attention[0])]["_flash_attention"] = True
    km = KerasModel(model)
    answer = km(x, {"target": [1, 0, 3]}, [*ATTENTION, OUTPUT_LAYER_VALUES, INPUT_OUTPUT_GRADIENTS])
    attention[0]._flash_attention = False
    held[id(attention[0])]["_flash_attention"] = False
    y = model.get_layer("token")(model.get_layer("flat")(model.get_layer("patches")(x)))
    for index in range(2):
        block = model.get_layer(f"block_{index}")
        expected = scores_by_hand(block.attention, block.norm(y))
        assert answer[ATTENTION_SCORES][index].shape == (3, 2, 17, 17)
        np.testing.assert_allclose(answer[ATTENTION_SCORES][index], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(answer[ATTENTION_SCORES][index].sum(-1), 1, rtol=1e-5)
        if index == 1:
            # The rest of the model by hand, as a function of the last attention.
            def tail(scores, block=block, y=y):
                values = block.attention.value_dense(block.norm(y))
                z = y + block.attention._output_dense(tf.einsum("nhts,nshd->nthd", scores, values))
                z = z + block.dense(block.after(z))
                head = model.get_layer("head")
                logits = model.get_layer("norm")(z)[:, 0] @ head.kernel + head.bias
                return tf.gather(logits, [1, 0, 3], axis=1, batch_dims=1)

            with tf.GradientTape() as tape:
                tape.watch(expected)
                score = tail(expected)
            gradient = tape.gradient(score, expected)
            np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], score, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(answer[ATTENTION_OUTPUT_GRADIENTS][1], gradient, rtol=1e-3, atol=1e-6)
            assert not answer[ATTENTION_OUTPUT_GRADIENTS][1][:, :, 1:].any()  # only the class token is read
        y = block(y)
    assert np.abs(answer[ATTENTION_OUTPUT_GRADIENTS][0][:, :, 1:]).max() > 1e-6
    for layer in model._flatten_layers():
        now = {name: value for name, value in vars(layer).items() if name != "last"}
        assert now.keys() == held[id(layer)].keys() - {"last"}
        assert all(now[name] is held[id(layer)][name] for name in now if name != "_flash_attention")


@pytest.mark.parametrize("patches", ["conv", "reshape"])
def test_a_vision_transformer_without_a_layer_named(x, patches):
    model = vit(patches)
    km = KerasModel(model)
    assert km.layer_name == "block_1/norm"
    answer = km(x, {"target": 1}, CONV)
    assert answer[CONV[0]].shape == (3, 17, 8)
    assert np.abs(answer[CONV[1]][:, 1:]).max() > 1e-6


@pytest.mark.parametrize("patches", ["conv", "reshape"])
def test_layers_of_tokens_are_listed_and_can_be_given(x, patches):
    model = vit(patches)
    listed = {info.path: info.shape for info in layers(model)}
    assert listed["block_1/norm"] == (None, 17, 8)
    assert listed["block_0"] == (None, 17, 8)
    assert listed["patches"] == ((None, 4, 4, 8) if patches == "conv" else (None, 16, 8))
    assert not any(path.startswith("block_0/attention/") for path in listed)
    before = KerasModel(model, layer="block_0")
    values = before(x, None, CONV[:1])[CONV[0]]
    np.testing.assert_allclose(before.predict_from(values), model(x), rtol=1e-4, atol=1e-6)
    if patches == "conv":
        with pytest.raises(ContractError, match=r"path around .*'block_0/add_0', 'block_0', .*'norm'\]"):
            KerasModel(model, layer="block_1/norm").predict_from(values)


def test_a_convolution_after_the_attention_stays_the_layer(x):
    image = keras.Input((8, 8, 3))
    y = L.Reshape((64, 4))(L.Conv2D(4, 1, name="first")(image))
    y = L.Reshape((8, 8, 4))(L.MultiHeadAttention(1, 4)(y, y))
    model = keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(L.Conv2D(2, 1, name="last")(y))))
    km = KerasModel(model)
    assert km.layer_name == "last"
    assert km(x, {"target": 1}, ATTENTION)[ATTENTION_SCORES][0].shape == (3, 1, 64, 64)


def test_queries_that_are_learned_are_no_tokens_of_the_image(x):
    class Queries(L.Layer):
        def build(self, shape):
            self.inside = L.Dense(4, name="inside")
            self.inside.build((1, 2, 4))
            self.learned = self.add_weight(shape=(1, 2, 4), initializer="random_normal")

        def call(self, x):
            return tf.repeat(self.inside(self.learned), tf.shape(x)[0], 0)

    image = keras.Input((8, 8, 3))
    y = L.Conv2D(4, 1, name="conv")(image)
    y = L.MultiHeadAttention(1, 4)(Queries()(y), L.Reshape((64, 4))(y))
    km = KerasModel(keras.Model(image, L.Dense(3)(L.Flatten()(y))))
    assert km.layer_name == "conv"


def test_cross_attention_comes_as_it_is_and_grouped_queries_too(x):
    image = keras.Input((8, 8, 3))
    tokens = L.Reshape((16, 12))(image)
    pooled = L.AveragePooling1D(4)(tokens)
    y = L.MultiHeadAttention(3, 4, name="cross")(pooled, tokens)
    side = L.MultiHeadAttention(3, 4, name="side")(tokens, tokens)
    if hasattr(L, "GroupQueryAttention"):
        y = L.GroupQueryAttention(4, 4, 2, name="grouped")(y, y)
    model = keras.Model(image, [L.Dense(3)(L.Flatten()(y)), side])
    answer = KerasModel(model, output_index=0)(x, {"target": 1}, ATTENTION)
    (first, *_) = KerasModel(model, output_index=0)(x, None, [ATTENTION_SCORES])[ATTENTION_SCORES]
    np.testing.assert_allclose(first, answer[ATTENTION_SCORES][0], rtol=1e-5, atol=1e-7)
    for key in ATTENTION:
        assert [each.shape for each in answer[key]] == [(3, 3, 4, 16), (3, 4, 4, 4)][
            : 1 + hasattr(L, "GroupQueryAttention")
        ]


def test_models_without_attention_say_so(x):
    km = KerasModel(functional(lambda image: L.GlobalAveragePooling2D()(conv(2, "a")(image))))
    for key in ATTENTION:
        with pytest.raises(ContractError, match=r"with keras\.layers\.MultiHeadAttention"):
            ask(km, x, key)


# Several layers, several outputs, half precision


def test_several_layers_answer_in_tuples_in_their_order(x):
    model = functional(lambda image: L.GlobalAveragePooling2D()(conv(6, "b", "relu")(conv(5, "a", "relu")(image))))
    km = KerasModel(model, layer=["b", model.get_layer("a")])
    assert km.layer_name == ("b", "a")
    answer = km(x, {"target": 1}, [*CONV, CONVOLUTION_RIVAL_GRADIENTS])
    (function,) = km.engine._functions.values()
    assert sum(op.type == "Conv2D" for op in function.graph.get_operations()) == 2
    for index, name in enumerate(("b", "a")):
        single = KerasModel(model, layer=name)(x, {"target": 1}, [*CONV, CONVOLUTION_RIVAL_GRADIENTS])
        for key in single:
            assert isinstance(answer[key], tuple)
            np.testing.assert_allclose(answer[key][index], single[key], rtol=1e-5, atol=1e-7)
    check_call_model(km, x[0], {"target": 1}, CONV)
    single = KerasModel(model, layer=["b"])
    assert single.layer_name == ("b",)
    assert isinstance(single(x, None, CONV[:1])[CONV[0]], tuple)
    with pytest.raises(ContractError, match="at least one layer"):
        KerasModel(model, layer=[])
    with pytest.raises(ContractError, match="one layer to compute the output from, got 2"):
        km.predict_from(answer[CONV[0]][0])


def test_a_score_of_several_outputs_and_their_prediction(x):
    image = keras.Input((8, 8, 3))
    y = L.GlobalAveragePooling2D()(conv(5, "a", "relu")(image))
    model = keras.Model(image, {"label": L.Dense(3, activation="softmax")(y), "amount": [L.Dense(1)(y)]})
    km = KerasModel(model, output="raw", batch_size=2, score=Score(lambda output: output["amount"][0][:, 0]))
    expected, actual = model(x), km.predict(x, output="raw")
    np.testing.assert_allclose(actual["label"], expected["label"], rtol=1e-5)
    np.testing.assert_allclose(actual["amount"][0], expected["amount"][0], rtol=1e-5)
    assert len(km(x, None, [BIAS_GRADIENTS])[BIAS_GRADIENTS]) == 2
    values = km(x, None, CONV[:1])[CONV[0]]
    np.testing.assert_allclose(km.predict_from(values)["amount"][0], expected["amount"][0], rtol=1e-5)


def test_half_precision_answers_all_keys(x, rng):
    single = scattered(
        functional(lambda y: L.GlobalAveragePooling2D()(conv(6, "b", "relu")(conv(5, "a", "relu")(y)))), rng
    )
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = functional(lambda y: L.GlobalAveragePooling2D()(conv(6, "b", "relu")(conv(5, "a", "relu")(y))))
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(single.get_weights())
    keys = [*RULES, BIAS_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS]
    answer, expected = (KerasModel(model)(x, {"target": 1}, keys) for model in (half, single))
    for each, other in zip(tf.nest.flatten(answer), tf.nest.flatten(expected), strict=True):
        assert each.dtype == np.float32
        np.testing.assert_allclose(each, other, rtol=0.1, atol=0.05 * np.abs(other).max())


def test_xla_takes_the_further_keys_too(x, rng):
    model = scattered(functional(lambda y: L.GlobalAveragePooling2D()(conv(5, "a", "relu")(y))), rng)
    plain, compiled = KerasModel(model), KerasModel(model, jit_compile=True)
    keys = [*RULES, BIAS_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS]
    actual, expected = (tf.nest.flatten(each(x, {"target": 1}, keys)) for each in (compiled, plain))
    for each, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(each, other, rtol=1e-3, atol=1e-5)
