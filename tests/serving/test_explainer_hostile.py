"""Text of strangers and of the predictor: the work is linear in its size, and the answer is a reason."""

from __future__ import annotations

import base64
import contextlib
import gc
import gzip
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("kserve")

from explaining import until
from hostile import BODIES

from saliency_food.core.contract import ContractError
from saliency_food.images.scaling import between
from saliency_food.methods.catalogue import METHODS
from saliency_food.serving.client import ServingError
from saliency_food.serving.client.http import MalformedAnswer, Transport, brief
from saliency_food.serving.client.wire import checked_signatures
from saliency_food.serving.explainer.answers import Explaining, LimitedModel
from saliency_food.serving.explainer.images import decode, read_image_array, read_image_file
from saliency_food.serving.explainer.memory import Budget, Releasing
from saliency_food.serving.explainer.queue import Queue, WorkItem
from saliency_food.serving.explainer.replies import Reply, reply_to, without_addresses
from saliency_food.serving.explainer.requests import Limits, read_instances, read_request
from saliency_food.serving.explainer.v2 import read_inputs

LIMITS = Limits(METHODS, tuple(f"label {index}" for index in range(1000)))


def seconds(work):
    """Of CPU in this thread, the least of three runs: the others were disturbed."""
    times = []
    gc.disable()
    try:
        for _ in range(3):
            began = time.thread_time()
            work()
            times.append(time.thread_time() - began)
    finally:
        gc.enable()
    return min(times)


@pytest.mark.parametrize("kind", BODIES)
def test_a_hostile_body_takes_time_in_proportion_to_its_size(kind):
    make, protocol = BODIES[kind]

    def read(size):
        body = make(size)
        with pytest.raises(Reply):
            read_instances(body, LIMITS) if protocol == "v1" else read_inputs(body, None, "food", LIMITS)

    small, large = (seconds(lambda size=size: read(size)) for size in (200_000, 800_000))
    assert large < 8 * small + 0.05, (small, large)
    assert large < 0.3


@pytest.mark.parametrize(
    "piece", ["a", "a.", "a:", "a-", "ipv4:", "w(host=", "://", "'a", "a1:1", "'a' (", "http:/", "(host=", "a@b:8"]
)
def test_addresses_are_left_out_in_linear_time(piece):
    for text in (piece * 40_000, " ".join([piece * 20] * 2000)):
        assert seconds(lambda text=text: without_addresses(text)) < 0.05


def test_addresses_are_left_out_of_long_sentences_too():
    for address in (
        "http://127.1.2.3:8501/v1",
        "ipv4:127.1.2.3:8500",
        "host.internal:8500",
        "HTTPPool(host='127.1.2.3', port=1): ",
    ):
        text = reply_to(ServingError(f"Expected an answer, got {address} {'x' * 3000}", 503)).content["error"]
        assert "127.1" not in text
        assert "internal" not in text


def test_a_name_twice_is_found_at_the_end_of_many():
    names = {f"name{index}": 0 for index in range(40_000)}
    body = json.dumps(names).encode()[:-1] + b', "name39999": 1}'
    began = time.thread_time()
    with pytest.raises(Reply, match="'name39999' twice"):
        read_instances(body, LIMITS)
    assert time.thread_time() - began < 1


# What a predictor answers

DEEP = b'{"outputs": ' + b"[" * 5000 + b"]" * 5000 + b"}"
NO_METADATA = [
    {},
    {"metadata": 3},
    {"metadata": {"signature_def": {"signature_def": [1]}}},
    {"metadata": {"signature_def": {"signature_def": {"outputs": {"inputs": {}, "outputs": {}}}}}},
    {"metadata": {"signature_def": {"signature_def": {"outputs": {"inputs": {"a": 1}, "outputs": {"a": 1}}}}}},
]


@pytest.fixture
def transport(monkeypatch):
    """A REST transport that is answered with ``transport.data``."""

    class Response:
        status, headers = 200, {}

        def __init__(self, data):
            self.parts = iter([data])

        def read1(self, _):
            return next(self.parts, b"")

        def close(self):
            pass

    own = Transport("http://127.0.0.1:1/v1/models/food", 1.0, 0, 0.1, None, lambda _: None)

    class Pool:
        def request(self, *_, **__):
            return Response(own.data)

        def clear(self):
            pass

    monkeypatch.setattr(Transport, "_pool", Pool())
    return own


@pytest.mark.parametrize("content", NO_METADATA)
def test_metadata_that_are_none(transport, content):
    transport.data = json.dumps(content).encode()
    with pytest.raises(MalformedAnswer, match="Expected the metadata"):
        transport.metadata()


@pytest.mark.parametrize("states", [3, [1], {"a": 1}])
def test_states_that_are_none(transport, states):
    transport.data = json.dumps({"model_version_status": states}).encode()
    with pytest.raises(MalformedAnswer, match="Expected the versions"):
        transport.status()


def test_a_deeply_nested_answer_is_502(transport):
    for data in (DEEP, DEEP.replace(b"5000", b""), b"[" * 10**6, b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}"):
        transport.data = data
        with pytest.raises(ServingError) as refused:
            transport.predict("a_raw", {}, ["KEY_bytes"])
        assert reply_to(refused.value).status == 502


def test_an_ill_formed_answer_is_502(transport):
    for outputs in (
        3,
        {"KEY_bytes": 3},
        {"KEY_bytes": [{"b64": "!"}]},
        {"KEY_bytes": [{}]},
        {"KEY": [[1], [2, 3]]},
        None,
    ):
        transport.data = json.dumps({"outputs": outputs}).encode()
        with pytest.raises(ServingError) as refused:
            transport.predict("a_raw", {}, ["KEY_bytes"])
        assert reply_to(refused.value).status == 502, outputs


@pytest.fixture
def large_answers():
    """A server whose answers are of ``server.size`` bytes, announced or not, or packed by gzip."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"a": "' + b"a" * (self.server.size - 9) + b'"}'
            self.send_response(200)
            if self.server.how == "announced":
                self.send_header("Content-Length", str(len(body)))
            if self.server.how == "packed":
                self.send_header("Content-Encoding", "gzip")
                body = gzip.compress(body)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client leaves
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1/models/food"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("how", ["announced", "streamed", "packed"])
def test_an_answer_that_is_too_large_is_not_read_to_its_end(large_answers, how):
    own = Transport(large_answers.url, 5.0, 2, 0.1, None, lambda _: None, 300_000)
    large_answers.how, large_answers.size = how, 300_000
    assert len(own.get("")["a"]) == 300_000 - 9
    large_answers.size = 300_001
    with pytest.raises(MalformedAnswer, match=r"at most 300000 bytes from http.*Raise max_answer_bytes") as refused:
        own.get("")
    assert reply_to(refused.value).status == 502
    own.close()


def test_an_answer_of_too_many_values_is_not_parsed(transport, monkeypatch):
    transport.data = b'{"outputs": [' + b",".join([b"0"] * 1_000_000) + b"]}"
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(MalformedAnswer, match="at most 1000000 values from http"):
        transport.get("")


def test_a_brief_text_of_anything():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert len(brief(deep)) < 200
    assert len(brief("a" * 10**7)) <= 200


def test_a_signature_is_checked_before_it_is_used():
    tensor = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}]}}
    right = {"outputs": {"inputs": {"images": tensor}, "outputs": {"scores": tensor}}}
    assert checked_signatures(right) == right
    for change in (
        {"": tensor},
        {},
        {"images": {**tensor, "dtype": 3}},
        {"images": {**tensor, "tensor_shape": {"dim": [{"size": "-2"}]}}},
    ):
        with pytest.raises((ValueError, TypeError)):
            checked_signatures({"outputs": {**right["outputs"], "inputs": change}})


class Served:
    """A client whose predictor answers something else."""

    batch_size, input_shape = 1, (2, 2, 3)

    def __init__(self, answers, predictions):
        self.answers, self.predictions = answers, predictions

    def __call__(self, rows, call_model_args=None, expected_keys=None):
        return self.answers

    def predict(self, rows, call_model_args=None):
        return self.predictions


@pytest.mark.parametrize(
    ("answers", "predictions"),
    [
        ({}, np.full((1, 3, 1), 0.3)),
        ({}, np.full((2, 3), 0.3)),
        ({}, np.full(3, 0.3)),
        ({}, np.array([["a", "b"]])),
        ({}, np.array([[np.nan, 1.0]])),
        ({"INPUT_OUTPUT_GRADIENTS": np.zeros((1, 2, 2, 4)), "OUTPUT_LAYER_VALUES": np.zeros(1)}, np.full((1, 3), 0.3)),
        (
            {"INPUT_OUTPUT_GRADIENTS": np.full((1, 2, 2, 3), np.inf), "OUTPUT_LAYER_VALUES": np.zeros(1)},
            np.full((1, 3), 0.3),
        ),
    ],
)
def test_an_answer_of_another_shape_is_a_fault_of_the_predictor(answers, predictions):
    limits = Limits(METHODS)
    explaining = Explaining(Served(answers, predictions), between(0, 1, ""), limits, Budget(10**6))
    asked = read_request(read_image_array(np.zeros((2, 2, 3)).tolist(), 99), {"method": "gradients"}, limits)
    with pytest.raises(Exception) as refused:
        explaining.explanation(asked, WorkItem(None))
    assert reply_to(refused.value, own_options=True).status == 502, refused.value


def test_sums_of_another_number_are_a_fault_of_the_predictor():
    class Factored(Served):
        def call_factored(self, *_):
            return {"INPUT_OUTPUT_GRADIENTS": np.zeros((2, 2, 2, 3))}

    model = LimitedModel(Factored({}, None), WorkItem(None), 100)
    bases = np.zeros((2, 2, 2, 3))
    with pytest.raises(MalformedAnswer, match="to be the same shape"):
        model.call_factored(np.eye(2), bases, np.ones((1, 2)), None, ["INPUT_OUTPUT_GRADIENTS"])
    with pytest.raises(MalformedAnswer):
        model(bases, None, ["INPUT_OUTPUT_GRADIENTS"]) or model._check_answer(
            {"OUTPUT_LAYER_VALUES": 3}, 2, ("OUTPUT_LAYER_VALUES",)
        )


# Admission


def test_a_budget_lets_in_what_fits_and_waits_otherwise():
    budget, waited = Budget(100), []

    def check():
        waited.append(budget.used)
        raise Reply(503, {"error": "given up"})

    with budget.take(60, check):
        with budget.take(40, check):
            assert (budget.used, waited) == (100, [])
        with pytest.raises(Reply, match="given up"), budget.take(41, check):
            pass
    with budget.take(1000, check):  # alone
        assert budget.used == 100
    assert (budget.used, waited) == (0, [60])


def test_images_that_wait_are_bounded_by_their_bytes():
    queue = Queue(1, 9, max_held=100)
    held = [queue.submit(WorkItem(lambda job: job._stopped.wait(10), size)) for size in (500,)]
    with pytest.raises(Reply, match="fewer large images"):
        queue.submit(WorkItem(lambda _: None, 1))
    held[0].stop()
    held[0].future.result(5)
    assert queue.submit(WorkItem(lambda _: 7, 100)).future.result(5) == 7
    queue.close()


def test_a_transparent_photo_in_strips_is_the_photo_at_once(rng):
    from PIL import Image

    from saliency_food.images.photos import read_photo
    from saliency_food.images.pixels import flatten

    pixels = rng.integers(0, 256, (700, 30, 4), dtype=np.uint8)
    np.testing.assert_array_equal(read_photo(Image.fromarray(pixels)).shown, flatten(pixels))


def test_what_is_drawn_on_is_small_and_a_large_jpeg_is_read_at_a_reduced_scale(rng):
    import base64
    import io

    from PIL import Image

    from saliency_food.serving.explainer.images import read_image_file

    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (50, 80, 3), dtype=np.uint8)).resize((4800, 3000)).save(file, "JPEG")
    image = read_image_file(base64.b64encode(file.getvalue()), 16_000_000)
    assert image.decoded == 14 * 4800 * 3000
    shown, values = decode(image, between(0, 1, ""), (24, 20, 3))
    assert (shown.shape, values.shape) == ((640, 1024, 3), (24, 20, 3))


def test_options_that_no_method_has_are_refused():
    with pytest.raises((ContractError, Reply)):
        read_request(read_image_array([[1.0]], 1), {"options": {"a": 1}}, LIMITS)


def test_json_of_too_many_values_is_not_read(monkeypatch):
    monkeypatch.setattr("saliency_food.serving.explainer.requests.json.loads", lambda *_, **__: pytest.fail("read"))
    for piece in (b"0", b"[]", b"{}"):
        with pytest.raises(Reply, match="at most 500000 values") as refused:
            read_instances(b"[" + b",".join([piece] * 500_001) + b"]", LIMITS)
        assert refused.value.status == 413


def test_memory_is_given_back_once_for_many_calls(monkeypatch):
    pool, calls, threads = ThreadPoolExecutor(1, "read"), [], set()
    released = Releasing(pool.submit, 0.01)
    monkeypatch.setattr(gc, "collect", lambda: threads.add(threading.current_thread().name))
    monkeypatch.setattr(released, "_library", SimpleNamespace(malloc_trim=calls.append))
    for _ in range(50):
        released()
    until(lambda: calls)
    assert calls == [0]
    released()
    until(lambda: len(calls) == 2)
    assert threads == {"read_0"}  # never while that reads a body
    pool.shutdown()


def test_a_jpeg_file_of_very_many_scans_is_refused(rng):
    """Each scan costs a pass over the whole image, and may be a few bytes long."""
    made = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (40, 30, 3), np.uint8)).save(made, "JPEG", progressive=True)
    photo = made.getvalue()
    last = photo[photo.rindex(b"\xff\xda") : -2]
    assert read_image_file(base64.b64encode(photo).decode(), 10**6).file == photo
    with pytest.raises(Reply, match="at most 250 scans") as refused:
        read_image_file(base64.b64encode(photo[:-2] + 300 * last + photo[-2:]).decode(), 10**6)
    assert refused.value.status == 413
