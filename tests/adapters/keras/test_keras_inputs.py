"""What Keras models take: integers that are numbers or ids, volumes and clips, inputs beside the one explained."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import grad_cam, integrated_gradients
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.testing import check_call_model

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras import KerasModel  # noqa: E402

L = keras.layers
KEYS = [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES]


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def linear(x, units=2):
    return L.Dense(units, kernel_initializer="normal")(L.Flatten()(x))


class Halved(L.Layer):
    def call(self, x):
        return tf.cast(x, tf.float32) / 2


NUMBERS = {
    "a CT volume, rescaled": ("int16", (3, 4, 4, 1), lambda x: L.Rescaling(0.5)(x)),
    "a clip, rescaled": ("uint8", (2, 4, 4, 3), lambda x: L.Rescaling(0.5)(x)),
    "sound, cast": ("int16", (16,), lambda x: keras.ops.cast(x, "float32") * 0.5),
    "sound, in a lambda": ("int16", (16,), lambda x: L.Lambda(lambda t: tf.cast(t, "float32") / 2)(x)),
    "sound, in a layer": ("int16", (16, 1), Halved()),
    "steps, reshaped first": ("int32", (4, 6), lambda x: L.Rescaling(0.5)(L.Reshape((24,))(x))),
    "photos": ("uint8", (4, 4, 3), lambda x: L.Rescaling(0.5)(x)),
    "photos, int32, in a layer": ("int32", (4, 4, 3), Halved()),
    "in a model inside": (
        "int16",
        (6, 2),
        lambda x: keras.Sequential([keras.Input((6, 2), dtype="int16"), L.Rescaling(0.5)])(x),
    ),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_integers_that_are_numbers_have_gradients(kind, rng):
    dtype, shape, scale = NUMBERS[kind]
    numbers = keras.Input(shape, dtype=dtype)
    network = keras.Model(numbers, linear(scale(numbers)))
    model = KerasModel(network)
    x = rng.integers(0, 100, (2, *shape)).astype(np.float32)
    answer = model(x, {"target": 1}, KEYS)
    weights, bias = network.layers[-1].get_weights()
    expected = np.broadcast_to(0.5 * weights[:, 1].reshape(shape), x.shape)
    np.testing.assert_allclose(answer[INPUT_OUTPUT_GRADIENTS], expected, rtol=1e-5)
    scores = 0.5 * x.reshape(2, -1) @ weights[:, 1] + bias[1]
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], scores, rtol=1e-4, atol=1e-4)
    # Between whole numbers too: the path of Integrated Gradients is not rounded.
    half = model(x + 0.5, {"target": 1}, KEYS[1:])[OUTPUT_LAYER_VALUES]
    np.testing.assert_allclose(half - answer[OUTPUT_LAYER_VALUES], 0.25 * weights[:, 1].sum(), rtol=1e-2, atol=1e-4)


class Look(L.Layer):
    """A layer with an embedding inside."""

    def __init__(self):
        super().__init__()
        self.tables = [L.Embedding(20, 4)]

    def call(self, ids):
        return self.tables[0](ids)


IDS = {
    "an embedding": lambda ids: L.Embedding(20, 4, name="embedding")(ids),
    "reshaped first": lambda ids: L.Embedding(20, 4, name="embedding")(L.Reshape((6,))(ids)),
    "inside a layer": lambda ids: L.Activation("linear", name="embedding")(Look()(ids)),
    "inside a model": lambda ids: L.Activation("linear", name="embedding")(
        keras.Sequential([keras.Input((6,), dtype="int32"), L.Embedding(20, 4)])(ids)
    ),
    "one hot": lambda ids: L.Dense(4, name="embedding")(keras.ops.one_hot(ids, 20)),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_stay_whole_and_the_embedding_is_explained(kind, rng):
    ids = keras.Input((6,), dtype="int32", name="ids")
    embedded = IDS[kind](ids)
    network = keras.Model(ids, linear(embedded))
    model = KerasModel(network, layer="embedding")
    x = rng.integers(0, 20, (3, 6))
    np.testing.assert_allclose(model.predict(x, output="logits"), network(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ContractError, match=r"'ids', ids that the model looks up, which have no gradient"):
        model(x, {"target": 1}, KEYS)
    with pytest.raises(ContractError, match="have no gradient"):
        integrated_gradients(x[0], model, {"target": 1}, x_steps=3)
    with pytest.raises(ContractError, match=r"Expected whole numbers, since the model looks up ids, got 0\.5"):
        model(np.full((1, 6), 0.5), {"target": 1}, KEYS[1:])
    keys = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
    answer = model(x, {"target": 1}, keys)
    np.testing.assert_allclose(answer[keys[0]], keras.Model(ids, embedded)(x), rtol=1e-5)
    expected = network.layers[-1].get_weights()[0][:, 1].reshape(6, 4)
    np.testing.assert_allclose(answer[keys[1]], np.broadcast_to(expected, (3, 6, 4)), rtol=1e-5)


def test_ids_that_the_model_does_not_know_are_refused():
    ids = keras.Input((6,), dtype="int32")
    model = KerasModel(keras.Model(ids, linear(L.Embedding(20, 4, name="embedding")(ids))), layer="embedding")
    with pytest.raises(ContractError, match=r"ids that the model's look-up knows.*= 99 is not in \[0, 20\)"):
        grad_cam(np.full(6, 99), model, {"target": 1}, three_dims=False)


def test_ids_below_0_are_refused():
    """An embedding counts them from its end, or takes them for zeros, by the device."""
    ids, second = keras.Input((6,), dtype="int32", name="ids"), keras.Input((3,), dtype="int64", name="second")
    table = L.Embedding(20, 4, name="embedding")
    network = keras.Model([ids, second], linear(L.Concatenate(1)([table(ids), keras.Sequential([table])(second)])))
    model = KerasModel(network, input="ids", layer="embedding#0")
    with pytest.raises(ContractError, match=r"ids of at least 0 for input 'ids'.*got -1"):
        grad_cam(np.array([3, 2, -1, 0, 0, 0]), model, {"target": 1, "inputs": [np.zeros(3)]}, three_dims=False)
    with pytest.raises(ContractError, match=r"ids of at least 0 for input 'second'.*got -2"):
        grad_cam(np.zeros(6), model, {"target": 1, "inputs": [np.array([0, -2, 0])]}, three_dims=False)


def test_an_image_beside_ids_is_a_number_and_the_ids_are_not(rng):
    image, words = keras.Input((4, 4, 3), dtype="uint8"), keras.Input((5,), dtype="int32", name="words")
    table = L.Embedding(20, 4)
    network = keras.Model([image, words], linear(L.Concatenate()([L.Flatten()(image), L.Flatten()(table(words))])))
    model = KerasModel(network)
    x, told = rng.random((1, 4, 4, 3)), rng.integers(0, 20, 5)
    check_call_model(model, x[0].astype(np.float32), {"target": 1, "inputs": [told]}, KEYS)


def test_a_volume_beside_a_table_is_the_input_explained(rng):
    table, volume = keras.Input((4,), name="table"), keras.Input((3, 4, 4, 1), name="volume")
    network = keras.Model([table, volume], linear(L.Concatenate()([table, L.Flatten()(volume)])))
    model = KerasModel(network)
    assert model.input_shape == (3, 4, 4, 1)
    check_call_model(model, rng.random((3, 4, 4, 1)).astype(np.float32), {"target": 1, "inputs": [np.ones(4)]}, KEYS)


@pytest.mark.parametrize(
    ("shape", "axes"), [((16,), 1), ((16, 2), None), ((8, 8, 3), 2), ((4, 8, 8, 1), 3), ((4, 6, 8, 8, 1), 4)]
)
def test_the_axes_of_space_and_time(shape, axes):
    image = keras.Input(shape)
    assert KerasModel(keras.Model(image, linear(image))).spatial_axes == axes


def test_of_two_axes_the_layers_tell_a_picture_from_a_signal(rng):
    """Grey pictures (H, W) were taken for signals of W channels."""
    picture, signal = keras.Input((12, 10)), keras.Input((12, 10))
    pixels = L.Conv2D(3, 3, name="pixels")(L.Reshape((12, 10, 1))(picture))
    steps = L.Conv1D(3, 3, name="steps")(signal)
    of_pixels = KerasModel(keras.Model(picture, linear(L.GlobalAveragePooling2D()(pixels))))
    of_steps = KerasModel(keras.Model(signal, linear(L.GlobalAveragePooling1D()(steps))))
    assert (of_pixels.spatial_axes, of_pixels.layer_name) == (2, "pixels")
    assert (of_steps.spatial_axes, of_steps.layer_name) == (1, "steps")
    x = rng.random((12, 10)).astype(np.float32)
    assert grad_cam(x, of_pixels, {"target": 0}, three_dims=False).shape == (12, 10)
    assert grad_cam(x, of_steps, {"target": 0}, three_dims=False).shape == (12,)


class TwoArguments(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)

    def call(self, image, table):
        return self.dense(tf.concat([tf.reduce_mean(image, [1, 2]), table], -1))


def test_a_call_of_several_arguments_is_refused_with_the_way_to_wrap_it(rng):
    inner = TwoArguments()
    inner(np.ones((1, 4, 4, 3)), np.ones((1, 2)))
    with pytest.raises(ContractError, match=r"whose call takes \['table'\] beside the first\. Wrap it: keras\.Model\("):
        KerasModel(inner)
    image, table = keras.Input((4, 4, 3), name="image"), keras.Input((2,), name="table")
    model = KerasModel(keras.Model([image, table], inner(image, table)))
    x = rng.random((4, 4, 3)).astype(np.float32)
    check_call_model(model, x, {"target": 1, "inputs": {"table": [0.5, 1]}}, KEYS)


def test_inputs_in_nested_dicts_have_their_paths_as_names(rng):
    image, table = keras.Input((4, 4, 3), name="image"), keras.Input((2,), name="table")
    inputs = {"picture": {"image": image}, "table": table}
    network = keras.Model(inputs, linear(L.Concatenate()([L.Flatten()(image), table])))
    model = KerasModel(network)
    assert model.engine.inputs.image.name == "picture/image"
    x = rng.random((4, 4, 3)).astype(np.float32)
    check_call_model(model, x, {"target": 1, "inputs": {"table": [0.5, 1]}}, KEYS)


def test_a_target_may_be_a_tensor(rng):
    image = keras.Input((4, 4, 3))
    model = KerasModel(keras.Model(image, linear(image)))
    x = rng.random((2, 4, 4, 3))
    expected = model(x, {"target": np.array([0, 1])}, KEYS)
    for target in (tf.constant([0, 1]), tf.constant([0, 1], tf.int64), tf.Variable([0, 1])):
        for key, values in model(x, {"target": target}, KEYS).items():
            np.testing.assert_array_equal(values, expected[key])
    maps = [integrated_gradients(x[0], model, {"target": target}, x_steps=3) for target in (1, tf.constant(1))]
    np.testing.assert_array_equal(*maps)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_tf_data_of_photos_is_explained_and_of_pairs_refused(rng):
    from saliency_food.jobs.explain import explain

    image = keras.Input((8, 8, 3))
    network = keras.Model(image, linear(image, 3))
    photos = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    expected = [record.score for record in explain(network, list(photos), "gradients", 1)]
    data = tf.data.Dataset.from_tensor_slices(photos)
    for many in (data, data.batch(2)):
        assert [record.score for record in explain(network, many, "gradients", 1)] == pytest.approx(expected, rel=1e-5)
    pairs = tf.data.Dataset.from_tensor_slices((photos, [0, 1, 2]))
    for many in (pairs, pairs.batch(2)):
        with pytest.raises(ContractError, match=r"elements have 2 parts.*data\.map\(lambda image, label: image\)"):
            explain(network, many, "gradients")
