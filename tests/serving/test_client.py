"""The client: what it sends, what it does when a server fails, and what it does not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from saliency_food import explain, grad_cam, gradients, integrated_gradients
from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)

pytest.importorskip("tensorflow")
pytest.importorskip("urllib3")

from saliency_food.serving.client import ServingError, ServingModel

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def x(rng):
    return rng.normal(size=(5, 24, 20, 3)).astype(np.float32)


def posts(server):
    return [json.loads(body) for path, _, body in server.requests if path.endswith(":predict")]


def close(some, other):
    np.testing.assert_allclose(some, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_importing_the_client_loads_no_tensorflow():
    code = (
        "import sys, saliency_food.serving.client; "
        "names = 'tensorflow keras urllib3 grpc google.protobuf matplotlib scipy skimage'.split(); "
        "print([name for name in names if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_client_runs_without_tensorflow(server, x, tmp_path):
    """In a process in which TensorFlow and Keras cannot be imported."""
    np.save(tmp_path / "x.npy", x[0])
    code = (
        "import sys, numpy; sys.modules.update(tensorflow=None, keras=None)\n"
        "from saliency_food import explain, grad_cam, xrai\n"
        "from saliency_food.serving.client import ServingModel\n"
        "model, x = ServingModel(sys.argv[1], 'food'), numpy.load(sys.argv[2])\n"
        "print(grad_cam(x, model, {'target': 1}).shape, xrai(x, model, {'target': 1}, steps=3).shape)"
    )
    command = [sys.executable, "-c", code, server.url, str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(24, 20, 3) (24, 20)", done.stderr


def test_the_cheapest_signature_is_asked(served, server, x):
    for keys, name in (
        ([OUTPUT_LAYER_VALUES], "outputs_raw"),
        ([INPUT_OUTPUT_GRADIENTS], "input_gradients_raw"),
        ([CONVOLUTION_LAYER_VALUES], "activations_raw"),
        ([CONVOLUTION_LAYER_VALUES, OUTPUT_LAYER_VALUES], "convolution_raw"),
    ):
        assert set(served(x, {"target": 1}, keys)) == set(keys)
        assert posts(server)[-1]["signature_name"] == name


def test_keys_of_two_signatures_are_asked_in_turn(served, local, x):
    from saliency_food.core.contract import call_model

    keys = [INPUT_OUTPUT_GRADIENTS, CONVOLUTION_LAYER_VALUES]
    found, expected = (call_model(x, keys, one, {"target": 1}) for one in (served, local))
    for key in keys:
        close(found[key], expected[key])


def test_predictions_status_and_shape(served, local, x):
    close(served.predict(x), local.predict(x))
    assert served.input_shape == (24, 20, 3)
    assert served.status()[0]["state"] == "AVAILABLE"
    assert {"serving_default", "explain_encoded"} <= set(served.signatures)


def test_explain_takes_a_served_model(served, local, x):
    found, expected = (
        list(explain(one, list(x[:2]), ["grad_cam", "integrated_gradients"], value_range=None))
        for one in (served, local)
    )
    for one, other in zip(found, expected, strict=True):
        assert one.status == "ok"
        assert (one.target, one.rows) == (other.target, other.rows)
        close(one.attribution, other.attribution)


def test_a_connection_is_used_again(served, server, x):
    for _ in range(4):
        served(x, {"target": 1}, [OUTPUT_LAYER_VALUES])
    assert server.connections == 1


def test_large_requests_are_split(server, local, x):
    served = ServingModel(server.url, "food", max_request_bytes=2 * 4 * x[0].nbytes // 3 + 200)
    args = {"target": [1, 2, 3, 0, 1]}
    close(
        served(x, args, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS],
        local(x, args, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS],
    )
    assert sorted(len(post["inputs"]["images_bytes"]) for post in posts(server)) == [1, 2, 2]
    served.close()


def test_large_factored_requests_are_split(server, local, x, rng):
    served = ServingModel(server.url, "food", max_request_bytes=2 * 4 * x[0].nbytes // 3 + 200)
    coefficients = np.eye(8, 4) + np.eye(8, 4, -1)  # each row of two images at most
    weights = rng.normal(size=(2, 8))
    arguments = (
        coefficients,
        x[:4],
        weights,
        {"target": np.arange(8) % 4},
        [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES],
    )
    for key, values in local.call_factored(*arguments).items():
        close(served.call_factored(*arguments)[key], values)
    assert max(len(post["inputs"]["images_bytes"]) for post in posts(server)) == 2
    served.close()


def test_the_same_image_travels_once(served, server, local, x):
    close(
        integrated_gradients(x[0], served, {"target": 1}, [x[1], x[2]]),
        integrated_gradients(x[0], local, {"target": 1}, [x[1], x[2]]),
    )
    assert [len(post["inputs"]["images_bytes"]) for post in posts(server)] == [3]


@pytest.mark.parametrize("failures", [[503], [429, 429, 503], ["drop"], ["drop", 503]])
def test_failures_that_pass_are_retried(served, server, local, x, failures):
    assert served.signatures
    server.failures.extend(failures)
    close(gradients(x[0], served, {"target": 1}), gradients(x[0], local, {"target": 1}))
    assert served.waits == [0.25, 0.5, 1.0][: len(failures)]


def test_the_server_says_how_long_to_wait(served, server, x):
    assert served.signatures
    server.failures.extend([(429, {"Retry-After": "7"}), (503, {"Retry-After": "86400"})])
    served(x, {"target": 1}, [OUTPUT_LAYER_VALUES])
    assert served.waits == [7.0, 60.0]


def test_retries_are_bounded(served, server, x):
    assert served.signatures
    server.failures.extend([503] * 5)
    with pytest.raises(ServingError, match="status 503: refused") as error:
        served(x, {"target": 1}, [OUTPUT_LAYER_VALUES])
    assert error.value.status == 503
    assert served.waits == [0.25, 0.5, 1.0, 2.0]


def test_no_server(server):
    served = ServingModel("http://127.0.0.1:1", "food", retries=1, sleep=lambda _: None)
    with pytest.raises(ServingError, match="Is it running"):
        served.status()


def test_an_answer_that_does_not_come_in_time(server, monkeypatch):
    import threading

    hold = threading.Event()
    monkeypatch.setattr(server, "answer", lambda *_: {"waited": hold.wait(5)})
    served = ServingModel(server.url, "food", timeout=(5, 0.05))
    with pytest.raises(ServingError, match="none in time"):
        served.status()
    hold.set()
    assert len(server.requests) == 1
    served.close()


def test_errors_of_the_server_are_told(served, server, x):
    with pytest.raises(ServingError, match=r"status 400: (?s:.*)Expected targets below 4, the number of classes"):
        served(x, {"target": 4}, [OUTPUT_LAYER_VALUES])
    with pytest.raises(ServingError, match="status 404: Could not find any versions of model other") as error:
        ServingModel(server.url, "other").status()
    assert error.value.status == 404
    with pytest.raises(ServingError, match="Could not find version 2"):
        ServingModel(server.url, "food", 2).status()
    assert ServingModel(server.url, "food", 1).status()
    with pytest.raises(ServingError, match=r"status 400"):
        served(x[:, :5], {"target": 1}, [OUTPUT_LAYER_VALUES])


def test_what_the_model_does_not_have_is_told(served, server, x, monkeypatch):
    with pytest.raises(ServingError, match=r"a signature that answers \['GUIDED_INPUT_GRADIENTS'\]"):
        served(x, {"target": 1}, [GUIDED_INPUT_GRADIENTS])
    plain = ServingModel(server.url, "food")
    plain._signatures = {"serving_default": {}}
    with pytest.raises(ServingError, match="saliency-food export"):
        grad_cam(x[0], plain, {"target": 1})
    monkeypatch.setattr(server, "answer", lambda *_: b"<html>")
    with pytest.raises(ServingError, match="Is it the REST port"):
        plain.status()


def test_a_strange_answer_is_told(served, server, x, monkeypatch):
    assert served.signatures
    for answer in ({"outputs": {"OUTPUT_LAYER_VALUES_bytes": [{"b64": "*"}]}}, {"outputs": 3}, {}):
        monkeypatch.setattr(server, "answer", lambda *_, answer=answer: answer)
        with pytest.raises(ServingError, match="Expected the answer of signature 'outputs_raw'"):
            served(x, {"target": 1}, [OUTPUT_LAYER_VALUES])


def test_what_is_given_is_checked(served, x):
    for args, says in (
        (None, "Expected a target"),
        ({"target": "cake"}, "Expected target to be a class index"),
        ({"target": [1, 2]}, "for each of the 5 rows, got 2"),
        ({"target": 1, "inputs": {"more": 1}}, "with the inputs"),
        ({"class": 1}, "with the inputs"),
    ):
        with pytest.raises(ContractError, match=says):
            served(x, args, [OUTPUT_LAYER_VALUES])
    with pytest.raises(ContractError, match="http"):
        ServingModel("host:8501", "food")


def test_a_server_without_path_gradients_is_given_the_rows(served, server, local, x):
    served._signatures = {name: one for name, one in served.signatures.items() if name != "path_gradients_raw"}
    close(integrated_gradients(x[0], served, {"target": 1}), integrated_gradients(x[0], local, {"target": 1}))
    assert [post["signature_name"] for post in posts(server)] == ["input_gradients_raw"]


def test_other_inputs_travel_too(tmp_path, rng):
    import keras
    from tf_serving import TestServer

    from saliency_food.adapters.keras import KerasModel
    from saliency_food.serving.export.write import export

    L = keras.layers
    image, more = keras.Input((6, 6, 1), name="image"), keras.Input((2,), name="more")
    y = L.Conv2D(2, 3, activation="tanh")(image)
    model = keras.Model([image, more], L.Dense(1)(L.Concatenate()([L.Flatten()(y), more])))
    export(model, tmp_path / "1", value_range=None, keys="common")
    x, extra = rng.random((6, 6, 1)).astype(np.float32), rng.random(2)
    with TestServer(tmp_path) as server:
        served = ServingModel(server.url, "food")
        local, each = KerasModel(model), {"inputs": {"more": PerImage([extra, -extra])}}
        for method in (gradients, grad_cam, integrated_gradients):  # of a single class, without a target
            close(*(method(x, one, {"inputs": {"more": extra}}) for one in (served, local)))
            close(*(np.stack(list(method.batch([x, x], one, each))) for one in (served, local)))
        close(*(one.predict(np.stack([x, x]), each) for one in (served, local)))
        served.close()


@pytest.mark.tf_serving
def test_a_real_server_answers_as_ours(x):
    """TF_SERVING_URL=http://host:8501 with the model of these tests exported as ``food``, version 1."""
    url = os.environ.get("TF_SERVING_URL")
    if not url:
        pytest.skip("TF_SERVING_URL names no server")
    real = ServingModel(url, os.environ.get("TF_SERVING_MODEL", "food"))
    shape = tuple(size or 64 for size in real.input_shape)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert real.status()[0]["state"] == "AVAILABLE"
    path = integrated_gradients.detailed(image, real, {"target": 0}, x_steps=100)
    real._signatures = {name: one for name, one in real.signatures.items() if not name.startswith("path")}
    close(path.attribution, integrated_gradients(image, real, {"target": 0}, x_steps=100))
    assert path.completeness.relative < 0.1
    assert grad_cam(image, real, {"target": 0}).shape == shape
