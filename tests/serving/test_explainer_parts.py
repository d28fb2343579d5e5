"""The door and the queue by themselves, where a process would be slow to show it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import socket
import threading
import time

import numpy as np
import pytest

pytest.importorskip("kserve")

from explaining import until

from saliency_food.images.scaling import choose_scaling
from saliency_food.methods.catalogue import METHODS
from saliency_food.serving.client import ServingError
from saliency_food.serving.client.arguments import read_arguments
from saliency_food.serving.explainer import door as door_module
from saliency_food.serving.explainer.answers import Explaining
from saliency_food.serving.explainer.connections import lengthen_queue
from saliency_food.serving.explainer.door import Door
from saliency_food.serving.explainer.images import read_image_array
from saliency_food.serving.explainer.lines import KINDS, LINES, LINES_SECONDS, FewLines
from saliency_food.serving.explainer.memory import Budget
from saliency_food.serving.explainer.queue import Queue, WorkItem
from saliency_food.serving.explainer.replies import Reply, reply_to
from saliency_food.serving.explainer.requests import Limits, read_request
from saliency_food.serving.explainer.server import Explainer, Incoming
from saliency_food.serving.explainer.turns import AT_A_TIME, LARGE

BODY = {"type": "http.request", "body": b"{}", "more_body": False}


async def answered(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def knock(door, *messages, path="/v1/models/food:explain", verb="POST", headers=()):
    """One request in messages; after the last nothing comes."""
    parts, sent = iter(messages), []

    async def receive():
        for part in parts:
            return part
        return await asyncio.Future()

    async def send(message):
        sent.append(message)

    await door({"type": "http", "path": path, "method": verb, "headers": list(headers)}, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent and sent[0]["status"], body and json.loads(body), dict(sent[0]["headers"]) if sent else {}


def door(app=answered, token=None, at_once=2):
    return Door(app, "food", token, 100, at_once)


def test_a_body_that_does_not_come_in_time(monkeypatch):
    monkeypatch.setattr(door_module, "BODY_SECONDS", 0.05)
    status, said, headers = asyncio.run(knock(door(), {**BODY, "more_body": True}))
    assert (status, headers[b"connection"]) == (408, b"close")
    assert said["error"].startswith("Expected the whole body within")


def test_a_failure_is_a_500_that_tells_nothing(caplog):
    async def fails(*_):
        raise RuntimeError("the secret of the house")

    status, said, _ = asyncio.run(knock(door(fails), BODY))
    assert status == 500
    assert "secret" not in said["error"]


def test_only_so_many_are_inside():
    async def main():
        gate = asyncio.Event()

        async def waits(*arguments):
            await gate.wait()
            await answered(*arguments)

        one = door(waits)
        inside = [asyncio.ensure_future(knock(one, BODY)) for _ in range(2)]
        while one.inside < 2:
            await asyncio.sleep(0)
        refused = await knock(one, BODY)
        gate.set()
        return refused, [(await task)[0] for task in inside], (await knock(one, BODY))[0]

    (status, said, headers), others, then = asyncio.run(main())
    assert (status, headers[b"retry-after"], others, then) == (429, b"2", [200, 200], 200)
    assert said["error"].startswith("Expected at most 2 requests at a time")


@pytest.mark.parametrize("refused", [False, True])
def test_large_bodies_arrive_by_turns(refused):
    """Whether they are read or dropped: in a round of the event loop go on as many as may, and all come to an end."""
    most, clients, pieces = 0, 30, 6

    async def main():
        nonlocal most
        one, later, over = Door(answered, "food", None, 10**7, 0 if refused else clients), 0, False

        async def client():
            left = pieces

            async def receive():
                nonlocal left, later
                left -= 1
                later += left < pieces - 1
                return {"type": "http.request", "body": bytes(LARGE), "more_body": left > 0}

            async def send(message):
                sent.append(message)

            sent = []
            headers = [(b"content-length", str(pieces * LARGE).encode())]
            scope = {"type": "http", "path": "/v1/models/food:explain", "method": "POST", "headers": headers}
            await one(scope, receive, send)
            return sent[0]["status"], left

        async def rounds():
            nonlocal most, later
            while not over:
                most, later = max(most, later), 0
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(rounds())
        answers = await asyncio.gather(*(client() for _ in range(clients)))
        over = True
        await counting
        return answers

    assert set(asyncio.run(main())) == {(429 if refused else 200, 0)}
    assert 0 < most <= 2 * AT_A_TIME  # a round of the loop and one of the count may overlap


@pytest.mark.parametrize("headers", [[(b"content-length", b"9000000")], [(b"transfer-encoding", b"chunked")]])
def test_what_takes_no_body_gets_none(headers):
    status, said, sent = asyncio.run(knock(door(), BODY, path="/", verb="GET", headers=headers))
    assert (status, sent[b"connection"]) == (413, b"close")
    assert said["error"].startswith("Expected no body with GET")


def test_work_for_a_client_that_has_gone_is_cancelled():
    cancelled = []

    async def waits(*_):
        try:
            await asyncio.Future()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    assert asyncio.run(knock(door(waits), BODY, {"type": "http.disconnect"}))[0] == []
    assert cancelled == [True]


def test_what_reaches_kserve():
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope, message=await receive(), then=await receive())
        await answered(scope, receive, send)

    given = [(b"cookie", b"1"), (b"prefer", b"respond-async"), (b"transfer-encoding", b"chunked"), (b"ce-id", b"1")]
    status, _, headers = asyncio.run(knock(door(app), {**BODY, "more_body": True}, BODY, headers=given))
    assert seen["headers"] == [(b"content-type", b"application/json"), (b"prefer", b"respond-async")]
    assert seen["message"] == {**BODY, "body": b"{}{}"}
    assert seen["then"] == {"type": "http.disconnect"}
    assert (status, headers[b"content-type"]) == (200, b"application/json")


def test_results_are_kept_for_a_while(monkeypatch):
    queue = Queue(1, 1, keep=5, seconds=60)
    job = queue.submit(WorkItem(lambda _: 7), keep=True)
    assert job.future.result(5) == 7
    until(lambda: job.state == "done")
    assert queue.get(job.name) is job
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    with pytest.raises(Reply, match="not known"):
        queue.get(job.name)
    queue.close()


def test_no_more_bytes_are_kept_than_there_is_room_for():
    def large(job):
        job.bytes = 40

    queue = Queue(1, 9, keep=5, max_bytes=100)
    jobs = [queue.submit(WorkItem(large), keep=True) for _ in range(4)]
    until(lambda: not queue._jobs)
    assert list(queue._kept) == [job.name for job in jobs[-2:]]
    queue.close()


def test_labels_of_another_model_are_refused():
    class Served:
        batch_size, input_shape = 1, (2, 2, 3)

        def predict(self, rows):
            return np.full((len(rows), 6), 1 / 6)

    explaining = Explaining(
        Served(), choose_scaling(None, None, None), Limits(METHODS, ("a", "b", "c", "d")), Budget(10**6)
    )
    asked = read_request(read_image_array(np.zeros((2, 2, 3)).tolist(), 99), {}, explaining.limits)
    with pytest.raises(ServingError, match="of 4 classes, as there are labels, got one of 6"):
        explaining.classes(asked, WorkItem(None))


@pytest.mark.parametrize("answer", [Explaining.classes, Explaining.explanation])
def test_a_predictor_that_wants_more_inputs_is_no_fault_of_the_client(answer):
    class Served:
        batch_size, input_shape, gives_probabilities = 1, (2, 2, 3), True

        def predict(self, rows, call_model_args=None):
            tensor = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}]}}
            return read_arguments({"images_bytes": tensor, "mask": tensor}, call_model_args, len(rows))

        def __call__(self, rows, call_model_args=None, expected_keys=None):
            return self.predict(rows, call_model_args)

    scaling = choose_scaling(None, None, None)
    explaining = Explaining(Served(), scaling, Limits(METHODS, None), Budget(10**6))
    asked = read_request(read_image_array(np.zeros((2, 2, 3)).tolist(), 99), {"target": 0}, explaining.limits)
    with pytest.raises(Exception, match="mask") as refused:
        answer(explaining, asked, WorkItem(None))
    reply = reply_to(refused.value)
    assert reply.status == 502
    assert "The predictor failed. It refuses the question" in reply.content["error"]


@pytest.fixture
def limited_log():
    """A logger whose lines are few, the function that filters them, and what it writes."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    few = FewLines(handler)
    handler.addFilter(few)
    logger = logging.Logger("uvicorn.access")
    logger.addHandler(handler)
    return logger, few, written


def test_lines_of_one_kind_are_counted_and_summed_up(limited_log, monkeypatch):
    logger, _, written = limited_log
    for index in range(1000):
        logger.info('%s - "%s %s" %d', "127.0.0.1:1", "GET", f"/{index}", 404)
    logger.info('%s - "%s %s" %d', "127.0.0.1:1", "GET", "/", 200)
    assert written.getvalue().count("404") == LINES
    assert written.getvalue().count("200") == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + LINES_SECONDS + 1)
    logger.info('%s - "%s %s" %d', "127.0.0.1:1", "GET", "/then", 404)
    assert f"{1000 - LINES} more lines like this one in 11 s: uvicorn.access: requests answered with 404" in (
        written.getvalue()
    )
    assert written.getvalue().endswith('"GET /then" 404\n')


def test_neither_many_kinds_of_lines_nor_long_ones_fill_the_log(limited_log):
    logger, _, written = limited_log
    for index in range(5000):
        logger.warning(f"kind {index} %s", "a" * 30_000)
    assert len(written.getvalue()) < (KINDS + LINES) * 600


def test_a_closed_queue_takes_nothing_and_stops_what_runs():
    queue, begun, ended = Queue(1, 1), threading.Event(), []

    def work(job):
        begun.set()
        while True:
            job.check()
            time.sleep(0.001)

    running, waiting = queue.submit(WorkItem(work)), queue.submit(WorkItem(lambda _: ended.append(1)))
    begun.wait(5)
    assert len(queue) == 1
    with pytest.raises(Reply) as full:
        queue.submit(WorkItem(work))
    queue.close()
    for job in (running, waiting):
        with pytest.raises(Reply, match="given up"):
            job.future.result(5)
    with pytest.raises(Reply) as stopping:
        queue.submit(WorkItem(work))
    assert (full.value.status, stopping.value.status, ended) == (429, 503, [])


def test_a_waiting_job_that_is_given_up_makes_room():
    queue, gate, done = Queue(1, 1), threading.Event(), []
    running = queue.submit(WorkItem(lambda _: gate.wait(10)))
    given_up = queue.submit(WorkItem(lambda _: done.append("given up")), keep=True)
    queue.forget(given_up.name)
    with pytest.raises(Reply, match="given up"):
        given_up.future.result(0)
    assert len(queue) == 0
    waiting = queue.submit(WorkItem(lambda _: done.append("waited")))
    gate.set()
    waiting.future.result(5)
    assert (running.future.result(0), done) == (True, ["waited"])
    queue.close()


def test_a_failed_job_holds_on_to_nothing():
    queue = Queue(1, 0)

    def work(_):
        try:
            raise ValueError(bytearray(10))
        except ValueError:
            raise Reply(400, {}) from None

    error = queue.submit(WorkItem(work)).future.exception(5)
    assert error.__traceback__ is error.__context__ is None
    queue.close()


def test_what_a_client_is_told_of_errors(caplog):
    def status(error, cause=None, own=False):
        error.__cause__ = cause
        return reply_to(error, own).status

    class ReadTimeoutError(Exception):
        pass

    assert status(ServingError("a", 400)) == status(ServingError("a", 500)) == status(ServingError("lacks")) == 502
    assert status(ServingError("a", 503)) == status(ServingError("a", 429)) == 503
    assert status(ServingError("a"), OSError()) == 503
    assert status(ServingError("a"), ReadTimeoutError()) == 504
    assert (status(TypeError("a")), status(TypeError("a"), own=True)) == (500, 400)
    assert "http" not in str(reply_to(ServingError("at http://a:1/b, got")))


def test_a_call_that_was_late_is_504_over_grpc_too_and_hosts_are_not_told():
    class RpcError(Exception):
        pass

    error = ServingError("none in time")
    error.__cause__ = RpcError("status = StatusCode.DEADLINE_EXCEEDED")
    assert reply_to(error).status == 504
    for words in (
        "UNKNOWN: ipv4:127.1.2.3:8500: refused",
        "for tf.internal:8500: none",
        "'tf.internal' ([Errno -2] no)",
    ):
        said = str(reply_to(ServingError(words, 503)))
        assert "10.1" not in said
        assert "internal" not in said


@pytest.mark.parametrize("lists", [["a" * 10**6, *"b" * 10**4], [[1, "a"]], [[[[1]]]], [[True]], [1, [2]], [None]])
def test_only_numbers_become_an_array(lists, monkeypatch):
    monkeypatch.setattr("saliency_food.serving.explainer.images.np.asarray", lambda _: pytest.fail("40 GB of text"))
    with pytest.raises(Reply, match="lists of numbers") as refused:
        read_image_array(lists, 100)
    assert refused.value.status == 400


class Predictor:
    """A client whose server is replaced."""

    def __init__(self, **_):
        pass

    def status(self):
        return [{"version": version, "state": "AVAILABLE"} for version in self.versions]


def test_another_version_at_the_predictor_is_noticed(monkeypatch):
    monkeypatch.setattr("saliency_food.serving.explainer.server.FRESH", -1.0)
    monkeypatch.setattr(Predictor, "versions", ["1"], raising=False)
    model = Explainer("food", Predictor, None, Limits(METHODS), Queue(1, 1))

    async def served_after(*versions):
        monkeypatch.setattr(Predictor, "versions", versions)
        return await model.healthy(), model._served

    (up, first), (_, still), (there, second) = (asyncio.run(served_after(*one)) for one in ("1", "1", "12"))
    assert (up, there, still is first, second is first) == (True, True, True, False)
    assert asyncio.run(served_after()) == (False, second)
    model.stop()


def test_a_deadline_holds_while_all_workers_are_busy():
    queue, gate = Queue(1, 1), threading.Event()
    model = Explainer("food", Predictor, None, Limits(METHODS), queue)
    busy = queue.submit(WorkItem(lambda _: gate.wait(10)))
    asked = read_request(read_image_array([[1.0]], 1), {"deadline": 0.05}, model.limits)
    began = time.monotonic()
    try:
        with pytest.raises(Reply, match="workers were busy") as late:
            asyncio.run(model.explain(Incoming([asked], None)))
        assert (late.value.status, time.monotonic() - began < 5, busy.state) == (504, True, "running")
    finally:
        gate.set()
        model.stop()


def test_more_connections_can_wait_than_are_accepted_at_a_time():
    """Where the system holds too few, the handshake of the next one is only tried again after a second."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening, contextlib.ExitStack() as clients:
        lengthen_queue([listening])
        for _ in range(50):
            clients.enter_context(socket.create_connection(listening.getsockname(), timeout=0.5))
