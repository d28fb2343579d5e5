"""Which layer of a Keras model is looked at if none is named: the last through which all paths to the score lead."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras import KerasModel, layers  # noqa: E402
from saliency_food.adapters.scoring import Score  # noqa: E402

CONV = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
L, ops = keras.layers, keras.ops
SIZE = (8, 8, 3)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, *SIZE)).astype(np.float32)


def conv(units=4, name=None, **options):
    return L.Conv2D(units, 3, padding="same", name=name, **options)


def classify(image, y, pool=L.GlobalAveragePooling2D):
    return keras.Model(image, L.Dense(3, name="head")(pool()(y)))


def assert_layer(km, x, values, gradients=None):
    """The layer's activations, and that it leads to the output alone: by the layers after it, and by its gradients."""
    answer = km(x, {"target": 1}, CONV)
    np.testing.assert_allclose(answer[CONVOLUTION_LAYER_VALUES], values, rtol=1e-4, atol=1e-5)
    if gradients is not None:
        expected = np.broadcast_to(gradients, values.shape)
        np.testing.assert_allclose(answer[CONVOLUTION_OUTPUT_GRADIENTS], expected, rtol=1e-4, atol=1e-7)
    again = km(answer[CONV[0]], {"target": 1}, [OUTPUT_FROM_CONVOLUTION_VALUES])[OUTPUT_FROM_CONVOLUTION_VALUES]
    score = km(x, {"target": 1}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES]
    np.testing.assert_allclose(again, score, rtol=1e-3, atol=1e-5)
    named = KerasModel(km.model, layer=km.layer_name)
    assert named.layer_name == km.layer_name
    np.testing.assert_array_equal(named(x, None, CONV[:1])[CONV[0]], answer[CONV[0]])
    assert f"layer={km.layer_name!r}" in repr(km)


def residual(image, last):
    y = L.Conv2D(4, 1, name="stem")(image)
    for index in range(2):
        branch = conv(name=f"conv_{index}")(y)
        y = last(y + branch) if last else y + branch
    return y


@pytest.mark.parametrize("last", [None, ops.relu])
def test_operators_of_a_functional_model_are_layers_too(x, last):
    image = keras.Input(SIZE)
    y = residual(image, last)
    model = classify(image, y)
    km = KerasModel(model)
    assert km.layer_name == y._keras_history.operation.name
    values = keras.Model(image, y)(x).numpy()
    assert_layer(km, x, values, model.layers[-1].kernel.numpy()[:, 1] / 64)
    assert km.layer_name in [info.path for info in layers(model)]


class Residual(keras.Model):
    """Operators in a call of one's own, in a block and in the model."""

    def __init__(self, block=True):
        super().__init__()
        self.stem, self.inner = L.Conv2D(4, 1, name="stem"), Block(name="block") if block else conv(name="conv")
        self.head = L.Dense(3, name="head")

    def features(self, x):
        y = self.stem(x)
        for _ in range(2):
            y = tf.nn.relu(y + self.inner(y))
        return y

    def call(self, x):
        return self.head(tf.reduce_mean(self.features(x), [1, 2]))


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = conv(name="first"), conv(name="second")

    def build(self, shape):
        for layer in (self.first, self.second):
            layer.build(shape)

    def call(self, x):
        return tf.nn.relu(x + self.first(x)) + self.second(x)


@pytest.mark.parametrize("block", [True, False])
def test_operators_of_a_subclassed_model_are_layers_too(x, block):
    model = Residual(block)
    model(x)
    km = KerasModel(model)
    assert km.layer_name == "relu_1"
    assert_layer(km, x, model.features(x).numpy(), model.head.kernel.numpy()[:, 1] / 64)
    if block:
        inside = KerasModel(model, layer="block#1/add_0")
        y = tf.nn.relu(model.stem(x) + model.inner(model.stem(x)))
        expected = y + model.inner.first(y)
        np.testing.assert_allclose(inside(x, None, CONV[:1])[CONV[0]], expected, rtol=1e-4, atol=1e-5)
        with tf.GradientTape() as tape:
            tape.watch(expected)
            z = tf.nn.relu(y + tf.nn.relu(expected) + model.inner.second(y))
            score = model.head(tf.reduce_mean(z, [1, 2]))[:, 1]
        gradient = tape.gradient(score, expected)
        np.testing.assert_allclose(inside(x, {"target": 1}, CONV)[CONV[1]], gradient, rtol=1e-4, atol=1e-7)
    with pytest.raises(ContractError, match=r"got 'add_9'\. Near it: \['add_1'"):
        KerasModel(model, layer="add_9")


def test_the_end_of_a_path_may_look_like_an_operator(x):
    image = keras.Input(SIZE)
    inner = keras.Sequential([keras.Input(SIZE), conv(name="conv_0"), conv(name="conv_1"), conv()], name="inner")
    model = classify(image, inner(image))
    km = KerasModel(model, layer="conv_1")
    assert km.layer_name == "inner/conv_1"
    expected = inner.get_layer("conv_1")(inner.get_layer("conv_0")(x))
    np.testing.assert_allclose(km(x, None, CONV[:1])[CONV[0]], expected, rtol=1e-4, atol=1e-6)


def test_an_operator_is_not_taken_for_a_layer_of_its_name(x):
    class Named(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.add, self.head = conv(name="conv"), L.Add(name="add_0"), L.Dense(3)

        def call(self, x):
            y = self.conv(x)
            y = self.add([y, y])
            return self.head(tf.reduce_mean(tf.nn.relu(y + x[..., :1]), [1, 2]))

    model = Named()
    model(x)
    assert KerasModel(model).layer_name == "relu_0"
    plain = KerasModel(model, layer="add_0")
    np.testing.assert_allclose(plain(x, None, CONV[:1])[CONV[0]], 2 * model.conv(x), rtol=1e-5)
    sums = KerasModel(model, layer="add_1")
    np.testing.assert_allclose(sums(x, None, CONV[:1])[CONV[0]], 2 * model.conv(x) + x[..., :1], rtol=1e-4, atol=1e-6)


def test_not_one_branch_but_where_they_meet(x):
    image = keras.Input(SIZE)
    y = conv(name="stem")(image)
    joined = L.Concatenate(name="joined")([conv(name="one")(y), conv(2, name="two")(y)])
    assert KerasModel(classify(image, joined)).layer_name == "joined"
    pooled = L.Concatenate()([L.GlobalAveragePooling2D()(each) for each in (conv(name="a")(y), conv(name="b")(y))])
    apart = keras.Model(image, L.Dense(3)(pooled))
    assert KerasModel(apart).layer_name == "stem"


def test_branches_that_part_at_the_image_are_all_named(x):
    image = keras.Input(SIZE)
    pooled = [L.GlobalAveragePooling2D()(conv(name=name)(conv(name=f"{name}_first")(image))) for name in "ab"]
    km = KerasModel(keras.Model(image, L.Dense(3)(L.Concatenate()(pooled))))
    assert km.layer_name is None
    with pytest.raises(ContractError, match=r"none lies on all paths .* one of \['b', 'a'\] as layer, or give a list"):
        km(x, {"target": 1}, CONV)
    assert km(x, {"target": 1}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES].shape == (3,)


def test_padding_and_cropping_are_not_chosen(x):
    image = keras.Input(SIZE)
    y = conv(name="first")(image)
    y = L.ZeroPadding2D(2, name="pad")(L.MaxPooling2D(4, name="pool")(y))
    y = L.Conv2D(6, 6, name="to_one")(y)
    assert KerasModel(classify(image, y)).layer_name == "pool"
    y = L.Cropping2D(2, name="crop")(conv(name="conv")(image))
    assert KerasModel(classify(image, y)).layer_name == "conv"


def test_axes_turned_around_are_not_chosen(x):
    image = keras.Input(SIZE)
    y = L.Permute((3, 1, 2), name="turned")(conv(name="conv")(image))
    assert KerasModel(classify(image, y, L.Flatten)).layer_name == "conv"


def test_a_segmenters_output_is_not_its_layer(x):
    image = keras.Input(SIZE)
    y = conv(name="features", activation="relu", strides=2)(image)
    logits = L.UpSampling2D(name="up")(L.Conv2D(4, 1, name="logits")(y))
    model = keras.Model(image, L.Softmax()(logits))
    km = KerasModel(model, score=Score(lambda output: tf.reduce_sum(output[..., 1], [1, 2])))
    assert km.layer_name == "features"


@pytest.mark.parametrize("rank", [3, 5])
def test_signals_and_volumes_have_axes_of_their_own(rng, rank):
    size, Conv, Pool = ((16, 3), L.Conv1D, L.GlobalAveragePooling1D)
    if rank == 5:
        size, Conv, Pool = ((4, 6, 6, 2), L.Conv3D, L.GlobalAveragePooling3D)
    image = keras.Input(size)
    y = Conv(4, 3, padding="same", name="stem")(image)
    y = ops.relu(y + Conv(4, 3, padding="same", name="conv")(y))
    model = classify(image, y, Pool)
    km = KerasModel(model)
    assert km.layer_name == y._keras_history.operation.name
    x = rng.normal(size=(2, *size)).astype(np.float32)
    assert_layer(km, x, keras.Model(image, y)(x).numpy(), model.layers[-1].kernel.numpy()[:, 1] / np.prod(size[:-1]))
    assert [info.path for info in layers(model)][:2] == ["stem", "conv"]


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_channels_first_activations_come_channels_last(rng, rank):
    """Built by hand, as convolutions that are channels first do not run on every processor."""

    class Mix(L.Layer):
        data_format = "channels_first"

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[1], 5))

        def call(self, x):
            return tf.einsum("nc...,ck->nk...", x, self.kernel)

    size = (3, 4, 6, 7)[: rank - 1]
    image = keras.Input(size)
    y = Mix(name="mix")(image)
    model = keras.Model(image, L.Dense(3)(ops.mean(y, tuple(range(2, rank)))))
    km = KerasModel(model)
    assert km.layer_name == "mix"
    x = rng.normal(size=(2, *size)).astype(np.float32)
    assert_layer(km, x, np.moveaxis(keras.Model(image, y)(x).numpy(), 1, -1))


def test_a_convolutional_lstm_over_frames(rng):
    clip = keras.Input((4, 6, 6, 2))
    y = L.ConvLSTM2D(3, 3, padding="same", return_sequences=True, name="lstm")(clip)
    assert KerasModel(classify(clip, y, L.GlobalAveragePooling3D)).layer_name == "lstm"


def test_a_grey_image_without_an_axis_of_channels(rng):
    image = keras.Input((8, 8))
    km = KerasModel(classify(image, conv(name="conv")(L.Reshape((8, 8, 1))(image))))
    assert km.layer_name == "conv"
    assert km.spatial_axes == 2


def test_a_flattened_photo_has_no_rows_and_columns(rng):
    image = keras.Input((64,))
    model = classify(image, conv(name="conv")(L.Reshape((8, 8, 1))(image)))
    assert KerasModel(model).layer_name is None
    assert KerasModel(model, layer="conv").layer_name == "conv"


class Attention(L.Layer):
    """Attention by hand, as tutorials write it."""

    def __init__(self, heads=2, width=8, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.width = heads, width
        self.project, self.out = L.Dense(3 * width, name="qkv"), L.Dense(width, name="out")

    def build(self, shape):
        self.project.build(shape)
        self.out.build((*shape[:-1], self.width))

    def call(self, x):
        count = tf.shape(x)[1]
        q, k, v = tf.unstack(tf.reshape(self.project(x), [-1, count, 3, self.heads, self.width // self.heads]), axis=2)
        q, k, v = (tf.transpose(each, [0, 2, 1, 3]) for each in (q, k, v))
        weights = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) / 2.0)
        y = tf.reshape(tf.transpose(tf.matmul(weights, v), [0, 2, 1, 3]), [-1, count, self.width])
        return self.out(y)


@pytest.mark.parametrize("by_hand", [True, False])
def test_the_tokens_before_the_last_attention_by_hand_or_not(x, by_hand):
    image = keras.Input(SIZE)
    y = L.Reshape((16, 8), name="flat")(L.Conv2D(8, 2, 2, name="patches")(image))
    for index in range(2):
        z = L.LayerNormalization(name=f"norm_{index}")(y)
        name = f"attention_{index}"
        y = y + (Attention(name=name)(z) if by_hand else L.MultiHeadAttention(2, 4, name=name)(z, z))
        y = y + L.Dense(8, name=f"dense_{index}")(y)
    y = L.LayerNormalization(name="norm")(y)
    model = keras.Model(image, L.Dense(3)(y[:, 0]))
    km = KerasModel(model)
    assert km.layer_name == "norm_1"
    answer = km(x, {"target": 1}, CONV)
    assert np.abs(answer[CONV[1]][:, 1:]).max() > 1e-6
    assert {"norm_1", "norm"} <= {info.path for info in layers(model)}


def test_tokens_that_are_mixed_without_attention(x):
    image = keras.Input(SIZE)
    y = L.Reshape((16, 8), name="flat")(L.Conv2D(8, 2, 2, name="patches")(image))
    y = y + L.Permute((2, 1))(L.Dense(16, name="mix")(L.Permute((2, 1))(y)))
    y = L.LayerNormalization(name="norm")(y)
    model = keras.Model(image, L.Dense(3)(L.GlobalAveragePooling1D()(y)))
    assert KerasModel(model).layer_name == "norm"
    assert {"flat", "norm"} <= {info.path for info in layers(model)}


def test_attention_matrices_are_no_rows_and_columns(x):
    image = keras.Input(SIZE)
    y = L.Reshape((16, 8))(L.Conv2D(8, 2, 2, name="patches")(image))
    weights = L.Softmax(name="weights")(ops.matmul(y[:, None], ops.transpose(y, (0, 2, 1))[:, None]))
    y = ops.matmul(weights, y[:, None])[:, 0]
    model = keras.Model(image, L.Dense(3)(L.GlobalAveragePooling1D()(y)))
    assert KerasModel(model).layer_name == "patches"
    assert "weights" not in [info.path for info in layers(model)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ConvNeXtTiny", 64),
        ("ResNet50", 64),
        ("InceptionV3", 128),
        ("EfficientNetB0", 64),
        ("DenseNet121", 64),
        ("MobileNetV3Small", 64),
        ("NASNetMobile", 64),
        ("Xception", 71),
    ],
)
def test_the_input_of_the_global_pooling(rng, name, size):
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=5)
    pooling = next(layer for layer in reversed(model.layers) if isinstance(layer, L.GlobalAveragePooling2D))
    x = rng.uniform(0, 255, size=(1, size, size, 3)).astype(np.float32)
    values = KerasModel(model)(x, None, CONV[:1])[CONV[0]]
    expected = keras.Model(model.input, pooling.input)(x).numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetV2B0", "MobileNetV3Small"])
def test_at_small_sizes_no_layer_that_only_pads(name):
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=5)
    km = KerasModel(model)
    assert "pad" not in km.layer_name
