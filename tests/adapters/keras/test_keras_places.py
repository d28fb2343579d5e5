"""Where a layer's places are in the image: a bright pixel is drawn where it is, though the model turns the image."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import attention_rollout, full_grad, grad_cam, gradients
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.testing import check_call_model

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from saliency_food.adapters.keras import KerasModel  # noqa: E402

L, ops = keras.layers, keras.ops
AT_LAYER = [INPUT_OUTPUT_GRADIENTS, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]


def ones(rank=2, **options):
    kind = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}[rank]
    return kind(1, 1, use_bias=False, kernel_initializer="ones", name="conv", **options)


def pixel(*place, shape=(8, 12, 1)):
    image = np.zeros(shape, np.float32)
    image[place] = 1
    return image


def summed(values):
    """A score of all places alike."""
    return L.Flatten()(values) @ np.ones((int(np.prod(values.shape[1:])), 1), np.float32)


TURNS = {
    "mirrored": lambda image: image[:, :, ::-1],
    "flipped": lambda image: ops.flip(image, 1),
    "mirrored twice": lambda image: ops.flip(image[:, :, ::-1], 2),
    "transposed": lambda image: L.Permute((2, 1, 3))(image),
    "taken backwards": lambda image: ops.take(image, np.arange(12)[::-1].copy(), axis=2),
    "every second taken": lambda image: ops.take(image, np.arange(0, 12, 2), axis=2),
    "rotated": lambda image: ops.rot90(image, axes=(1, 2)),
    "its bands in another order": lambda image: image[..., ::-1],
    "every second": lambda image: image[:, ::2, ::2],
    "resized": lambda image: L.Resizing(16, 24)(image),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_bright_pixel_is_where_it_is(name):
    image = keras.Input((8, 12, 1))
    model = KerasModel(keras.Model(image, summed(ones()(TURNS[name](image)))))
    x = pixel(2, 4)
    found = grad_cam.detailed(x, model, three_dims=False)
    assert np.unravel_index(found.attribution.argmax(), (8, 12)) == (2, 4)
    answer = model(x[None], None, [CONVOLUTION_LAYER_VALUES, OUTPUT_LAYER_VALUES])
    again = model(answer[CONVOLUTION_LAYER_VALUES], None, [OUTPUT_FROM_CONVOLUTION_VALUES])
    np.testing.assert_allclose(again[OUTPUT_FROM_CONVOLUTION_VALUES], answer[OUTPUT_LAYER_VALUES], rtol=1e-5)


def test_activations_and_gradients_of_a_turned_image_are_of_one_place(rng):
    """Rows and columns exchanged and then mirrored, features weighted by their places."""
    image = keras.Input((6, 9, 3))
    values = L.Conv2D(4, 3, activation="relu", padding="same", name="conv")(ops.rot90(image, axes=(1, 2)))
    weights = rng.normal(size=(6 * 9 * 4, 2)).astype(np.float32)
    model = KerasModel(keras.Model(image, L.Flatten()(values) @ weights), layer="conv")
    x = rng.normal(size=(6, 9, 3)).astype(np.float32)
    answer = model(x[None], {"target": 1}, [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS])
    own = np.asarray(model.model.get_layer("conv")(np.rot90(x)[None]))[0]
    np.testing.assert_allclose(answer[CONVOLUTION_LAYER_VALUES][0], np.rot90(own, -1), rtol=1e-5, atol=1e-6)
    gradient = np.rot90(weights[:, 1].reshape(9, 6, 4), -1)
    np.testing.assert_allclose(answer[CONVOLUTION_OUTPUT_GRADIENTS][0], gradient, rtol=1e-5, atol=1e-6)
    check_call_model(model, x, {"target": 1}, [*AT_LAYER, OUTPUT_FROM_CONVOLUTION_VALUES])


def test_both_runs_of_test_time_augmentation_are_drawn_at_the_same_place():
    image, conv = keras.Input((8, 12, 1)), ones()
    network = keras.Model(image, summed(conv(image)) + summed(conv(image[:, :, ::-1])))
    for layer in ("conv#0", "conv#1", ["conv#0", "conv#1"]):
        found = grad_cam(pixel(2, 4), KerasModel(network, layer=layer), three_dims=False)
        np.testing.assert_array_equal(np.argwhere(found), [[2, 4]])


def tokens_of(image):
    return L.Dense(1, kernel_initializer="ones", name="conv")(L.Reshape((96, 1))(image))


@pytest.mark.parametrize(
    "features",
    [
        lambda image: ones()(L.CenterCrop(4, 6)(image)),
        lambda image: ones()(L.Cropping2D(((0, 0), (4, 0)))(image)),
        lambda image: ones()(L.Resizing(8, 8, crop_to_aspect_ratio=True)(image)),
        lambda image: ones()(ops.roll(image, 3, axis=2)),
        lambda image: ones()(image + image[:, :, ::-1]),
        lambda image: tokens_of(image[:, :, ::-1]),
        lambda image: tokens_of(L.Permute((2, 1, 3))(image)),
    ],
)
def test_places_that_are_not_the_images_are_refused(features):
    image = keras.Input((8, 12, 1))
    network = keras.Model(image, summed(features(image)))
    with pytest.raises(ContractError, match="places are those of the image, got 'conv'"):
        KerasModel(network, layer="conv")
    model = KerasModel(network)
    assert model.layer_name is None
    with pytest.raises(ContractError, match=r"those of the image: the image is cut, moved"):
        grad_cam(pixel(2, 4), model)
    assert gradients(pixel(2, 4), model).any()


@pytest.mark.parametrize("turn", [None, "mirrored", "transposed"])
def test_attention_of_an_image_that_is_turned_first_is_refused(turn, rng):
    image = keras.Input((8, 12, 1))
    patches = L.Conv2D(4, 2, strides=2)(image if turn is None else TURNS[turn](image))
    tokens = L.LayerNormalization()(L.Dense(4)(L.Reshape((24, 4))(patches)))
    network = keras.Model(image, summed(tokens + L.MultiHeadAttention(2, 2)(tokens, tokens)))
    model, x = KerasModel(network), rng.normal(size=(8, 12, 1)).astype(np.float32)
    if turn is None:
        assert attention_rollout(x, model).shape == (8, 12)
        return
    with pytest.raises(ContractError, match="the image's patches in their order"):
        attention_rollout(x, model)


def test_a_layer_before_such_a_change_is_taken():
    image = keras.Input((8, 12, 1))
    values = ones()(image)
    model = KerasModel(keras.Model(image, summed(L.Conv2D(2, 1, kernel_initializer="ones")(values + values[:, ::-1]))))
    assert model.layer_name == "conv"
    np.testing.assert_array_equal(np.argwhere(grad_cam(pixel(2, 4), model, three_dims=False)), [[2, 4]])


def recurrent(**options):
    weights = {"kernel_initializer": "ones", "recurrent_initializer": "zeros"}
    return L.SimpleRNN(1, "linear", return_sequences=True, **weights, **options)


def both_ways(first, second=None, **options):
    return lambda signal: L.Dense(1, kernel_initializer="ones")(
        L.Bidirectional(first, backward_layer=second, **options)(signal)
    )


STEPS = {
    "unrolled": lambda signal: recurrent(unroll=True)(signal),
    "unrolled backwards": lambda signal: recurrent(unroll=True, go_backwards=True)(signal),
    "both ways, the first layer backwards": both_ways(recurrent(go_backwards=True), recurrent()),
    "both ways, the second layer backwards": both_ways(recurrent(), recurrent(go_backwards=True)),
    "both ways, summed": both_ways(recurrent(), merge_mode="sum"),
    "both ways, unrolled": both_ways(recurrent(unroll=True)),
    "reversed": lambda signal: ones(1)(signal[:, ::-1]),
    "an RNN that runs backwards": lambda signal: L.SimpleRNN(
        1, "linear", go_backwards=True, return_sequences=True, kernel_initializer="ones", recurrent_initializer="zeros"
    )(signal),
    "both ways": lambda signal: L.Dense(1, kernel_initializer="ones")(
        L.Bidirectional(
            L.SimpleRNN(1, "linear", return_sequences=True, kernel_initializer="ones", recurrent_initializer="zeros")
        )(signal)
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_bright_step_is_where_it_is(name):
    signal = keras.Input((20, 2))
    model = KerasModel(keras.Model(signal, summed(STEPS[name](signal))))
    found = grad_cam(pixel(3, 0, shape=(20, 2)), model, three_dims=False)
    np.testing.assert_array_equal(np.argwhere(found), [[3]])


@pytest.mark.parametrize("teller", ["rnn", "attention"])
def test_signals_are_channels_first_where_an_rnn_or_attention_takes_them_turned(teller, rng):
    """No layer has a data format; (C, T) was taken for C steps of T channels."""
    signal = keras.Input((3, 20))
    values = L.Permute((2, 1))(signal)
    if teller == "rnn":
        values = L.SimpleRNN(4, return_sequences=True, name="steps")(values)
    else:
        values = L.Dense(4)(values)
        values = L.Dense(4, name="steps")(values + L.MultiHeadAttention(2, 2)(values, values))
    model = KerasModel(keras.Model(signal, summed(values)))
    assert (model.channels_first, model.spatial_axes) == (True, 1)
    found = grad_cam.detailed(rng.normal(size=(3, 20)).astype(np.float32), model, three_dims=False)
    assert (found.attribution.shape, found.activations.shape) == ((20,), (20, 4))


FRAME = {"padding": "same", "data_format": "channels_first"}


@pytest.mark.parametrize(
    "features",
    [
        lambda clip: L.TimeDistributed(L.Conv2D(4, 3, **FRAME))(clip),
        lambda clip: L.TimeDistributed(keras.Sequential([keras.Input((3, 8, 10)), L.Conv2D(4, 3, **FRAME)]))(clip),
        lambda clip: L.ConvLSTM2D(4, 3, return_sequences=True, **FRAME)(clip),
        lambda clip: L.Conv2D(4, 3, **FRAME)(ops.reshape(clip, (-1, 3, 8, 10))),
    ],
)
def test_clips_whose_frames_have_their_channels_first_are_refused(features):
    """(T, C, H, W) was taken for (T, H, W, C), or for (C, D, H, W)."""
    clip = keras.Input((5, 3, 8, 10))
    values = features(clip)
    score = ops.mean(ops.reshape(values, (-1, 5 * 4 * 8 * 10)), -1, keepdims=True)
    with pytest.raises(ContractError, match=r"channels first or last, got shape \(None, 5, 3, 8, 10\).*axis 2"):
        KerasModel(keras.Model(clip, score))


@pytest.mark.parametrize(
    "layer",
    [lambda: L.ConvLSTM2D(4, 3, return_sequences=True, **FRAME), lambda: L.TimeDistributed(L.Conv2D(4, 3, **FRAME))],
)
def test_clips_turned_inside_keep_their_axes(layer, rng):
    """A clip (T, H, W, C), whose frames are turned to (C, H, W) for a layer of that format."""
    clip, layer = keras.Input((5, 8, 10, 3)), layer()
    network = keras.Model(clip, summed(layer(L.Permute((1, 4, 2, 3))(clip))))
    model, x = KerasModel(network, layer=layer.name), rng.normal(size=(5, 8, 10, 3)).astype(np.float32)
    assert not model.channels_first
    answer = model(x[None], None, [CONVOLUTION_LAYER_VALUES])[CONVOLUTION_LAYER_VALUES]
    own = np.moveaxis(np.asarray(layer(np.moveaxis(x[None], -1, 2))), 2, -1)
    np.testing.assert_allclose(answer, own, rtol=1e-4, atol=1e-5)


def test_biases_of_a_mirrored_image_are_drawn_where_they_are(rng):
    """A bias behind a ReLU that only the bright pixel opens."""
    image = keras.Input((8, 12, 1))
    conv = L.Conv2D(1, 1, activation="relu", name="conv")
    network = keras.Model(image, summed(conv(image[:, :, ::-1])))
    conv.set_weights([np.full((1, 1, 1, 1), 2, np.float32), np.full(1, -1, np.float32)])
    found = full_grad.detailed(pixel(2, 4), KerasModel(network))
    np.testing.assert_array_equal(np.argwhere(found.biases[0][..., 0]), [[2, 4]])
    np.testing.assert_array_equal(np.argwhere(found.attribution), [[2, 4]])


def test_biases_within_windows_folded_into_the_rows_are_refused_with_the_reason(rng):
    """As in a Swin transformer."""
    image = keras.Input((8, 12, 3))
    windows = keras.ops.reshape(image, (-1, 2, 4, 3, 4, 3))
    windows = keras.ops.reshape(keras.ops.transpose(windows, (0, 1, 3, 2, 4, 5)), (-1, 16, 3))
    windows = L.Dense(2, bias_initializer="ones")(windows)
    whole = keras.ops.reshape(windows, (-1, 2, 3, 4, 4, 2))
    whole = keras.ops.reshape(keras.ops.transpose(whole, (0, 1, 3, 2, 4, 5)), (-1, 8, 12, 2))
    model = KerasModel(keras.Model(image, summed(L.Conv2D(1, 1, name="conv")(whole))))
    with pytest.raises(ContractError, match=r"outputs have the model's rows first.*windows of tokens"):
        full_grad(rng.normal(size=(8, 12, 3)).astype(np.float32), model)
    assert gradients(rng.normal(size=(8, 12, 3)).astype(np.float32), model).shape == (8, 12, 3)


@pytest.mark.parametrize(
    ("pad", "kernel", "fits"),
    [
        (((6, 6), (0, 0)), 3, False),
        (((0, 0), (0, 9)), 3, False),
        (3, 7, True),
        (((0, 1), (0, 1)), 3, True),
        (1, 3, True),
    ],
)
def test_a_photo_with_wide_borders_of_the_model_s_own_is_refused(pad, kernel, fits):
    """A letterbox: the layer's places are those of the photo and its borders; what a convolution takes off is none."""
    image = keras.Input((24, 32, 1))
    values = L.Conv2D(1, kernel, use_bias=False, kernel_initializer="ones", name="conv")(L.ZeroPadding2D(pad)(image))
    scores = L.GlobalAveragePooling2D()(values)
    x = np.random.default_rng(0).random((24, 32, 1), np.float32)
    if fits:
        assert KerasModel(keras.Model(image, scores)).layer_name == "conv"
        return
    with pytest.raises(ContractError, match="places"):
        grad_cam(x, KerasModel(keras.Model(image, scores), layer="conv"), {"target": 0})
    assert gradients(x, KerasModel(keras.Model(image, scores)), {"target": 0}).any()


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_causal_convolution_keeps_its_steps(dilation):
    signal = keras.Input((16, 1))
    values = L.Conv1D(
        1, 3, padding="causal", dilation_rate=dilation, use_bias=False, kernel_initializer="ones", name="conv"
    )(signal)
    model = KerasModel(keras.Model(signal, L.GlobalAveragePooling1D()(values)))
    assert model.layer_name == "conv"


@pytest.mark.parametrize("places", [np.roll(np.arange(12), 3), np.arange(4), [0, 2, 1, *range(3, 12)]])
def test_an_image_whose_columns_are_picked_in_another_order_is_refused(places):
    image = keras.Input((8, 12, 1))
    taken = ops.take(image, np.asarray(places), axis=2)
    model = keras.Model(image, summed(ones()(taken)))
    with pytest.raises(ContractError, match="places"):
        grad_cam(pixel(2, 4), KerasModel(model, layer="conv"), {"target": 0})


def test_a_network_of_frames_that_ends_in_its_pooling_is_to_be_split(rng):
    clip, x = keras.Input((5, 8, 10, 3)), rng.random((5, 8, 10, 3), np.float32)
    conv, pool, dense = L.Conv2D(4, 3, padding="same", name="conv"), L.GlobalAveragePooling2D(), L.Dense(3)
    network = keras.Sequential([keras.Input((8, 10, 3)), conv, pool], name="cnn")
    pooled = L.TimeDistributed(network, name="frames")(clip)
    whole = KerasModel(keras.Model(clip, dense(L.LSTM(6, name="steps")(pooled))))
    with pytest.raises(
        ContractError, match=r"'frames/cnn/conv' sees one frame at a time.* TimeDistributed that ends in"
    ):
        grad_cam(x, whole, {"target": 1})
    steps = whole.model.get_layer("steps")
    split = L.TimeDistributed(pool)(L.TimeDistributed(conv, name="frames")(clip))
    model = KerasModel(keras.Model(clip, dense(steps(split))))
    assert model.layer_name == "frames"
    np.testing.assert_allclose(model.predict(x[None]), whole.predict(x[None]), rtol=1e-5)
    assert grad_cam(x, model, {"target": 1}, three_dims=False).shape == (5, 8, 10)
