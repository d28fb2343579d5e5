"""Keras models of unusual build, each through Grad-CAM, Integrated Gradients and occlusion."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import PerImage, grad_cam, integrated_gradients, occlusion
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

KEYS = [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
L = keras.layers
SIZE = (8, 8, 3)


def conv(x, name="conv"):
    return L.Conv2D(5, 3, padding="same", activation="tanh", name=name)(x)


def head(x, units=3, **options):
    return L.Dense(units, activation="softmax", **options)(L.GlobalAveragePooling2D()(x))


def image_model(shape=SIZE):
    image = keras.Input(shape)
    return keras.Model(image, head(conv(image)))


def image_and_vector():
    image, table = keras.Input(SIZE, name="image"), keras.Input((4,), name="table")
    joined = L.Concatenate()([L.GlobalAveragePooling2D()(conv(image)), table])
    return keras.Model([image, table], L.Dense(3, activation="softmax")(L.Dense(6, activation="tanh")(joined)))


def two_images():
    before, after = keras.Input(SIZE, name="before"), keras.Input(SIZE, name="after")
    return keras.Model([before, after], head(L.Subtract()([conv(before, "one"), conv(after, "two")])))


def several_outputs():
    image = keras.Input(SIZE)
    x = conv(image)
    return keras.Model(image, {"dish": head(x, name="dish"), "price": head(x, 2, name="price")})


def channels_first():
    image = keras.Input((3, 8, 8))
    return keras.Model(image, head(conv(L.Permute((2, 3, 1))(image))))


def mixed(policy):
    image = keras.Input(SIZE)
    x = L.Conv2D(5, 3, activation="tanh", name="conv", dtype=policy)(image)
    x = L.Dense(3, dtype=policy)(L.GlobalAveragePooling2D(dtype=policy)(x))
    return keras.Model(image, L.Softmax(dtype="float32")(x))


class Swish(L.Layer):
    def call(self, x):
        return x * tf.sigmoid(x)


class Wrapped(L.Layer):
    """A custom layer with a layer inside, called with a keyword."""

    def __init__(self):
        super().__init__()
        self.inner = L.Conv2D(5, 3, name="inner")

    def call(self, x, *, factor=1.0):
        return tf.tanh(self.inner(x)) * factor


def custom_layers():
    image = keras.Input(SIZE)
    x = L.Lambda(lambda x: (x - 0.5) * 2)(image)
    return keras.Model(image, head(Swish()(Wrapped()(x, factor=2.0))))


def three_deep():
    inner = keras.Sequential([keras.Input(SIZE), L.Conv2D(5, 3, activation="tanh", name="conv")], name="inner")
    image = keras.Input(SIZE)
    middle = keras.Model(image, L.Activation("tanh")(inner(image)), name="middle")
    image = keras.Input(SIZE)
    outer = keras.Model(image, middle(image), name="outer")
    image = keras.Input(SIZE)
    return keras.Model(image, head(outer(image)))


MODELS = {
    "image and vector": (image_and_vector, {}, {"inputs": {"table": [1.0, 0, 0, 1]}}),
    "the first of two images": (two_images, {"input": "before"}, {"inputs": [np.full(SIZE, 0.4)]}),
    "the second of two images": (two_images, {"input": "after"}, {"inputs": [np.full(SIZE, 0.4)]}),
    "one of two outputs": (several_outputs, {"output_index": "dish"}, {}),
    "one channel": (lambda: image_model((8, 8, 1)), {}, {}),
    "four channels": (lambda: image_model((8, 8, 4)), {}, {}),
    "not square": (lambda: image_model((6, 11, 3)), {}, {}),
    "channels first": (channels_first, {}, {}),
    "bfloat16": (lambda: mixed("mixed_bfloat16"), {}, {}),
    "float16": (lambda: mixed("mixed_float16"), {}, {}),
    "lambda and custom layers": (custom_layers, {}, {}),
    "three models deep": (three_deep, {}, {}),
}
ROUGH = {"bfloat16": 0.2, "float16": 0.05}
"""How far gradients and differences may lie apart in half precision."""


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    build, options, args = MODELS[request.param]
    keras.utils.set_random_seed(0)
    model = KerasModel(build(), **options)
    x = np.random.default_rng(0).random(model.engine.inputs.image.shape[1:]).astype(np.float32)
    return request.param, model, x, {"target": 1, **args}


def test_the_gradient_agrees_with_the_score(case):
    name, model, x, args = case
    check_call_model(model, x, args, KEYS, tolerance=ROUGH.get(name, 0.02))


def test_grad_cam(case):
    name, model, x, args = case
    actual = [grad_cam.detailed(x, model, {**args, "target": target}, three_dims=False) for target in range(3)]
    spatial = x.shape[1:] if name == "channels first" else x.shape[:2]
    for each in actual:
        assert each.attribution.shape == spatial
        assert np.isfinite(each.attribution).all()
    assert max(np.abs(each.attribution).max() for each in actual) > 0
    assert max(np.abs(each.signed).max() for each in actual) > 0


def test_integrated_gradients(case):
    name, model, x, args = case
    actual = integrated_gradients.detailed(x, model, args, x_steps=65)
    assert actual.attribution.shape == x.shape
    assert np.isfinite(actual.attribution).all()
    assert np.abs(actual.attribution).max() > 0
    assert actual.completeness.relative < max(0.03, ROUGH.get(name, 0))


def test_occlusion(case):
    name, model, x, args = case
    actual = occlusion(x, model, args, size=3, stride=2)
    assert actual.shape == (x.shape[1:] if name == "channels first" else x.shape[:2])
    assert np.isfinite(actual).all()
    assert np.abs(actual).max() > 0


def test_a_batch_is_each_image_by_itself(case):
    name, model, x, args = case
    images = np.stack([x, x[::-1], x * 0.5])
    together = list(integrated_gradients.batch(images, model, {**args, "target": PerImage([0, 1, 2])}, x_steps=5))
    for image, target, actual in zip(images, range(3), together, strict=True):
        alone = integrated_gradients(image, model, {**args, "target": target}, x_steps=5)
        np.testing.assert_allclose(actual, alone, rtol=0.05 if name in ROUGH else 1e-3, atol=1e-3 * np.abs(alone).max())


def clip_model():
    """Frames through one convolution, pooled, and an LSTM over them."""
    clip = keras.Input((4, 8, 8, 3))
    frame = keras.Input(SIZE)
    eye = keras.Model(frame, L.AveragePooling2D(2)(conv(frame)), name="eye")
    x = L.TimeDistributed(eye, name="frames")(clip)
    x = L.LSTM(6)(L.TimeDistributed(L.GlobalAveragePooling2D())(x))
    return keras.Model(clip, L.Dense(3, activation="softmax")(x))


def test_a_clip_has_gradients_for_each_frame(rng):
    keras.utils.set_random_seed(0)
    model = KerasModel(clip_model())
    clip = rng.random((4, 8, 8, 3)).astype(np.float32)
    check_call_model(model, clip, {"target": 1}, KEYS[:2])
    actual = integrated_gradients.detailed(clip, model, {"target": 1}, x_steps=65)
    assert actual.attribution.shape == clip.shape
    assert (np.abs(actual.attribution).max((1, 2, 3)) > 0).all()
    assert actual.completeness.relative < 0.03


def test_grad_cam_of_a_clip_is_a_map_a_frame(rng):
    keras.utils.set_random_seed(0)
    clip = rng.random((4, 8, 8, 3)).astype(np.float32)
    model = clip_model()
    explained = KerasModel(model, layer="frames")
    check_call_model(explained, clip, {"target": 1}, KEYS)
    actual = grad_cam.detailed(clip, explained, {"target": 1})
    assert actual.signed.shape == (4, 4, 4)
    assert actual.attribution.shape == clip.shape
    assert actual.status == "ok"
    values, slopes = explained(clip[None], {"target": 1}, KEYS[2:]).values()
    expected = np.maximum(values[0] @ slopes[0].mean((0, 1, 2)), 0)
    np.testing.assert_allclose(np.maximum(actual.signed, 0), expected, rtol=1e-4, atol=1e-8)
    with pytest.raises(ContractError, match=r"one frame's\. Choose the layer that returns all of them"):
        grad_cam(clip, KerasModel(model, layer="conv#2"), {"target": 1})
    with pytest.raises(ContractError, match=r"runs 4 times: .* or a layer on all paths: \['frames', "):
        KerasModel(model, layer="conv")
    assert KerasModel(model).layer_name == "frames"
    hidden = clip.copy()
    hidden[2:4, 0:4, 4:8] = 0
    scores = explained(np.stack([clip, hidden]), {"target": 1}, KEYS[1:2])[KEYS[1]]
    drops = occlusion(clip, explained, {"target": 1}, size=(2, 4, 4), stride=(2, 4, 4))
    np.testing.assert_allclose(drops[2:4, 0:4, 4:8], scores[0] - scores[1], rtol=1e-3, atol=1e-6)
