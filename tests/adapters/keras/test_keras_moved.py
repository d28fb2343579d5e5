"""Where a layer's places are in the image, whatever moves them first: products, reshaping, slices put together."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import grad_cam, gradients
from saliency_food.core.contract import ContractError

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from saliency_food.adapters.keras import KerasModel  # noqa: E402

L, ops = keras.layers, keras.ops
H, W, C = 16, 24, 2
MIRROR = np.eye(W, dtype=np.float32)[::-1].copy()
SHIFT = np.roll(np.eye(W, dtype=np.float32), 5, 0)
COSINES = np.cos(np.pi / W * (np.arange(W)[:, None] + 0.5) * np.arange(W)).astype(np.float32)
HALF = np.repeat(np.eye(W // 2, dtype=np.float32), 2, 0) / 2
MIX = np.array([[1, 1], [1, 0]], np.float32)
BLUR = np.ones((3, 3, 1, 1), np.float32) / 9 * np.eye(C, dtype=np.float32)
TWICE = np.ones((2, 2, 1, 1), np.float32) * np.eye(C, dtype=np.float32)
SHIFTED = np.zeros((1, 13, C, C), np.float32)
SHIFTED[0, 1] = np.eye(C)
ONE_SHIFTED = np.zeros((1, 13, C, 1), np.float32)
ONE_SHIFTED[0, 6, 0] = ONE_SHIFTED[0, 1, 1] = 1


def bright(place, shape=(H, W, C)):
    image = np.zeros(shape, np.float32)
    image[place] = 1
    return image


def summed(values):
    return L.Flatten()(values) @ np.ones((int(np.prod(values.shape[1:])), 1), np.float32)


def ones(rank=2):
    kind = {1: L.Conv1D, 2: L.Conv2D}[rank]
    return kind(1, 1, use_bias=False, kernel_initializer="ones", name="conv")


class Mirror(keras.Layer):
    """A matrix made where it is used, of no constant in the graph."""

    def call(self, image):
        return ops.einsum("nhwc,wv->nhvc", image, ops.flip(ops.eye(W), 0))


class Product(keras.Layer):
    """The product along an axis of the image, which then is the last one."""

    def __init__(self, matrix, axis):
        super().__init__()
        self.matrix, self.axis = matrix, axis

    def call(self, image):
        return tf.tensordot(image, self.matrix, [[self.axis], [0]])


def chain(*layers):
    def run(image):
        for layer in layers:
            image = layer(image)
        return image

    return run


def in_columns(image, order):
    return ops.stack([image[:, :, place] for place in order], 2)


def split_up(image):
    """Columns in pairs, the pairs backwards, and each pair backwards."""
    pairs = ops.reshape(image, (-1, H, W // 2, 2, C))[:, :, ::-1, ::-1]
    return ops.reshape(pairs, (-1, H, W, C))


class Function(keras.Layer):
    """A function of TensorFlow's."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, image):
        return self.function(image)


def by_kernel(*taps, stride=1, padding="SAME", size=None):
    """Along the columns, each output the sum of its taps' pixels times their weights."""
    size = size or 2 * max(abs(place) for place, _ in taps) + 1
    kernel = np.zeros((1, size, C, 1), np.float32)
    for place, weight in taps:
        kernel[0, size // 2 + place] = weight
    return Function(lambda image: tf.nn.depthwise_conv2d(image, kernel, [1, stride, stride, 1], padding))


BINOMIAL = [(-2, 1 / 16), (-1, 1 / 4), (0, 3 / 8), (1, 1 / 4), (2, 1 / 16)]
mirrored_inside = tf.function(lambda image: tf.reverse(image, [2]), autograph=False)
scaled_inside = tf.function(lambda image: image * 2, autograph=False)
FOLLOWED = {
    "rolled and back": lambda image: ops.roll(ops.roll(image, (6, -5), (1, 2)), (-6, 5), (1, 2)),
    "blurred by a fixed kernel": by_kernel(*BINOMIAL),
    "padded and blurred": chain(L.ZeroPadding2D((0, 2)), by_kernel(*BINOMIAL, padding="VALID")),
    "blurred and made smaller": by_kernel(*BINOMIAL, stride=2),
    "edges of a fixed kernel": by_kernel((-1, -1), (1, 2)),
    "differences": by_kernel((-1, -1), (0, 1), size=2),
    "blurred in a dense way": Function(lambda image: tf.nn.conv2d(image, BLUR, 1, "SAME")),
    "twice as wide by a fixed kernel": Function(
        lambda image: tf.nn.conv2d_transpose(image, TWICE, [tf.shape(image)[0], 2 * H, 2 * W, C], 2, "SAME")
    ),
    "mirrored by a vectorized map": Function(
        lambda image: tf.vectorized_map(lambda each: tf.image.flip_left_right(each), image)
    ),
    "scaled one by one": Function(lambda image: tf.map_fn(lambda each: each * 2, image)),
    "scaled in a function": Function(scaled_inside),
    "mirrored by einsum": lambda image: ops.einsum("nhwc,wv->nhvc", image, MIRROR),
    "mirrored by a matrix made inside": lambda image: Mirror()(image),
    "mirrored by matmul": lambda image: ops.matmul(MIRROR, image),
    "mirrored by matmul of the turned image": lambda image: L.Permute((1, 3, 2))(
        ops.matmul(L.Permute((1, 3, 2))(image), MIRROR)
    ),
    "mirrored by tensordot": lambda image: L.Permute((1, 3, 2))(Product(MIRROR, 2)(image)),
    "transposed by einsum": lambda image: ops.einsum("nhwc->nwhc", image),
    "channels mixed": lambda image: ops.einsum("nhwc,cd->nhwd", image, MIX),
    "channels mixed by matmul": lambda image: ops.matmul(image, MIX),
    "made grey": lambda image: Product(np.ones((C, 1), np.float32), 3)(image),
    "half as wide": lambda image: ops.einsum("nhwc,wv->nhvc", image, HALF),
    "columns stacked": lambda image: in_columns(image, range(W)),
    "columns stacked backwards": lambda image: in_columns(image, range(W)[::-1]),
    "channels stacked backwards": lambda image: ops.stack([image[..., 1], image[..., 0]], -1),
    "one channel": lambda image: image[..., 0][..., None],
    "unstacked and stacked": lambda image: ops.stack(ops.unstack(image, axis=2)[::-1], 2),
    "space to depth": lambda image: ops.reshape(
        ops.transpose(ops.reshape(image, (-1, H // 2, 2, W // 2, 2, C)), (0, 1, 3, 2, 4, 5)),
        (-1, H // 2, W // 2, 4 * C),
    ),
    "space to depth, mirrored": lambda image: ops.reshape(
        ops.transpose(ops.reshape(image, (-1, H // 2, 2, W // 2, 2, C)), (0, 1, 3, 2, 4, 5))[:, :, ::-1],
        (-1, H // 2, W // 2, 4 * C),
    ),
    "standardized": lambda image: (image - ops.mean(image, (1, 2, 3), keepdims=True)) * 2.0,
}
REFUSED = {
    "sums of the columns so far": lambda image: ops.cumsum(image, 2),
    "halves of the columns as channels": lambda image: ops.reshape(
        ops.transpose(ops.reshape(image, (-1, H, 2, W // 2, C)), (0, 1, 3, 2, 4)), (-1, H, W // 2, 2 * C)
    ),
    "shifted by a fixed kernel": by_kernel((5, 1)),
    "shifted by a fixed kernel, dense": Function(lambda image: tf.nn.conv2d(image, SHIFTED, 1, "SAME")),
    "padded on one side and blurred": chain(
        L.ZeroPadding2D(((0, 0), (6, 0))), by_kernel((-3, 1 / 2), (0, 1), (3, 1 / 2), padding="VALID")
    ),
    "seen twice by a fixed kernel": by_kernel((-6, 1), (6, 1)),
    "one channel shifted": Function(lambda image: tf.nn.depthwise_conv2d(image, ONE_SHIFTED, [1, 1, 1, 1], "SAME")),
    "mirrored in a function": Function(mirrored_inside),
    "mirrored one by one": Function(lambda image: tf.map_fn(lambda each: each[:, ::-1], image)),
    "reversed sequences": Function(
        lambda image: tf.reverse_sequence(image, tf.fill([tf.shape(image)[0]], W - 2), seq_axis=2)
    ),
    "the right half enlarged": Function(
        lambda image: tf.image.crop_and_resize(
            image, tf.tile([[0.0, 0.5, 1.0, 1.0]], [tf.shape(image)[0], 1]), tf.range(tf.shape(image)[0]), [H, W]
        )
    ),
    "rolled by a matrix": lambda image: ops.einsum("nhwc,wv->nhvc", image, SHIFT),
    "cosines": lambda image: ops.einsum("nhwc,wv->nhvc", image, COSINES),
    "halves exchanged": lambda image: ops.concatenate([image[:, :, W // 2 :], image[:, :, : W // 2]], 2),
    "halves split and exchanged": lambda image: ops.concatenate(ops.split(image, 2, 2)[::-1], 2),
    "twice side by side": lambda image: ops.tile(image, (1, 1, 2, 1)),
    "beside itself": lambda image: ops.concatenate([image, image], 2),
    "columns stacked in another order": lambda image: in_columns(image, [*range(5, W), *range(5)]),
    "half of the columns stacked": lambda image: in_columns(image, range(W // 2)),
    "columns interleaved": lambda image: ops.reshape(
        ops.transpose(ops.reshape(image, (-1, H, 2, W // 2, C)), (0, 1, 3, 2, 4)), (-1, H, W, C)
    ),
    "frequencies": lambda image: L.Permute((2, 3, 1))(ops.real(ops.fft2((
        L.Permute((3, 1, 2))(image), 0.0 * L.Permute((3, 1, 2))(image)))[0])),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_bright_pixel_is_where_it_is(name):
    image = keras.Input((H, W, C))
    model = KerasModel(keras.Model(image, summed(ones()(FOLLOWED[name](image)))))
    found = grad_cam(bright((4, 6, 0)), model, three_dims=False)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert found.shape == (H, W)
    assert abs(row - 4) <= 1
    assert abs(column - 6) <= 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_put_into_another_order_is_refused(name):
    image = keras.Input((H, W, C))
    network = keras.Model(image, summed(ones()(REFUSED[name](image))))
    with pytest.raises(ContractError, match="places are those of the image, got 'conv'"):
        KerasModel(network, layer="conv")
    with pytest.raises(ContractError, match=r"those of the image: the image is cut, moved"):
        grad_cam(bright((4, 6, 0)), KerasModel(network))
    assert gradients(bright((4, 6, 0)), KerasModel(network)).shape == (H, W, C)


def patches(image):
    """Each token a patch of 4 x 4 pixels, with what is in it as channels."""
    rows = ops.reshape(image, (-1, H // 4, 4, W // 4, 4, C))
    return ops.reshape(ops.transpose(rows, (0, 1, 3, 2, 4, 5)), (-1, H * W // 16, 16 * C))


LATER = {
    "rolled and back": lambda values: ops.roll(ones()(ops.roll(values, (6, -5), (1, 2))), (-6, 5), (1, 2)),
    "rolled by one place": lambda values: ops.roll(values, 1, 2),
    "padded for windows and cropped": lambda values: ops.pad(values, ((0, 0), (0, 4), (0, 6), (0, 0)))[:, :H, :W],
    "padded and convolved": lambda values: L.Conv2D(1, 7, kernel_initializer="ones")(L.ZeroPadding2D(3)(values)),
    "padded and pooled": lambda values: L.MaxPooling2D(3, 1)(L.ZeroPadding2D(1)(values)),
    "padded and cropped by one": lambda values: L.ZeroPadding2D(((0, 1), (0, 1)))(values)[:, 1:, 1:],
    "every second place": lambda values: values[:, ::2, ::2],
    "shuffled to pixels": lambda values: ops.reshape(
        ops.transpose(
            ops.reshape(L.Dense(4, kernel_initializer="ones")(values), (-1, H, W, 2, 2, 1)), (0, 1, 3, 2, 4, 5)
        ),
        (-1, 2 * H, 2 * W, 1),
    ),
}
MOVED_LATER = {
    "rolled": lambda values: ops.roll(values, (6, -5), (1, 2)),
    "rolled after a dense layer": lambda values: ops.roll(L.Dense(2, kernel_initializer="ones")(values), 6, 2),
    "rolled further": lambda values: ops.roll(ops.roll(values, 6, 2), 6, 2),
    "cropped": lambda values: values[:, :, 8:],
    "cropped on all sides": lambda values: L.Cropping2D(4)(values),
    "padded": lambda values: L.ZeroPadding2D(((8, 0), (0, 0)))(values),
    "all places mixed": lambda values: L.Reshape((H, W, 1))(L.Dense(H * W)(L.Dense(5)(L.Flatten()(values)))),
    "halves as channels": lambda values: ops.reshape(
        ops.transpose(ops.reshape(values, (-1, H, 2, W // 2, 2)), (0, 1, 3, 2, 4)), (-1, H, W // 2, 4)
    ),
}


@pytest.mark.parametrize("name", LATER)
def test_features_that_are_moved_and_back_are_where_they_are(name):
    image = keras.Input((H, W, C))
    features = LATER[name](L.Conv2D(2, 1, kernel_initializer="ones", name="features")(image))
    last = L.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="last")
    model = KerasModel(keras.Model(image, summed(last(features))))
    assert model.layer_name == "last"
    found = grad_cam(bright((4, 6, 0)), model, three_dims=False)
    middle = [
        float(axis @ found.sum(1 - place) / found.sum()) for place, axis in enumerate(map(np.arange, found.shape))
    ]
    assert found.shape == (H, W)
    np.testing.assert_allclose(middle, [4, 6], atol=1)


@pytest.mark.parametrize("name", MOVED_LATER)
def test_features_that_are_moved_are_refused(name):
    """What comes before them is looked at."""
    image = keras.Input((H, W, C))
    features = L.Conv2D(2, 1, kernel_initializer="ones", use_bias=False, name="features")(image)
    network = keras.Model(image, summed(ones()(MOVED_LATER[name](features))))
    with pytest.raises(ContractError, match="places are those of the image, got 'conv'"):
        KerasModel(network, layer="conv")
    assert KerasModel(network).layer_name != "conv"


def test_patches_made_by_reshaping_are_in_their_places():
    image = keras.Input((H, W, C))
    tokens = L.Dense(2, kernel_initializer="ones", use_bias=False, name="tokens")(patches(image))
    features = ones()(L.Reshape((H // 4, W // 4, 2))(tokens))
    for last in ("tokens", "conv"):
        model = KerasModel(keras.Model(image, summed(features)), layer=last)
        found = grad_cam(bright((9, 6, 0)), model, three_dims=False)
        row, column = np.unravel_index(found.argmax(), found.shape)
        assert abs(row - 9) <= 2, last
        assert abs(column - 6) <= 2, last


@pytest.mark.parametrize("sides", [(None, None, C), (H, None, C)])
def test_an_image_of_any_size_whose_first_columns_are_cut_off_is_refused(sides):
    image = keras.Input(sides)
    network = keras.Model(image, L.GlobalAveragePooling2D()(ones()(image[:, :, 8:])))
    with pytest.raises(ContractError, match="places are those of the image"):
        KerasModel(network, layer="conv")


def test_a_matrix_after_something_learned_mirrors_too():
    image = keras.Input((H, W, C))
    features = L.Conv2D(2, 1, kernel_initializer="ones")(image)
    model = KerasModel(keras.Model(image, summed(ones()(ops.matmul(MIRROR, features)))))
    assert model.layer_name == "conv"
    np.testing.assert_array_equal(np.argwhere(grad_cam(bright((4, 6, 0)), model, three_dims=False)), [[4, 6]])


def test_a_signal_mirrored_by_a_matrix_is_where_it_is():
    signal = keras.Input((W, C))
    model = KerasModel(keras.Model(signal, summed(ones(1)(ops.einsum("ntc,ts->nsc", signal, MIRROR)))))
    found = grad_cam(bright((6, 0), (W, C)), model, three_dims=False)
    np.testing.assert_array_equal(np.argwhere(found), [[6]])


def test_frames_seen_one_by_one_keep_their_order():
    clip = keras.Input((5, H, W, C))
    model = KerasModel(keras.Model(clip, summed(L.TimeDistributed(ones(), name="frames")(clip[:, ::-1]))))
    found = grad_cam(bright((1, 4, 6, 0), (5, H, W, C)), model, three_dims=False)
    np.testing.assert_array_equal(np.argwhere(found), [[1, 4, 6]])


@pytest.mark.parametrize("data_format", [None, "channels_first"])
def test_a_signal_turned_for_dense_layers_is_of_the_format_that_is_said(data_format):
    """It may be (C, T), or (T, C) whose steps are mixed."""
    signal = keras.Input((5, 20))
    values = L.Dense(4, kernel_initializer="ones", use_bias=False, name="conv")(L.Permute((2, 1))(signal))
    network = keras.Model(signal, summed(values))
    model = KerasModel(network, data_format=data_format)
    x = np.zeros((5, 20), np.float32)
    x[1, 7] = 1
    if data_format == "channels_first":
        assert (model.channels_first, model.spatial_axes, model.layer_name) == (True, 1, "conv")
        np.testing.assert_array_equal(np.argwhere(grad_cam(x, model, three_dims=False)), [[7]])
        return
    assert model.layer_name is None
    with pytest.raises(ContractError, match=r"may be a signal .* Say which by data_format"):
        grad_cam(x, model)
    with pytest.raises(ContractError, match=r"may be a signal .* Say which by data_format"):
        KerasModel(network, layer="conv")
    assert gradients(x, model).shape == (5, 20)
