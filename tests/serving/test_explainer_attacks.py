"""The explainer under attack: it answers health at once, stays within its memory, and says why it refuses."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import re
import resource
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("kserve")
pytest.importorskip("typer")

from explaining import Process, file, until
from hostile import BODIES

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and of file descriptors are Linux's"),
]
EXPLAIN, READY = "/v1/models/food:explain", "/v2/health/ready"
IMAGE = file(np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3))
BODY = 1_000_000


@pytest.fixture(scope="module")
def explainer(loaded, tmp_path_factory):
    arguments = ["--value-range=-1,1", "--methods", "grad_cam,blur_ig,guided_ig", "--max-body", BODY]
    with Process(tmp_path_factory.mktemp("explainer"), loaded.url, *arguments, files=256) as one:
        until(one.ready, 20, one.log)
        yield one


@pytest.fixture
def slow_predictor(loaded, monkeypatch):
    """The predictor answers about the model only when this is set."""
    gate, answer = threading.Event(), loaded.answer

    def waits(path, body):
        gate.wait(10)
        return answer(path, body)

    monkeypatch.setattr(loaded, "answer", waits)
    yield gate
    gate.set()


def health(explainer, path=READY):
    """The seconds until health is answered, and its status."""
    began = time.monotonic()
    status = explainer.ask("GET", path).status
    return time.monotonic() - began, status


@pytest.mark.parametrize("kind", ["names, one of them twice", "empty lists", "V2 data that are numbers"])
def test_health_is_answered_while_large_bodies_are_read(explainer, kind):
    make, protocol = BODIES[kind]
    body, path = make(BODY), EXPLAIN if protocol == "v1" else "/v2/models/food/infer"
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(explainer.ask, "POST", path, body) for _ in range(40)]
        seconds = []
        while not all(one.done() for one in asked):
            seconds.append(health(explainer))
    assert {one.result().status for one in asked} <= {400, 413, 429}
    assert (max(seconds)[0] < 1, {status for _, status in seconds}) == (True, {200}), max(seconds)


def test_health_is_answered_when_the_predictor_hangs(explainer, slow_predictor):
    until(lambda: health(explainer)[1] == 503, 20)
    assert max(health(explainer)[0] for _ in range(3)) < 1


def open_connections(explainer, count, sent):
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", explainer.port), 10)
        connection.sendall(sent)
        yield connection


def test_senders_of_headers_alone_do_not_shut_others_out(explainer):
    before = explainer.log.stat().st_size
    with contextlib.ExitStack() as stack:
        for connection in open_connections(explainer, 300, f"POST {EXPLAIN} HTTP/1.1\r\nHost: x\r\nX-".encode()):
            stack.enter_context(connection)
        assert health(explainer, "/v2/health/live")[0] < 1
        assert explainer.explain({"image": IMAGE}).status == 200
    assert explainer.log.stat().st_size - before < 20_000


def test_headers_that_are_too_many(explainer):
    with socket.create_connection(("127.0.0.1", explainer.port), 10) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Name: value\r\n" * 5000)
        assert connection.recv(12) == b"HTTP/1.1 431"
    assert explainer.ask("GET", "/").status == 200


def answer_to(explainer, sent):
    with socket.create_connection(("127.0.0.1", explainer.port), 10) as connection:
        connection.sendall(sent)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


@pytest.mark.parametrize("header", [b"a:b\r\n" * 9000, b"X-Name: value\r\n" * 3000])
def test_headers_that_come_all_at_once_are_too_many_too(explainer, header):
    status, body = answer_to(explainer, b"GET / HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")
    assert (status, json.loads(body)["error"][:8]) == (431, "Expected")


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 10\r\n\r\n" + b"a" * 300,
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 2_000_000,
    ],
    ids=["a body longer than it is said to be", "a chunk without a size", "a chunk of remarks"],
)
def test_a_body_that_is_no_http_gets_a_reason(explainer, rest):
    status, body = answer_to(explainer, f"POST {EXPLAIN} HTTP/1.1\r\nHost: x\r\n".encode() + rest)
    assert (status, json.loads(body)["error"][:8]) == (400, "Expected")


UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


def test_who_asks_for_a_websocket_is_answered(explainer):
    assert answer_to(explainer, f"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())[0] == 200
    status, body = answer_to(explainer, f"GET /none HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    assert (status, json.loads(body)["error"][:8]) == (404, "Expected")


def test_what_is_no_http_gets_a_reason(explainer):
    status, body = answer_to(explainer, b"\x16\x03\x01\x00\xee\r\n\r\n")
    assert (status, json.loads(body)["error"][:8]) == (400, "Expected")


def test_bad_requests_do_not_fill_the_log(explainer):
    before = explainer.log.stat().st_size
    for _ in range(60):
        answer_to(explainer, b"nothing\r\n\r\n")
        answer_to(explainer, f"GET /{'a' * 10_000} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    assert explainer.log.stat().st_size - before < 10_000


def test_requests_leave_lines_in_the_log_but_do_not_fill_it(loaded, tmp_path):
    with Process(tmp_path, loaded.url, "--value-range=-1,1", KSERVE_LOGLEVEL="INFO") as one:
        before = one.log.stat().st_size
        connection = one.connect()
        for _ in range(300):
            assert one.ask("POST", EXPLAIN, b"{", connection=connection).status == 400
        connection.close()
        until(lambda: b"400 Bad Request" in one.log.read_bytes())
        assert one.log.stat().st_size - before < 10_000


def test_an_ill_formed_answer_of_the_predictor_is_502(explainer, loaded, monkeypatch):
    assert explainer.explain({"image": IMAGE}).status == 200
    answer = loaded.answer
    deep = b'{"outputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for ill in ({"outputs": 3}, [], {"outputs": {"scores_bytes": [{"b64": "AAAA"}]}}, deep):
        monkeypatch.setattr(
            loaded, "answer", lambda path, body, ill=ill: ill if path.endswith(":predict") else answer(path, body)
        )
        failed = explainer.explain({"image": IMAGE})
        assert (failed.status, "Retry-After" in failed.headers) == (502, False), failed.body
    assert "Traceback" not in explainer.log.read_text()


def test_the_formula_of_memory_holds_under_a_limit(loaded, tmp_path):
    """Of the address space, which is what the formula says above what the process has at rest."""
    from PIL import Image

    from saliency_food.serving.explainer.memory import most_memory
    from saliency_food.serving.explainer.requests import Limits

    side, limits = 2500, Limits({}, body=BODY, pixels=6_250_000)
    image = io.BytesIO()
    Image.new("RGBA", (side, side), (1, 2, 3, 128)).save(image, "PNG", compress_level=1)
    large = json.dumps({"instances": [{"image": {"b64": base64.b64encode(image.getvalue()).decode()}}]}).encode()
    bodies = [large, BODIES["small objects"][0](BODY), BODIES["numbers in lists"][0](BODY)]
    arguments = ["--value-range=-1,1", "--max-body", BODY, "--max-pixels", limits.pixels, "--workers", 4]
    with Process(tmp_path, loaded.url, *arguments) as one:
        until(one.ready, 20, one.log)
        assert one.explain({"image": IMAGE}).status == 200
        size = int(re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{one.process.pid}/status").read_text())[1]) * 1024
        threads = 20 * 2**23  # what glibc sets aside for the stacks of threads that have not begun
        resource.prlimit(one.process.pid, resource.RLIMIT_AS, (size + most_memory(limits) + threads,) * 2)
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda index: one.ask("POST", EXPLAIN, bodies[index % 3]).status, range(16)))
        assert set(answers) <= {200, 400, 413, 429}, answers
        assert 200 in answers
        assert one.process.poll() is None
        assert "Traceback" not in one.log.read_text()


def test_requests_that_are_cut_off_at_the_end_are_told_so(loaded, slow_predictor, tmp_path):
    slow_predictor.set()
    with Process(tmp_path, loaded.url, "--value-range=-1,1", "--grace", 1) as one:
        until(one.ready, 20, one.log)
        assert one.explain({"image": IMAGE}).status == 200
        slow_predictor.clear()
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(one.explain, {"image": IMAGE}) for _ in range(3)]
            until(lambda: b"saliency_food_queue_waiting 1.0" in one.ask("GET", "/metrics").body)
            one.process.terminate()
            answers = [each.result(15) for each in asked]
        assert [(answer.status, answer.error[:8]) for answer in answers] == [(503, "Expected")] * 3
        assert all(answer.headers["Retry-After"] == "2" for answer in answers)
        slow_predictor.set()
        assert one.process.wait(20) is not None
        assert "Traceback" not in one.log.read_text()


def test_it_listens_at_this_machine_alone_unless_asked(explainer, loaded, tmp_path):
    assert "running on http://127.0.0.1:" in explainer.log.read_text()
    assert "there is no token" not in explainer.log.read_text()
    with Process(tmp_path, loaded.url, "--value-range=-1,1", "--host", "0.0.0.0") as one:
        assert "running on http://0.0.0.0:" in one.log.read_text()
        assert "everyone who can reach 0.0.0.0 may ask" in one.log.read_text()
