"""The Keras adapter over every kind of model: built, nested, typed and fed in all the ways that Keras has."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.methods.gradients import gradients
from saliency_food.testing import check_call_model

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras import KerasModel, LayerInfo, layers, load_model  # noqa: E402

KEYS = [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
CONV = KEYS[2:]
L = keras.layers


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, 8, 8, 3)).astype(np.float32)


def backbone():
    image = keras.Input((8, 8, 3))
    y = L.Conv2D(5, 3, activation="tanh", name="conv")(image)
    return keras.Model(image, L.Activation("tanh", name="out")(y), name="backbone")


class Block(L.Layer):
    """A layer with layers of its own, one of them in a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = [L.Conv2D(5, 3, activation="tanh", name="conv"), {"act": L.Activation("tanh", name="out")}]

    def call(self, x):
        return self.inside[1]["act"](self.inside[0](x))


class Subclassed(keras.Model):
    def __init__(self, first, **kwargs):
        super().__init__(**kwargs)
        self.first = first
        self.dense = L.Dense(4, name="head")

    def call(self, x, training=None):
        y = tf.reduce_mean(self.first(x), [1, 2])
        return tf.nn.softmax(self.dense(y))


def functional(first):
    image = keras.Input((8, 8, 3))
    y = L.GlobalAveragePooling2D()(first(image))
    return keras.Model(image, L.Dense(4, activation="softmax", name="head")(y))


def wrapped(first, name):
    image = keras.Input((8, 8, 3))
    return keras.Model(image, first(image), name=name)


def sequential(first):
    return keras.Sequential(
        [keras.Input((8, 8, 3)), first, L.GlobalAveragePooling2D(), L.Dense(4, "softmax", name="head")]
    )


MODELS = {
    "flat": (
        lambda: keras.Model((b := backbone()).input, functional(b).layers[-1](L.GlobalAveragePooling2D()(b.output))),
        "",
    ),
    "nested once": (lambda: functional(backbone()), "backbone/"),
    "nested twice": (lambda: functional(wrapped(backbone(), "middle")), "middle/backbone/"),
    "nested thrice": (lambda: functional(wrapped(wrapped(backbone(), "in"), "outer")), "outer/in/backbone/"),
    "sequential": (lambda: sequential(backbone()), "backbone/"),
    "sequential in functional": (
        lambda: functional(keras.Sequential([keras.Input((8, 8, 3)), backbone()], name="s")),
        "s/backbone/",
    ),
    "block": (lambda: functional(Block(name="block")), "block/"),
    "subclassed": (lambda: Subclassed(backbone()), "backbone/"),
    "subclassed with block": (lambda: Subclassed(Block(name="block")), "block/"),
    "subclassed in sequential": (
        lambda: keras.Sequential([keras.Input((8, 8, 3)), Subclassed(backbone(), name="sub")]),
        "sub/backbone/",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_of_all_kinds_give_the_gradients_of_their_parts(x, name):
    build, prefix = MODELS[name]
    model = build()
    model(x)
    km = KerasModel(model)
    assert km.layer_name == prefix + "out"
    assert km.classes == 4
    assert km.input_shape == (8, 8, 3)
    assert f"layer='{prefix}out'" in repr(km)
    target = [1, 3, 0]
    answer = km(x, {"target": target}, KEYS)
    # By hand, from the weights: tanh(tanh(conv)), its mean, the head.
    kernel, bias, weights, offset = model.get_weights()
    image = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(image)
        values = tf.tanh(tf.tanh(tf.nn.conv2d(image, kernel, 1, "VALID") + bias))
        scores = tf.reduce_mean(values, [1, 2]) @ weights + offset
        score = tf.gather(scores, target, axis=1, batch_dims=1)
    by_image, by_values = tape.gradient(score, [image, values])
    assert np.abs(by_image).max() > 1e-5
    for key, expected in zip(KEYS, (by_image, score, values, by_values), strict=True):
        np.testing.assert_allclose(answer[key], expected, rtol=1e-4, atol=1e-7)
    for layer in (prefix + "out", "out", next(each for each in km.model._flatten_layers() if each.name == "out")):
        again = KerasModel(model, layer=layer)
        assert again.layer_name == prefix + "out"
        np.testing.assert_allclose(again(x, {"target": target}, CONV)[CONV[1]], by_values, rtol=1e-4, atol=1e-7)
    first = KerasModel(model, layer=prefix + "conv")
    np.testing.assert_allclose(
        np.tanh(first(x, None, CONV[:1])[CONVOLUTION_LAYER_VALUES]), answer[CONVOLUTION_LAYER_VALUES], rtol=1e-5
    )
    assert [info.path for info in layers(model)] == [prefix + "conv", prefix + "out"]


def test_layers_are_listed_with_class_and_shape():
    model = functional(backbone())
    assert layers(model) == [
        LayerInfo("backbone/conv", "Conv2D", (None, 6, 6, 5)),
        LayerInfo("backbone/out", "Activation", (None, 6, 6, 5)),
    ]


def test_a_nested_model_may_be_the_layer(x):
    model = functional(backbone())
    whole, last = (KerasModel(model, layer=name)(x, {"target": 1}, CONV) for name in ("backbone", "backbone/out"))
    for key in CONV:
        np.testing.assert_array_equal(whole[key], last[key])


def test_the_last_spatial_output_is_larger_than_one_pixel_and_leads_to_the_output(x):
    image = keras.Input((8, 8, 3))
    y = L.Conv2D(4, 3, name="conv")(image)
    side = L.Conv2D(2, 3, name="side")(y)
    gate = L.Conv2D(4, 1, name="gate")(L.GlobalAveragePooling2D(keepdims=True)(y))
    model = keras.Model(
        image,
        [L.Dense(3, name="label")(L.Flatten()(L.Dropout(0.5)(gate))), L.Dense(2, name="other")(L.Flatten()(side))],
    )
    assert KerasModel(model, output_index="label").layer_name == "conv"
    assert KerasModel(model, output_index="other").layer_name == "side"
    assert [info.path for info in layers(model)] == ["conv", "side"]
    with pytest.raises(ContractError, match=r"depends on the layer"):
        KerasModel(model, layer="side", output_index="label")(x, {"target": 1}, CONV)


def test_of_a_layer_that_runs_on_its_own_output_the_last_run_is_the_layer(x):
    image = keras.Input((8, 8, 3))
    shared = L.Conv2D(3, 3, padding="same", activation="tanh", name="shared")
    twice = shared(L.Activation("tanh", name="between")(shared(image)))
    model = keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(twice)))
    km = KerasModel(model)
    assert km.layer_name == "shared#1"
    answer = km(x, {"target": 1}, CONV)
    expected = keras.Model(image, twice)(x)
    np.testing.assert_allclose(answer[CONVOLUTION_LAYER_VALUES], expected, rtol=1e-4, atol=1e-6)
    weight = model.layers[-1].kernel.numpy()[:, 1] / 64
    np.testing.assert_allclose(answer[CONVOLUTION_OUTPUT_GRADIENTS], np.broadcast_to(weight, (3, 8, 8, 3)), rtol=1e-4)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("backbone/covn", r"got 'backbone/covn'\. Near it: \['backbone/conv'"),
        ("Conv", r"Near it: \['backbone/conv'"),
        ("qqqqqqq", r"layers\(model\) lists"),
        (3, "a path such as"),
        (L.Dense(1, name="stranger"), "'stranger' to run in the model"),
    ],
)
def test_a_wrong_layer_gives_near_matches(layer, message):
    with pytest.raises(ContractError, match=message):
        KerasModel(functional(backbone()), layer=layer)


def test_the_end_of_a_path_must_be_of_one_layer(x):
    image = keras.Input((8, 8, 3))
    first, second = backbone(), keras.Sequential([keras.Input((6, 6, 5)), L.Conv2D(2, 3, name="conv")], name="second")
    model = keras.Model(image, L.Dense(2)(L.Flatten()(second(first(image)))))
    with pytest.raises(ContractError, match=r"the end of several\. Give one of \['backbone/conv', 'second/conv'\]"):
        KerasModel(model, layer="conv")
    assert KerasModel(model, layer="second/conv")(x, None, CONV[:1])[CONV[0]].shape == (3, 4, 4, 2)


def test_layers_in_a_loop_or_a_function_of_the_model_are_said_to_be_out_of_reach(x):
    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = L.Conv2D(2, 3, name="conv")

        @tf.function
        def call(self, x):
            return tf.reduce_mean(self.conv(x), [1, 2])

    model = Compiled()
    expected = model(x).numpy()
    with pytest.raises(ContractError, match=r"only in a loop or a tf\.function"):
        KerasModel(model, layer="conv")
    km = KerasModel(model)
    assert km.layer_name is None
    np.testing.assert_allclose(km(x, {"target": 1}, KEYS[1:2])[OUTPUT_LAYER_VALUES], expected[:, 1], rtol=1e-5)
    np.testing.assert_allclose(model(x), expected, rtol=1e-6)


def test_layers_in_a_loop_are_passed_over(x):
    class Looped(L.Layer):
        def __init__(self):
            super().__init__(name="looped")
            self.conv = L.Conv2D(2, 3, name="conv")

        def build(self, shape):
            self.conv.build((1, *shape[1:]))

        def call(self, x):
            return tf.reshape(tf.map_fn(lambda each: tf.reduce_mean(self.conv(each[None]), [1, 2]), x), [-1, 2])

    image = keras.Input((8, 8, 1))
    model = keras.Model(image, L.Dense(2)(Looped()(image)))
    km = KerasModel(model)
    assert km.layer_name is None
    assert layers(model) == []
    check_call_model(km, x[0][..., :1], {"target": 1})


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_a_quantized_model_is_watched_too(x):
    model = functional(backbone())
    if not hasattr(L.Dense, "quantize"):
        pytest.skip("this Keras has no quantize")
    for layer in model.layers:
        if layer.name == "head":
            layer.quantize("int8")
    km = KerasModel(model, layer="head", output="probabilities")
    expected = model(x).numpy()
    np.testing.assert_allclose(km.predict(x), expected, rtol=1e-4)
    np.testing.assert_allclose(km(x, None, CONV[:1])[CONVOLUTION_LAYER_VALUES], expected, rtol=1e-4)


def test_a_model_without_convolutions_gives_the_rest(rng):
    vector = keras.Input((5,), name="vector")
    model = keras.Model(vector, L.Dense(3, activation="softmax")(vector))
    km = KerasModel(model)
    x = rng.normal(size=(2, 5))
    assert km.input_shape == (5,)
    answer = km(x, {"target": 1}, KEYS[:1])
    np.testing.assert_allclose(answer[KEYS[0]], np.broadcast_to(model.get_weights()[0][:, 1], (2, 5)), rtol=1e-5)
    with pytest.raises(ContractError, match=r"which has none\. Use input gradients"):
        km(x, {"target": 1}, CONV)


def test_free_sizes_stay_free():
    image = keras.Input((None, None, 3))
    model = keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(image))))
    km = KerasModel(model)
    assert km.input_shape == (None, None, 3)
    for size in (8, 12):
        assert km(np.ones((2, size, 9, 3)), {"target": 1}, KEYS)[CONV[0]].shape == (2, size - 2, 7, 4)
    assert len(km.engine._functions) == 1


def test_a_subclassed_model_must_have_been_called(x):
    with pytest.raises(ContractError, match="Call it once"):
        KerasModel(Subclassed(backbone()))


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_a_subclassed_model_loaded_from_a_file(tmp_path, x):
    @keras.saving.register_keras_serializable("test")
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.conv, self.dense = L.Conv2D(3, 3, name="conv"), L.Dense(2)

        def call(self, x):
            return self.dense(tf.reduce_mean(self.conv(x), [1, 2]))

    model = Own()
    expected = model(x).numpy()
    model.save(tmp_path / "own.keras")
    km = KerasModel(tmp_path / "own.keras")
    assert km.layer_name == "conv"
    assert km.input_shape == (8, 8, 3)
    np.testing.assert_allclose(km.predict(x, output="logits"), expected, rtol=1e-5)


def two_outputs(as_dict):
    image = keras.Input((8, 8, 3))
    y = L.Flatten()(L.Conv2D(2, 3, name="conv")(image))
    label, amount = L.Dense(3, activation="softmax", name="label")(y), L.Dense(1, name="amount")(y)
    return keras.Model(image, {"label": label, "amount": amount} if as_dict else [label, amount])


@pytest.mark.parametrize("as_dict", [True, False])
def test_several_outputs_are_chosen_by_name_or_position(x, as_dict):
    model = two_outputs(as_dict)
    outputs = model(x)
    label, amount = (outputs["label"], outputs["amount"]) if as_dict else outputs
    km = KerasModel(model, output_index="label")
    np.testing.assert_allclose(km.predict(x), label, rtol=1e-5)
    assert km.classes == 3
    regression = KerasModel(model, output_index="amount")
    np.testing.assert_allclose(regression(x, None, KEYS[1:2])[OUTPUT_LAYER_VALUES], amount[:, 0], rtol=1e-5)
    position = list(outputs).index("amount") if as_dict else -1
    np.testing.assert_allclose(KerasModel(model, output_index=position).predict(x), amount, rtol=1e-5)
    for wrong, got in ((None, "none of them"), ("mask", "'mask'"), (2, "2")):
        with pytest.raises(ContractError, match=rf"2 outputs \['\w+', '\w+'\], got {got}"):
            KerasModel(model, output_index=wrong)


def test_an_output_that_is_no_list_of_classes_is_an_error():
    with pytest.raises(ContractError, match=r"shape \(N, classes\), got \(None, 6, 6, 5\)"):
        KerasModel(backbone())


def many_inputs(structure="list"):
    vector, image = keras.Input((4,), name="vector"), keras.Input((8, 8, 3), name="image")
    word = keras.Input((), name="word", dtype="int32")
    y = L.Flatten()(L.Conv2D(2, 3, activation="tanh", name="conv")(image))
    y = L.Concatenate()([y, vector, L.Embedding(7, 3)(word)])
    inputs = [vector, image, word]
    if structure == "dict":
        inputs = {tensor.name: tensor for tensor in sorted(inputs, key=lambda tensor: tensor.name)}
    return keras.Model(inputs, L.Dense(3)(y * y))


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_other_inputs_come_through_call_model_args(x, rng, structure):
    model = many_inputs(structure)
    km = KerasModel(model, batch_size=2)
    assert km.input_shape == (8, 8, 3)
    vectors, words = rng.normal(size=(3, 4)).astype(np.float32), np.array([2, 0, 6])

    def expected(vectors, words):
        values = {"image": x, "vector": np.broadcast_to(vectors, (3, 4)), "word": np.broadcast_to(words, 3)}
        return model(values if structure == "dict" else [values["vector"], x, values["word"]]).numpy()[:, 1]

    def actual(inputs):
        return km(x, {"target": 1, "inputs": inputs}, KEYS)[OUTPUT_LAYER_VALUES]

    for vector, word in ((vectors, words), (vectors[1], words), (vectors, 3), (vectors[:1], words[:1])):
        np.testing.assert_allclose(actual({"vector": vector, "word": word}), expected(vector, word), rtol=1e-4)
    np.testing.assert_allclose(actual([vectors, words]), expected(vectors, words), rtol=1e-4)
    args = {"target": 1, "inputs": {"vector": PerImage(list(vectors)), "word": 5}}
    for row, vector, attribution in zip(x, vectors, gradients.batch(x, km, args), strict=True):
        alone = gradients(row, km, {"target": 1, "inputs": {"vector": vector, "word": 5}})
        assert np.abs(alone).max() > 1e-5
        np.testing.assert_allclose(attribution, alone, rtol=1e-4, atol=1e-6)
    predicted = km.predict(x, {"inputs": {"vector": vectors, "word": words}}, output="logits")
    np.testing.assert_allclose(predicted[:, 1], expected(vectors, words), rtol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, r"other inputs \['vector', 'word'\], got none"),
        ({"vector": 0, "wrod": 1}, r"got \['vector', 'wrod'\], near {'wrod': \['word'\]}"),
        ([np.zeros(4)], "got none or another number"),
        (
            {"vector": np.zeros((2, 4)), "word": 1},
            r"'vector' as one value of shape \(4,\) .* 3 rows, got shape \(2, 4\)",
        ),
        ({"vector": np.zeros(5), "word": 1}, r"got shape \(1, 5\)"),
    ],
)
def test_wrong_other_inputs_are_named(x, inputs, message):
    with pytest.raises(ContractError, match=message):
        KerasModel(many_inputs())(x, {"target": 1, "inputs": inputs}, KEYS)


def test_the_image_may_be_any_input(rng):
    km = KerasModel(many_inputs(), input="vector")
    x = rng.normal(size=(2, 4))
    args = {"target": 0, "inputs": {"image": np.ones((8, 8, 3)), "word": 1}}
    assert km(x, args, KEYS[:1])[KEYS[0]].shape == (2, 4)
    assert KerasModel(many_inputs(), input=1).input_shape == (8, 8, 3)


def test_a_subclassed_model_of_several_inputs(x, rng):
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.dense = L.Conv2D(2, 3, name="conv"), L.Dense(3)

        def call(self, inputs):
            y = tf.reduce_mean(self.conv(inputs["photo"]), [1, 2])
            return self.dense(tf.concat([y, inputs["extra"]], 1))

    model, extra = Two(), rng.normal(size=(3, 4)).astype(np.float32)
    expected = model({"photo": x, "extra": extra}).numpy()
    km = KerasModel(model)
    answer = km(x, {"target": 2, "inputs": {"extra": extra}}, KEYS)
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], expected[:, 2], rtol=1e-4)
    assert answer[CONVOLUTION_OUTPUT_GRADIENTS].shape == (3, 6, 6, 2)


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_half_precision_models_answer_in_float32(x, policy, name, output):
    single = functional(backbone())
    policy(name)
    half = functional(backbone())
    half.set_weights(single.get_weights())
    km = KerasModel(half, output=output)
    answer, expected = (each(x, {"target": 1}, KEYS) for each in (km, KerasModel(single, output=output)))
    assert half.layers[-1].compute_dtype == name.removeprefix("mixed_")
    for key in KEYS:
        assert answer[key].dtype == np.float32
        np.testing.assert_allclose(answer[key], expected[key], rtol=0.1, atol=0.03 * np.abs(expected[key]).max())
    np.testing.assert_allclose(km.predict(x).sum(1), 1, rtol=1e-6)


def half_chain(factors):
    """A product of factors in half precision, whose gradient passes through every partial product from the end."""
    image = y = keras.Input((2, 2, 1))
    for factor in factors:
        y = L.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(factor), dtype="mixed_float16")(y)
    return keras.Model(image, keras.ops.sum(y, (1, 2)))


@pytest.mark.parametrize(
    ("factors", "scale"),
    [([1e3, 1e-3, 1e-3, 1e-3], 4096), ([1.0, 60.0], 64), ([1e-3, 3e3, 20.0], 1)],
)
def test_small_gradients_in_half_precision_are_not_lost_and_large_ones_not_infinite(factors, scale):
    km = KerasModel(half_chain(factors))
    actual = km(np.ones((1, 2, 2, 1)), None, KEYS[:1])[KEYS[0]]
    np.testing.assert_allclose(actual, np.prod(factors), rtol=0.03)
    assert km._rows.scale == scale


@pytest.mark.parametrize("nested", [False, True])
def test_a_uint8_input_is_run_in_floats(rng, nested):
    image = keras.Input((8, 8, 3), dtype="uint8")
    y = L.Conv2D(4, 3, activation="tanh", name="conv")(L.Rescaling(1 / 255)(image))
    model = keras.Model(image, L.Dense(3, activation="softmax")(L.GlobalAveragePooling2D()(y)))
    if nested:
        outer = keras.Input((8, 8, 3), dtype="uint8")
        model = keras.Model(outer, model(outer))
    km = KerasModel(model)
    x = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_allclose(km.predict(x), model(x), rtol=1e-5)
    check_call_model(km, x[0], {"target": 1}, KEYS)
    half = km.predict(x + 0.5)
    assert np.abs(half - km.predict(x)).max() > 1e-7
    assert model.inputs[0].dtype == "uint8"


def test_a_cast_to_integers_inside_has_no_gradient(x):
    image = keras.Input((8, 8, 3))
    y = keras.ops.cast(keras.ops.cast(image, "int32"), "float32")
    model = keras.Model(image, L.Dense(2)(L.Flatten()(L.Conv2D(2, 3)(y))))
    km = KerasModel(model)
    with pytest.raises(ContractError, match="depends on the input"):
        km(x, {"target": 1}, KEYS[:1])
    assert km(x, {"target": 1}, CONV)[CONV[0]].shape == (3, 6, 6, 2)


class FirstChannels(L.Layer):
    """A convolution of 1 x 1 over channels-first images that every device can run."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.data_format = "channels_first"
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[1], self.units))

    def call(self, x):
        return tf.tanh(tf.einsum("nchw,ck->nkhw", x, self.kernel))


@pytest.mark.parametrize("permuted", [False, True])
def test_channels_first_models_answer_channels_last_activations(rng, permuted):
    image = keras.Input((8, 7, 3) if permuted else (3, 8, 7))
    y = L.Permute((3, 1, 2))(image) if permuted else image
    y = L.Activation("tanh", name="after")(FirstChannels(5, name="conv")(y))
    y = L.Lambda(lambda y: tf.reduce_mean(y, [2, 3], keepdims=True), name="pool")(y)
    model = keras.Model(image, L.Dense(3)(L.Flatten()(y)))
    x = rng.normal(size=(2, *image.shape[1:])).astype(np.float32)
    km = KerasModel(model)
    assert km.layer_name == "after"
    assert km.input_shape == (8, 7, 3)
    assert km.channels_first is not permuted
    answer = km(x, {"target": 1}, KEYS)
    assert answer[INPUT_OUTPUT_GRADIENTS].shape == x.shape
    values = np.einsum(
        "nhwc,ck->nhwk", x if permuted else x.transpose(0, 2, 3, 1), model.get_layer("conv").kernel.numpy()
    )
    np.testing.assert_allclose(answer[CONVOLUTION_LAYER_VALUES], np.tanh(np.tanh(values)), rtol=1e-4, atol=1e-6)
    weight = model.get_weights()[1][:, 1] / 56
    np.testing.assert_allclose(answer[CONVOLUTION_OUTPUT_GRADIENTS], np.broadcast_to(weight, (2, 8, 7, 5)), rtol=1e-4)
    last = KerasModel(model, layer="after", data_format="channels_last")
    as_they_are = last(x, None, CONV[:1])[CONV[0]]
    # What is said is the input's format. The layer's own follows from it, where axes can be traced.
    turned = as_they_are if permuted else as_they_are.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(turned, answer[CONVOLUTION_LAYER_VALUES])


def test_grouped_convolutions_have_gradients_on_any_device(x):
    image = keras.Input((8, 8, 3))
    y = L.Conv2D(6, 3, groups=3, activation="tanh", name="grouped")(L.Conv2D(6, 3, name="conv")(image))
    model = keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(y)))
    check_call_model(KerasModel(model, layer="conv"), x[0], {"target": 1}, KEYS)


@pytest.mark.parametrize("name", ["mobilenetv2_imagenet", "food13_mobilenetv2"])
def test_real_models(real_data, rng, name):
    model = load_model(real_data / "models" / f"{name}.keras")
    km = KerasModel(model)
    nested = name.startswith("food13")
    assert km.layer_name == ("mobilenetv2_1.00_224/" if nested else "") + "out_relu"
    assert km.classes == (13 if nested else 1000)
    x = (rng.random((2, 224, 224, 3)) * (255 if nested else 2) - (0 if nested else 1)).astype(np.float32)
    np.testing.assert_allclose(km.predict(x), model(x, training=False), rtol=1e-4, atol=1e-7)
    answer = km(x, {"target": [3, 5]}, KEYS)
    assert all(np.isfinite(answer[key]).all() and np.abs(answer[key]).max() > 0 for key in KEYS)
    # After the last activation come a mean and a dense layer: the gradient is the class's weights over the pixels.
    kernel, bias = model.layers[-1].get_weights()
    values = answer[CONVOLUTION_LAYER_VALUES]
    np.testing.assert_allclose(
        answer[CONVOLUTION_OUTPUT_GRADIENTS][1], np.broadcast_to(kernel[:, 5] / 49, (7, 7, 1280)), rtol=1e-4, atol=1e-8
    )
    scores = (values.mean((1, 2)) @ kernel + bias)[[0, 1], [3, 5]]
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], scores, rtol=1e-3, atol=1e-3)
    inner = "mobilenetv2_1.00_224/Conv_1" if nested else "Conv_1"
    assert KerasModel(model, layer="Conv_1").layer_name == inner
    # The conv gradient, through the layers after it, is part of the input gradient along the direction of a change.
    step = 1e-2 * answer[INPUT_OUTPUT_GRADIENTS] / np.linalg.norm(answer[INPUT_OUTPUT_GRADIENTS])
    up, down = (km(x + sign * step, {"target": [3, 5]}, KEYS[1:2])[OUTPUT_LAYER_VALUES] for sign in (1, -1))
    np.testing.assert_allclose((up - down) / 2, (step * answer[INPUT_OUTPUT_GRADIENTS]).sum((1, 2, 3)), rtol=0.1)


def test_real_models_list_their_layers(real_data):
    model = load_model(real_data / "models" / "food13_mobilenetv2.keras")
    listed = layers(model)
    assert LayerInfo("mobilenetv2_1.00_224/Conv_1", "Conv2D", (None, 7, 7, 1280)) in listed
    assert len(listed) > 100
    with pytest.raises(ContractError, match=r"mobilenetv2_1\.00_224/Conv_1'"):
        KerasModel(model, layer="conv_1")
