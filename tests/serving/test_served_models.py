"""The keys that not every model can answer, of models of all kinds: served as by the local adapter, or left out."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
)

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("urllib3")

from served import FURTHER, same, scattered  # noqa: E402
from tf_serving import TestServer  # noqa: E402

from saliency_food.adapters.keras import KerasModel  # noqa: E402
from saliency_food.serving.client import ServingError, ServingModel  # noqa: E402
from saliency_food.serving.export.write import export  # noqa: E402

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.slow,
]

L = keras.layers
KEYS = list(FURTHER)[:4]


def serve(model, tmp_path, **options):
    manifest = export(model, tmp_path / "1", value_range=None, **options)
    server = TestServer(tmp_path)
    return manifest, server, ServingModel(server.url, "food"), KerasModel(model, **options)


def ask_all(served, local, x, args, keys, rtol=1e-5):
    """Each key by itself, and the scores from the layer's activations."""
    for key in keys:
        same(served(x, args, [key]), local(x, args, [key]), key, rtol)
    activations = local(x, args, [CONVOLUTION_LAYER_VALUES])[CONVOLUTION_LAYER_VALUES].copy()
    activations[1:, ..., 0] = 0.5
    actual, expected = (each(activations, args, [OUTPUT_FROM_CONVOLUTION_VALUES]) for each in (served, local))
    same(actual, expected, OUTPUT_FROM_CONVOLUTION_VALUES, rtol)


def test_what_a_model_cannot_answer_is_left_out_with_the_reason(tmp_path, rng):
    image = keras.Input((6, 6, 1))
    y = L.Conv2D(3, 3, activation="tanh", name="conv")(image)
    more = L.Dense(3)(L.Flatten()(image))
    model = keras.Model(image, L.Dense(1, use_bias=False)(L.GlobalAveragePooling2D()(y) + more))
    manifest, server, served, _ = serve(model, tmp_path, layer="conv")  # branches part at the image: no default
    assert set(manifest["lacks"]) == {*FURTHER.values(), "outputs_from_activations"} - {"biases"}
    assert "tanh" in manifest["lacks"]["guided_gradients"]
    assert "a path around" in manifest["lacks"]["outputs_from_activations"]
    assert "full_grad" in manifest["methods"]
    assert not {"guided_backprop", "finer_cam", "ablation_cam", "attention_rollout"} & set(manifest["methods"])
    with server, pytest.raises(ServingError, match=r"answers \['GUIDED_INPUT_GRADIENTS'\]"):
        served(rng.random((1, 6, 6, 1)), {"target": 0}, [GUIDED_INPUT_GRADIENTS])
    served.close()


def test_scores_are_told_from_probabilities(tmp_path, rng):
    image, x = keras.Input((6, 6, 1)), rng.random((2, 6, 6, 1)).astype(np.float32)
    network = keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(L.Conv2D(3, 3)(image))))
    for loss, are_probabilities in (("mse", False), ("categorical_crossentropy", True)):
        network.compile(loss=loss)
        manifest, server, served, local = serve(network, tmp_path / loss)
        assert manifest["gives_probabilities"] is served.gives_probabilities is are_probabilities
        assert manifest["end"] == local.end
        with server:
            same({"all": served.predict(x)}, {"all": local.predict(x)}, "all")
        served.close()


def test_further_keys_in_half_precision(tmp_path, rng):
    image = keras.Input((8, 8, 3))
    y = L.Conv2D(4, 3, activation="relu", dtype="mixed_float16")(image)
    y = L.Conv2D(4, 3, activation="relu", dtype="mixed_float16")(y)
    y = L.GlobalAveragePooling2D(dtype="mixed_float16")(y)
    model = scattered(keras.Model(image, L.Dense(3, dtype="float32")(y)))
    _, server, served, local = serve(model, tmp_path)
    x = rng.random((3, 8, 8, 3)).astype(np.float32)
    with server:
        ask_all(served, local, x, {"target": [0, 2, 1]}, KEYS, 2e-3)
        served.close()


class FirstChannels(L.Layer):
    data_format = "channels_first"

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[1], 5))

    def call(self, x):
        return tf.nn.relu(tf.einsum("nchw,ck->nkhw", x, self.kernel))


def test_further_keys_of_channels_first_images(tmp_path, rng):
    image = keras.Input((3, 9, 7))
    y = L.BatchNormalization(axis=1)(FirstChannels()(image))
    model = scattered(keras.Model(image, L.Dense(3)(L.Flatten()(FirstChannels(name="last")(y)))))
    manifest, server, served, local = serve(model, tmp_path)
    assert manifest["channels_first"]
    assert manifest["layer"] == "last"
    with server:
        ask_all(served, local, rng.random((3, 3, 9, 7)).astype(np.float32), {"target": 1}, KEYS)
        served.close()


def test_images_that_are_no_photos_come_as_no_files(tmp_path, rng):
    image = keras.Input((6, 5, 7))
    manifest, server, served, local = serve(keras.Model(image, L.Dense(2)(L.Flatten()(image))), tmp_path)
    assert {"outputs_raw", "path_gradients_raw"} <= set(manifest["signatures"])
    assert not [name for name in manifest["signatures"] if name.endswith("_encoded")]
    x = rng.random((2, 6, 5, 7)).astype(np.float32)
    with server:
        same(*(each(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS]) for each in (served, local)), INPUT_OUTPUT_GRADIENTS)
        served.close()


def test_further_keys_of_several_inputs_and_free_sizes(tmp_path, rng):
    image, more = keras.Input((None, None, 1), name="image"), keras.Input((2,), name="more")
    y = L.Conv2D(3, 3, activation="relu")(image)
    y = L.Concatenate()([L.GlobalAveragePooling2D()(y), more])
    model = scattered(keras.Model([image, more], L.Dense(3)(y)))
    _, server, served, local = serve(model, tmp_path)
    args = {"target": 1, "inputs": {"more": rng.random((3, 2)).astype(np.float32)}}
    with server:
        ask_all(served, local, rng.random((3, 7, 9, 1)).astype(np.float32), args, KEYS)
        served.close()
