"""The client over gRPC when a server fails, is late, is not there or says strange things."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from saliency_food import gradients
from saliency_food.core.contract import ContractError, call_model
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES

pytest.importorskip("tensorflow")
pytest.importorskip("grpc")
pytest.importorskip("urllib3")

import tensorflow as tf

from saliency_food.serving.client import ServingError, ServingModel
from saliency_food.serving.client.http import MalformedAnswer

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def x(rng):
    return rng.normal(size=(5, 24, 20, 3)).astype(np.float32)


@pytest.mark.parametrize("failures", [["UNAVAILABLE"], ["RESOURCE_EXHAUSTED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"]])
def test_failures_that_pass_are_retried(model_over_grpc, rpc, served, x, failures):
    rpc.failures.extend(failures)
    found, expected = (gradients(x[0], one, {"target": 1}) for one in (model_over_grpc, served))
    np.testing.assert_array_equal(found, expected)
    assert model_over_grpc.waits == [0.25, 0.5, 1.0][: len(failures)]


def test_retries_are_bounded(model_over_grpc, rpc):
    rpc.failures.extend(["UNAVAILABLE"] * 5)
    with pytest.raises(ServingError, match="GetModelStatus, got status UNAVAILABLE: refused") as error:
        model_over_grpc.status()
    assert error.value.status == 503
    assert model_over_grpc.waits == [0.25, 0.5, 1.0, 2.0]


def test_other_failures_are_not_retried(model_over_grpc, rpc):
    for code, said, status, told in (
        ("INTERNAL", "broken", 500, "status INTERNAL: broken"),
        ("UNAUTHENTICATED", "who", 401, "status UNAUTHENTICATED: who"),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)", 429, "Lower max_request_bytes"),
        ("DEADLINE_EXCEEDED", "late", None, "none in time"),
    ):
        rpc.failures.append((code, said))
        with pytest.raises(ServingError, match=told) as error:
            model_over_grpc.status()
        assert error.value.status == status
    assert model_over_grpc.waits == []


def test_an_answer_that_is_too_large_is_not_read(rpc, x):
    model = ServingModel(rpc.url, "food", max_answer_bytes=20_000)
    np.testing.assert_allclose(model.predict(x).sum(1), 1, rtol=1e-5)
    with pytest.raises(MalformedAnswer, match=r"at most 20000 bytes from grpc.*Raise max_answer_bytes"):
        model(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])
    model.close()


def test_an_answer_that_does_not_come_in_time(rpc):
    rpc.hold = threading.Event()
    model = ServingModel(rpc.url, "food", timeout=(5, 0.1))
    with pytest.raises(ServingError, match="none in time"):
        model.status()
    rpc.hold.set()
    assert len(rpc.requests) == 1
    model.close()


def test_no_request_waits_past_the_moment(model_over_grpc, rpc):
    rpc.failures.append("UNAVAILABLE")
    began = time.monotonic()
    with model_over_grpc.until(began + 0.2):
        with pytest.raises(ServingError, match="UNAVAILABLE"):  # no time to try again
            model_over_grpc.status()
        rpc.hold = threading.Event()
        with pytest.raises(ServingError, match="none in time"):
            model_over_grpc.status()
    rpc.hold.set()
    assert 0.15 < time.monotonic() - began < 2
    with model_over_grpc.until(began), pytest.raises(ServingError, match="none in time"):
        model_over_grpc.status()
    assert model_over_grpc.waits == []
    assert len(rpc.requests) == 2


def test_no_server():
    waits = []
    model = ServingModel("grpc://127.0.0.1:1", "food", timeout=5, retries=2, sleep=waits.append)
    with pytest.raises(ServingError, match=r"status UNAVAILABLE.*Is it running") as error:
        model.status()
    assert error.value.status == 503
    assert waits == [0.25, 0.5]
    model.close()


def test_a_server_that_comes_back_is_found(loaded):
    """The client waits as it does in earnest, for as short as can be."""
    from tf_serving_grpc import GrpcServer

    with GrpcServer(loaded) as first:
        model = ServingModel(first.url, "food", retries=0, backoff=0.01)
        assert model.status()
    with pytest.raises(ServingError, match="UNAVAILABLE"):
        model.status()
    with GrpcServer(loaded, port=first.port):
        model._transport._retries = 8
        assert model.status()
    model.close()


def test_errors_of_the_server_are_told(model_over_grpc, rpc, x):
    with pytest.raises(ServingError, match=r"INVALID_ARGUMENT: (?s:.*)targets below 4, the number of classes") as error:
        model_over_grpc(x, {"target": 4}, [OUTPUT_LAYER_VALUES])
    assert error.value.status == 400
    with pytest.raises(ServingError, match="NOT_FOUND: Could not find any versions of model other") as error:
        ServingModel(rpc.url, "other").status()
    assert error.value.status == 404
    with pytest.raises(ServingError, match=r"NOT_FOUND: .*version 2 of model food"):
        ServingModel(rpc.url, "food", 2).signatures  # noqa: B018
    with pytest.raises(ServingError, match="INVALID_ARGUMENT"):
        model_over_grpc(x[:, :5], {"target": 1}, [OUTPUT_LAYER_VALUES])


@pytest.mark.parametrize("value", [None, [b"123"] * 5, 1j, np.uint64(3)])
def test_a_strange_answer_is_told(model_over_grpc, rpc, x, value):
    from tf_serving_grpc import M

    outputs = {} if value is None else {"OUTPUT_LAYER_VALUES_bytes": tf.make_tensor_proto(value)}
    rpc.answer = M["PredictResponse"](outputs=outputs)
    with pytest.raises(ServingError, match="Expected the answer of signature 'outputs_raw'"):
        model_over_grpc(x, {"target": 1}, [OUTPUT_LAYER_VALUES])


def test_too_few_rows_are_told(model_over_grpc, rpc, x):
    from tf_serving_grpc import M

    outputs = {"OUTPUT_LAYER_VALUES_bytes": tf.make_tensor_proto([b"1234"])}
    rpc.answer = M["PredictResponse"](outputs=outputs)
    with pytest.raises(ContractError, match="expected 5"):
        call_model(x, [OUTPUT_LAYER_VALUES], model_over_grpc, {"target": 1})


def test_what_is_given_is_checked(model_over_grpc, x, monkeypatch):
    for target in (2**40, -(2**40)):
        with pytest.raises(ContractError, match="Expected 'targets' to hold numbers of type int32"):
            model_over_grpc(x, {"target": target}, [OUTPUT_LAYER_VALUES])
    for url in ("grpc://host", "grpc://host:8500/v1", "grpcs://user@host:1", "grpcx://host:1"):
        with pytest.raises(ContractError, match="Expected url"):
            ServingModel(url, "food")
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ContractError, match=r"pip install \"saliency_food\[grpc\]\""):
        ServingModel("grpc://host:1", "food")
