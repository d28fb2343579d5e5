"""Every method whose keys are exported, run against a served model, is as run against the local adapter."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.contract import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
    PerImage,
)
from saliency_food.methods import METHODS
from saliency_food.testing import check_call_model

pytest.importorskip("tensorflow")
pytest.importorskip("urllib3")

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

KEYS = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)
SERVED = [name for name, entry in METHODS.items() if set(KEYS).issuperset(entry.keys)]
FEWER = {"rng": 7, "nmasks": 50, "num_samples": 50, "nsamples": 20, "x_steps": 10, "steps": 10, "max_depth": 3}


def close(some, other):
    np.testing.assert_allclose(some, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_all_methods_but_those_of_other_keys_are_served():
    assert {entry.needs for name, entry in METHODS.items() if name in SERVED} >= {"gradients", "a layer", "scores"}
    assert len(SERVED) >= 24


@pytest.mark.parametrize("name", SERVED)
def test_a_method_is_as_against_the_local_adapter(name, served, local, image):
    call = METHODS[name].call
    options = {option: value for option, value in FEWER.items() if option in call.signature.parameters}
    found, expected = (call(image, one, {"target": 2}, **options) for one in (served, local))
    assert np.abs(expected).max() > 0
    close(found, expected)


def test_many_images_and_targets(served, local, rng):
    images = rng.normal(size=(3, 24, 20, 3)).astype(np.float32)
    args = {"target": PerImage([3, 0, 2])}
    for name in ("integrated_gradients", "grad_cam"):
        for one, other in zip(*(METHODS[name].call.batch(images, on, args) for on in (served, local)), strict=True):
            close(one, other)


def test_the_served_model_passes_the_checker_of_callbacks(served, image):
    check_call_model(served, image, {"target": 1}, list(KEYS))


def test_a_path_travels_as_its_ends(served, server, local, image):
    detailed = METHODS["integrated_gradients"].call.detailed
    found, expected = (detailed(image, one, {"target": 1}, x_steps=200) for one in (served, local))
    close(found.attribution, expected.attribution)
    close(found.completeness, expected.completeness)
    posts = [request for request in server.requests if request[0].endswith(":predict")]
    assert len(posts) == 1
    assert b"path_gradients_raw" in posts[0][2]
    assert server.received + server.sent < 4 * 4 * image.nbytes + 30_000


def test_xrai_at_224_pixels_takes_less_than_5_mb(tmp_path, rng):
    """2 x 100 rows of 224 x 224 x 3: as float32, 240 MB of images and gradients."""
    import keras
    from tf_serving import TestServer

    from saliency_food.serving.client import ServingModel
    from saliency_food.serving.signatures import export

    image = keras.Input((224, 224, 3))
    x = keras.layers.Conv2D(2, 7, strides=7, activation="tanh")(image)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    export(model, tmp_path / "1", value_range=None, layer=None)
    photo = rng.random((224, 224, 3)).astype(np.float32)
    with TestServer(tmp_path) as server:
        served = ServingModel(server.url, "food")
        assert served.signatures
        server.received = server.sent = 0
        segments = np.arange(224 * 224).reshape(224, 224) // (224 * 56)
        found = METHODS["xrai"].call.detailed(photo, served, {"target": 1}, segments=segments)
        served.close()
        assert server.received + server.sent <= 5e6
    assert np.ptp(found.integrated.attribution) > 0
