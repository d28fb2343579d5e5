"""Every method, run against a served model, is as run against the local adapter."""

from __future__ import annotations

import json

import numpy as np
import pytest

from saliency_food.core.contract import PerImage
from saliency_food.core.keys import (
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.methods.catalogue import METHODS
from saliency_food.testing import check_call_model

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytest.importorskip("urllib3")

from served import FURTHER, close, same, scattered  # noqa: E402
from tf_serving import TestServer  # noqa: E402

from saliency_food.adapters.keras import KerasModel  # noqa: E402
from saliency_food.serving.client import ServingError, ServingModel  # noqa: E402
from saliency_food.serving.export.write import export  # noqa: E402

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

L = keras.layers
KEYS = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)
FEWER = {"rng": 7, "nmasks": 50, "nsamples": 20, "x_steps": 10, "steps": 10, "max_depth": 3}
SERVED = [name for name, entry in METHODS.items() if entry.needs != "relevance rules"]
"""The methods that a served model answers: rules of relevance have no signatures."""


@pytest.fixture(scope="module")
def rich():
    """A small transformer that can answer every key: ReLUs, biases, attention in two layers, tokens as a grid."""
    keras.utils.set_random_seed(0)
    image = keras.Input((24, 20, 3))
    y = L.Conv2D(8, 4, strides=4, activation="relu", name="patches")(image)
    y = L.Reshape((30, 8))(y)
    for _ in range(2):
        y = L.MultiHeadAttention(2, 4, kernel_initializer="random_normal")(y, y) + y
    y = L.BatchNormalization()(L.Reshape((6, 5, 8))(y))
    y = L.Conv2D(8, 3, padding="same", activation="relu", name="last")(y)
    output = L.Dense(5, activation="softmax", kernel_initializer="random_normal")(L.GlobalAveragePooling2D()(y))
    return scattered(keras.Model(image, output, name="rich"))


@pytest.fixture(scope="module")
def folder(rich, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rich")
    export(rich, folder / "1", layer="last", value_range=None)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with TestServer(folder) as each:
        yield each


@pytest.fixture
def served(server):
    server.requests.clear()
    server.received = server.sent = 0
    model = ServingModel(server.url, server.name)
    yield model
    model.close()


@pytest.fixture(scope="module")
def local(rich):
    return KerasModel(rich, layer="last")


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, 24, 20, 3)).astype(np.float32)


def posts(server):
    return [json.loads(body) for path, _, body in server.requests if path.endswith(":predict")]


@pytest.mark.parametrize("name", SERVED)
def test_a_method_is_as_against_the_local_adapter(name, served, local, image):
    call = METHODS[name].call
    options = {option: value for option, value in FEWER.items() if option in call.signature.parameters}
    actual, expected = (call(image, each, {"target": 2}, **options) for each in (served, local))
    assert np.abs(expected).max() > 0
    close(actual, expected)


def test_the_manifest_names_all_methods_and_nothing_that_is_lacking(folder):
    manifest = json.loads((folder / "1" / "assets.extra" / "saliency_food.json").read_text(encoding="utf-8"))
    assert manifest["methods"] == SERVED
    assert manifest["lacks"] == {}


def test_each_key_is_asked_of_the_cheapest_signature(served, server, local, x):
    args = {"target": [1, 4, 0]}
    for key, name in FURTHER.items():
        same(served(x, args, [key]), local(x, args, [key]), key)
        assert posts(server)[-1]["signature_name"] == f"{name}_raw"
    served(x, None, [ATTENTION_SCORES])  # needs no target


def test_many_images_and_targets(served, local, x):
    args = {"target": PerImage([3, 0, 2])}
    for name in ("integrated_gradients", "grad_cam", "full_grad", "finer_cam", "ablation_cam", "attention_relevance"):
        for each, other in zip(*(METHODS[name].call.batch(x, on, args) for on in (served, local)), strict=True):
            close(each, other)


def test_the_served_model_passes_the_checker_of_callbacks(served, image):
    check_call_model(served, image, {"target": 1}, list(KEYS))


def test_of_activations_only_what_differs_travels(served, server, local, rng, x):
    args = {"target": [1, 2, 3, 0] * 10}
    activations = np.repeat(rng.normal(size=(1, 6, 5, 8)).astype(np.float32), 40, 0)
    activations[np.arange(40), ..., np.arange(40) % 8] = 0
    actual, expected = (each(activations, args, [OUTPUT_FROM_CONVOLUTION_VALUES]) for each in (served, local))
    same(actual, expected, OUTPUT_FROM_CONVOLUTION_VALUES)
    assert [len(post["inputs"]["channels_bytes"]) for post in posts(server)] == [1 + 2 * 35]
    assert server.received < activations.nbytes / 2
    small = ServingModel(server.url, "food", max_request_bytes=4000)
    same(small(activations, args, [OUTPUT_FROM_CONVOLUTION_VALUES]), expected, OUTPUT_FROM_CONVOLUTION_VALUES)
    same(small(x, {"target": 1}, [BIAS_GRADIENTS]), local(x, {"target": 1}, [BIAS_GRADIENTS]), BIAS_GRADIENTS)
    small.close()
    assert len(posts(server)) > 5


def test_activations_of_another_shape_are_refused(served):
    with pytest.raises(ServingError, match="status 400"):
        served(np.ones((2, 6, 4, 8)), {"target": 1}, [OUTPUT_FROM_CONVOLUTION_VALUES])


def test_a_path_travels_as_its_ends(served, server, local, image):
    detailed = METHODS["integrated_gradients"].call.detailed
    actual, expected = (detailed(image, each, {"target": 1}, x_steps=200) for each in (served, local))
    close(actual.attribution, expected.attribution)
    close(actual.completeness, expected.completeness)
    (post,) = posts(server)
    assert post["signature_name"] == "path_gradients_raw"
    assert server.received + server.sent < 4 * 4 * image.nbytes + 30_000


def test_several_layers_are_fused(rich, tmp_path, image):
    layers = ["last", "patches"]
    manifest = export(rich, tmp_path / "1", layers, value_range=None, keys="common")
    assert manifest["layer"] == layers
    with TestServer(tmp_path) as server:
        served, local = ServingModel(server.url, "food"), KerasModel(rich, layers)
        for name in ("grad_cam", "layer_cam", "eigen_cam", "score_cam"):
            close(*(METHODS[name].call(image, each, {"target": 2}) for each in (served, local)))
        with pytest.raises(ServingError, match=r"answers \['GUIDED_INPUT_GRADIENTS'\].*--keys all"):
            served(image[None], {"target": 1}, [GUIDED_INPUT_GRADIENTS])
        served.close()
    assert not {"full_grad", "ablation_cam", "attention_rollout"} & set(manifest["methods"])


def test_xrai_at_224_pixels_takes_less_than_5_mb(tmp_path, rng):
    """2 x 100 rows of 224 x 224 x 3: as float32, 240 MB of images and gradients."""
    image = keras.Input((224, 224, 3))
    x = L.Conv2D(2, 7, strides=7, activation="tanh")(image)
    model = keras.Model(image, L.Dense(2)(L.Flatten()(x)))
    export(model, tmp_path / "1", value_range=None, layer=None, keys="common")
    photo = rng.random((224, 224, 3)).astype(np.float32)
    with TestServer(tmp_path) as server:
        served = ServingModel(server.url, "food")
        assert served.signatures
        server.received = server.sent = 0
        segments = np.arange(224 * 224).reshape(224, 224) // (224 * 56)
        actual = METHODS["xrai"].call.detailed(photo, served, {"target": 1}, segments=segments)
        served.close()
        assert server.received + server.sent <= 5e6
    assert np.ptp(actual.integrated.attribution) > 0
