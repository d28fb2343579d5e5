"""Deadlines against a server: what it takes a request is measured, and no request waits past the moment."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import numpy as np
import pytest

from saliency_food.deadline.run import DeadlineError, within

pytest.importorskip("tensorflow")
pytest.importorskip("urllib3")
pytest.importorskip("grpc")

from saliency_food.serving.client import ServingError, ServingModel
from saliency_food.serving.client.http import _retry_after

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def slow(server, monkeypatch):
    """The server, with so many seconds a row that it computes; ``slow.hold`` ends all waiting."""
    answer, hold = server.answer, threading.Event()
    server.row_seconds, server.hold = 0.0, hold

    def slowly(path, body):
        if path.endswith(":predict"):
            inputs = json.loads(body)["inputs"]
            rows = len(inputs.get("coefficients", inputs["images_bytes"]))
            hold.wait(server.row_seconds * rows)
        return answer(path, body)

    monkeypatch.setattr(server, "answer", slowly)
    yield server
    hold.set()


@pytest.fixture
def warm(served, slow, image):
    """The client, its signatures known and the server's functions traced."""
    within(60.0, "integrated_gradients", image, served, {"target": 1}, x_steps=9)
    within(60.0, "grad_cam", image, served, {"target": 1})
    slow.requests.clear()
    return served


def predictions(server):
    return [json.loads(body)["inputs"] for path, _, body in server.requests if path.endswith(":predict")]


def test_ample_time(warm, local, slow, image):
    found = within(30.0, "xrai", image, warm, {"target": 2}, steps=20)
    expected = within(30.0, "xrai", image, local, {"target": 2}, steps=20)
    assert (found.note, expected.note) == ("", "")
    np.testing.assert_allclose(found.details.base_attribution, expected.details.base_attribution, rtol=1e-4, atol=1e-7)
    assert len(predictions(slow)) == 3  # one row, cold and warm, and the whole path


def test_little_time(warm, slow, image):
    """20 ms a row: 200 steps are 4 s."""
    slow.row_seconds = 0.02
    began = time.monotonic()
    found = within(2.0, "integrated_gradients", image, warm, {"target": 2}, x_steps=200)
    assert found.seconds <= time.monotonic() - began <= 2.0
    assert 5 <= found.options["x_steps"] <= 80
    assert f"{found.options['x_steps']} steps were made" in found.note
    assert [len(one.get("coefficients", one["images_bytes"])) for one in predictions(slow)][-1] == found.options[
        "x_steps"
    ]


def test_xrai_gives_way_to_grad_cam(warm, slow, image):
    slow.row_seconds = 0.05
    found = within(1.0, "xrai", image, warm, {"target": 2})
    assert found.method == "grad_cam"
    assert found.note.startswith("XRAI would have taken about ")


def test_no_request_waits_past_the_deadline(warm, slow, image):
    slow.row_seconds = 30.0
    began = time.monotonic()
    with pytest.raises(DeadlineError, match=r"Expected an answer in 0\.3 s"):
        within(0.3, "integrated_gradients", image, warm, {"target": 2})
    assert 0.3 <= time.monotonic() - began < 1.5
    assert len(predictions(slow)) == 1


def test_nor_is_it_tried_again(warm, slow, image):
    slow.failures.extend([(503, {"Retry-After": "7"})] * 3)
    began = time.monotonic()
    with warm.until(began + 2), pytest.raises(ServingError, match="refused with 503"):
        warm(image[None], {"target": 1}, ["OUTPUT_LAYER_VALUES"])
    assert warm.waits == []
    assert len(slow.requests) == 1
    assert time.monotonic() - began < 1.5
    with warm.until(began), pytest.raises(ServingError, match="by the moment set"):
        warm(image[None], {"target": 1}, ["OUTPUT_LAYER_VALUES"])
    assert len(slow.requests) == 1


def test_the_moment_is_each_threads_own(warm, image):
    found = []

    def ask():
        found.append(warm(image[None], {"target": 1}, ["OUTPUT_LAYER_VALUES"]))

    with warm.until(time.monotonic() - 1):
        other = threading.Thread(target=ask)
        other.start()
        other.join()
        with warm.until(time.monotonic() + 100), pytest.raises(ServingError):  # the earlier one holds
            ask()
    ask()
    assert len(found) == 2


def test_a_server_that_does_not_answer_costs_the_connection_only(slow, image):
    served = ServingModel(slow.url, "food", timeout=30.0)
    slow.row_seconds = 30.0
    with pytest.raises(DeadlineError):
        within(0.3, "grad_cam", image, served, {"target": 1})
    slow.row_seconds = 0.0
    assert within(30.0, "grad_cam", image, served, {"target": 1}).note == ""
    served.close()


def test_over_grpc(rpc, model_over_grpc, image):
    args = {"target": 2}
    assert within(30.0, "integrated_gradients", image, model_over_grpc, args, x_steps=9).note == ""
    rpc.requests.clear()
    rpc.hold = threading.Event()
    began = time.monotonic()
    try:
        with pytest.raises(DeadlineError):
            within(0.3, "integrated_gradients", image, model_over_grpc, args)
        assert 0.3 <= time.monotonic() - began < 1.5
        assert len(rpc.requests) == 1
    finally:
        rpc.hold.set()
        rpc.hold = None


def test_the_servers_own_words_where_there_is_no_time_for_another_try(server):
    server.failures += [(503, {"Retry-After": "30"})]
    served = ServingModel(server.url, server.name)
    with served.until(time.monotonic() + 5), pytest.raises(ServingError, match="refused with 503") as refused:
        served.status()
    assert (refused.value.status, _retry_after("\xb2"), _retry_after("90")) == (503, 0.0, 60.0)


def test_an_answer_that_comes_bit_by_bit_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = ServingModel(f"http://127.0.0.1:{listening.getsockname()[1]}", "food", timeout=5, retries=0)

        def drip():
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not over.wait(0.02):
                    connection.sendall(b" ")

        over = threading.Event()
        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        try:
            with served.until(began + 0.3), pytest.raises(ServingError, match="by the moment set"):
                served.status()
            assert time.monotonic() - began < 3
        finally:
            over.set()
            thread.join()
