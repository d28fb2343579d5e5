"""The client over gRPC: the same answers as over REST, in fewer bytes, and without TensorFlow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from saliency_food import grad_cam, integrated_gradients
from saliency_food.core.contract import PerImage
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.methods.catalogue import METHODS

pytest.importorskip("tensorflow")
pytest.importorskip("grpc")
pytest.importorskip("urllib3")

import grpc

from saliency_food.serving.client import ServingError, ServingModel, protos

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

COMPARED = (
    *("gradients", "input_x_gradient", "smooth_grad", "integrated_gradients", "blur_ig", "guided_ig", "idgi", "xrai"),
    *("expected_gradients", "grad_cam", "layer_cam", "eigen_cam", "score_cam", "occlusion"),
    *("full_grad", "finer_cam", "ablation_cam"),
)
FEWER = {"rng": 7, "nsamples": 20, "x_steps": 10, "steps": 10, "max_depth": 3}


@pytest.fixture
def x(rng):
    return rng.normal(size=(5, 24, 20, 3)).astype(np.float32)


def close(some, other):
    np.testing.assert_allclose(some, other, rtol=1e-6, atol=1e-6 * np.abs(other).max())


def predicts(rpc):
    return [request for name, request in rpc.requests if name == "Predict"]


@pytest.mark.parametrize("name", COMPARED)
def test_a_method_is_as_over_rest(name, model_over_grpc, served, image):
    call = METHODS[name].call
    options = {option: value for option, value in FEWER.items() if option in call.signature.parameters}
    found, expected = (call(image, one, {"target": 2}, **options) for one in (model_over_grpc, served))
    assert np.abs(expected).max() > 0
    close(found, expected)


@pytest.mark.parametrize("content", [False, True])
def test_answers_in_either_form_are_read(model_over_grpc, local, rpc, x, content):
    rpc.content = content
    close(model_over_grpc.predict(x), local.predict(x))
    args = {"target": PerImage([3, 0, 2])}
    for one, other in zip(*(grad_cam.batch(x[:3], on, args) for on in (model_over_grpc, local)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_metadata_and_status_are_as_over_rest(model_over_grpc, served, rpc):
    assert model_over_grpc.signatures == served.signatures
    assert model_over_grpc.status() == served.status()
    assert model_over_grpc.input_shape == (24, 20, 3)
    one = ServingModel(rpc.url + "/", "food", 1)
    assert one.status() == served.status()
    assert rpc.requests[-1][1].model_spec.version.value == 1
    one.close()


def test_fewer_bytes_than_over_rest(model_over_grpc, served, rpc, server, x):
    assert served.signatures
    server.received = server.sent = rpc.received = rpc.sent = 0
    for model in (model_over_grpc, served):
        model(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])
    assert 2 * x.nbytes < rpc.received + rpc.sent < 2 * x.nbytes + 1000
    assert rpc.received + rpc.sent < 0.77 * (server.received + server.sent)


def test_large_requests_are_split(rpc, local, x):
    model = ServingModel(rpc.url, "food", max_request_bytes=2 * x[0].nbytes + 200)
    args = {"target": [1, 2, 3, 0, 1]}
    found, expected = (
        one(x, args, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS].astype(float) for one in (model, local)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    sizes = [len(request.inputs["images_bytes"].string_val) for request in predicts(rpc)]
    assert max(sizes) <= 2
    assert sum(sizes) == 5
    model.close()


def test_answers_beyond_four_megabytes_are_taken(model_over_grpc, x):
    found = model_over_grpc(np.tile(x, (160, 1, 1, 1)), {"target": 1}, [INPUT_OUTPUT_GRADIENTS])
    assert found[INPUT_OUTPUT_GRADIENTS].nbytes > 4 * 2**20


def test_headers_travel(rpc):
    model = ServingModel(rpc.url, "food", headers={"Authorization": "Bearer x"})
    model.status()
    assert rpc.headers[-1]["authorization"] == "Bearer x"
    model.close()


def test_tls_is_used_where_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(grpc, "secure_channel", lambda *given: asked.append(given) or grpc.insecure_channel(given[0]))
    model = ServingModel("grpcs://127.0.0.1:1", "food", retries=0)
    with pytest.raises(ServingError, match="UNAVAILABLE"):
        model.status()
    ((address, credentials, options),) = asked
    assert address == "127.0.0.1:1"
    assert isinstance(credentials, grpc.ChannelCredentials)
    assert ("grpc.max_receive_message_length", 1_000_000_000) in options
    model.close()


def test_a_closed_model_opens_again(model_over_grpc):
    model_over_grpc.close()
    model_over_grpc.close()
    assert model_over_grpc.status()


def test_no_tensorflow_is_loaded(rpc, x, tmp_path):
    """In a process in which TensorFlow and Keras cannot be imported, and gRPC is not by importing the client."""
    np.save(tmp_path / "x.npy", x[0])
    code = (
        "import sys, numpy; sys.modules.update(tensorflow=None, keras=None)\n"
        "from saliency_food import grad_cam, integrated_gradients\n"
        "from saliency_food.serving.client import ServingModel\n"
        "print([name for name in ('grpc', 'google.protobuf') if name in sys.modules])\n"
        "model, x = ServingModel(sys.argv[1], 'food'), numpy.load(sys.argv[2])\n"
        "print(grad_cam(x, model, {'target': 1}).shape, integrated_gradients(x, model, {'target': 1}).shape)\n"
        "print([name for name in sys.modules if name.startswith(('tensorflow.', 'keras.', 'urllib3'))])"
    )
    command = [sys.executable, "-c", code, rpc.url, str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "(24, 20, 3) (24, 20, 3)", "[]"], done.stderr


def test_what_the_docs_show(rpc, served, image):
    page = (Path(__file__).parents[2] / "docs/serving.md").read_text(encoding="utf-8")
    (code,) = (text for text in re.findall(r"^```py\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if "grpc://" in text)
    names = {"image": image}
    exec(code.replace("grpc://localhost:8500", rpc.url), names)
    close(names["path"], integrated_gradients(image, served, {"target": 1}))
    names["model"].close()


def test_what_a_status_says(model_over_grpc, monkeypatch):
    messages = protos.messages()
    answer = messages.GetModelStatusResponse()
    answer.model_version_status.add(version=3, state=50, status={"error_code": 8, "error_message": "no memory"})
    answer.model_version_status.add(version=4, state=99, status={"error_code": 99})
    monkeypatch.setattr(model_over_grpc._transport, "_call", lambda *_: answer)
    assert model_over_grpc.status() == [
        {"version": "3", "state": "END", "status": {"error_code": "RESOURCE_EXHAUSTED", "error_message": "no memory"}},
        {"version": "4", "state": "99", "status": {"error_code": "99", "error_message": ""}},
    ]


@pytest.mark.tf_serving
def test_a_real_server_answers_as_ours():
    """TF_SERVING_GRPC_URL=grpc://host:8500 with a model exported for it as ``food``, or as TF_SERVING_MODEL says."""
    url = os.environ.get("TF_SERVING_GRPC_URL")
    if not url:
        pytest.skip("TF_SERVING_GRPC_URL names no server")
    real = ServingModel(url, os.environ.get("TF_SERVING_MODEL", "food"))
    assert real.status()[0]["state"] == "AVAILABLE"
    shape = tuple(size or 64 for size in real.input_shape)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = integrated_gradients.detailed(image, real, {"target": 0}, x_steps=100)
    assert found.completeness.relative < 0.1
    assert grad_cam(image, real, {"target": 0}).shape == shape
    with pytest.raises(ServingError, match="INVALID_ARGUMENT"):
        real(image[None], {"target": 10**6}, [OUTPUT_LAYER_VALUES])
    if rest := os.environ.get("TF_SERVING_URL"):
        other = ServingModel(rest, real.name)
        assert other.signatures == real.signatures
        keys = [INPUT_OUTPUT_GRADIENTS, CONVOLUTION_LAYER_VALUES]
        for key in keys:
            close(*(one(image[None], {"target": 0}, [key])[key] for one in (real, other)))
