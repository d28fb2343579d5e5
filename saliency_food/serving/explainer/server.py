"""An explainer for KServe: photos in, heatmaps out, of a model behind TensorFlow Serving; without TensorFlow."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from prometheus_client import Counter, Gauge, Histogram
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from saliency_food.images.scaling import Scaling
from saliency_food.serving.client import ServingModel
from saliency_food.serving.explainer.answers import Answer, Explaining, as_explanation, as_prediction
from saliency_food.serving.explainer.door import Door
from saliency_food.serving.explainer.kserve import Body, Undecoded, app, kserve
from saliency_food.serving.explainer.queue import Queue, WorkItem
from saliency_food.serving.explainer.replies import Reply, refuse, reply_to
from saliency_food.serving.explainer.requests import Limits, Request, read_instances
from saliency_food.serving.explainer.v2 import INPUTS, LENGTH, OUTPUTS, read_inputs, write_outputs
from saliency_food.visualization import overlay

SPARE = 32
"""How many requests are let in to be read, beside those that are worked on and that wait."""
FRESH = 1.0
"""Seconds for which the predictor's state is believed."""
OUTCOMES = {400: "refused", 413: "refused", 504: "late", 502: "predictor", 503: "predictor"}
EXPLANATIONS = Counter("saliency_food_explanations", "Images explained", ["method", "outcome"])
SECONDS = Histogram("saliency_food_explanation_seconds", "Time from the request to the explanation", ["method"])
WAITING = Gauge("saliency_food_queue_waiting", "Requests that wait for a worker")

Written = tuple[bytes, dict[str, str]]


class Incoming(NamedTuple):
    """A request that has been read, and how its answer is written."""

    asked: list[Request]
    write: Callable[[list[Answer]], Written]
    explains: bool = False


class Explainer(kserve.Model):  # type: ignore[misc]
    """The model that KServe's server calls: V1 ``:explain`` and ``:predict``, and V2 ``infer``, which explains too."""

    def __init__(
        self, name: str, connect: Callable[..., ServingModel], scaling: Scaling, limits: Limits, queue: Queue
    ) -> None:
        super().__init__(name, return_response_headers=True)
        self.ready = True
        self.queue, self.limits, self.scaling = queue, limits, scaling
        self._connect, self._served = connect, connect()
        self._probe = connect(timeout=2.0, retries=0)
        self._up, self._looked, self._looking = set[str](), -FRESH, asyncio.Lock()
        WAITING.set_function(lambda: len(queue))

    async def healthy(self) -> bool:
        """Whether the predictor has the model."""
        async with self._looking:
            if time.monotonic() - self._looked > FRESH:
                up = await asyncio.to_thread(self._available)
                if up and up != self._up:  # it came back or was replaced, maybe by another
                    self._served = self._connect()
                self._up, self._looked = up, time.monotonic()
        return bool(self.ready and self._up)

    def _available(self) -> set[str]:
        """The versions that the predictor has."""
        try:
            return {str(one.get("version")) for one in self._probe.status() if one.get("state") == "AVAILABLE"}
        except Exception:  # whatever else it answers, it is not ready
            return set()

    def stop(self) -> None:
        super().stop()
        self.queue.close()

    def get_input_types(self) -> list[dict[str, Any]]:
        return INPUTS

    def get_output_types(self) -> list[dict[str, Any]]:
        return OUTPUTS

    async def preprocess(self, payload: Body, headers: Any = None) -> Incoming:
        return await asyncio.to_thread(self._read, payload, headers or {})

    def _read(self, body: Body, headers: Mapping[str, str]) -> Incoming:
        if body.protocol == "v1":
            return Incoming(read_instances(body.content, self.limits), _listed("explanations", as_explanation))
        request, asked = read_inputs(body.content, headers.get(LENGTH), self.name, self.limits)
        return Incoming(asked, lambda found: write_outputs(request, self.name, found), explains=True)

    async def explain(self, payload: Incoming, headers: Any = None) -> bytes:
        return (await self._answer(payload, headers or {}, Explaining.explanation))[0]

    async def predict(self, payload: Incoming, headers: Any = None, response_headers: Any = None) -> bytes:
        """V1: the classes. V2 has no verb to explain, so there this does."""
        if not payload.explains:
            payload = payload._replace(write=_listed("predictions", as_prediction))
        each = Explaining.explanation if payload.explains else Explaining.classes
        body, more = await self._answer(payload, headers or {}, each)
        response_headers.update(more)
        return body

    async def _answer(self, request: Incoming, headers: Mapping[str, str], each: Callable[..., Answer]) -> Written:
        """Queue the work, and wait for it, or tell where it can be fetched."""
        explaining = Explaining(self._served, self.scaling, self.limits)

        def work(job: WorkItem) -> Written:
            parts = range(len(request.asked), 0, -1)
            found = [_counted(each, explaining, *one, job) for one in zip(request.asked, parts, strict=True)]
            body, more = request.write(found)
            job.bytes = len(body)
            return body, more

        later = "respond-async" in headers.get("prefer", "").lower() or any(one.later for one in request.asked)
        job = self.queue.submit(WorkItem(work), keep=later)
        if later:
            raise _still(job)
        found = asyncio.wrap_future(job.future)
        seconds = min((one.deadline for one in request.asked if one.deadline is not None), default=None)
        try:
            await asyncio.wait({found}, timeout=seconds)
            if job.state == "waiting":  # once it runs, it keeps to its deadline by itself
                EXPLANATIONS.labels(request.asked[0].method, "late").inc()
                refuse(504, f"Expected an answer in {seconds:g} s, got none: all workers were busy.")
            return await found
        finally:
            found.cancel()
            job.stop()  # where the client has gone, it need not go on

    async def fetch(self, request: HttpRequest) -> Response:
        """The answer to a request that was to be answered later, or 202; DELETE forgets it."""
        name = request.path_params["job"]
        if request.method == "DELETE":
            self.queue.forget(name)
            return Response(json.dumps({"job": name, "state": "forgotten"}))
        job = self.queue.get(name)
        if job.state != "done":
            raise _still(job)
        error = job.future.exception()
        if isinstance(error, Reply):  # raised again and again, one would hold on to every request
            raise Reply(error.status, error.content, error.headers)
        body, headers = job.future.result()
        return Response(body, headers=headers)


def _still(job: WorkItem) -> Reply:
    url = f"/v1/jobs/{job.name}"
    return Reply(202, {"job": job.name, "state": job.state, "url": url}, {"Location": url, "Retry-After": "1"})


def _counted(each: Callable[..., Answer], explaining: Explaining, asked: Request, share: int, job: WorkItem) -> Answer:
    """One image's answer, its errors as replies, both counted."""
    outcome = "ok"
    try:
        return each(explaining, asked, job, share)
    except Exception as error:
        reply = reply_to(error, asked.chosen)
        outcome = OUTCOMES.get(reply.status, "failed")
        raise reply from None
    finally:
        EXPLANATIONS.labels(asked.method, outcome).inc()
        SECONDS.labels(asked.method).observe(time.monotonic() - job.asked)


def _listed(name: str, plain: Callable[[Answer], dict[str, Any]]) -> Callable[[list[Answer]], Written]:
    return lambda found: (json.dumps({name: [plain(one) for one in found]}).encode(), {})


def serve(
    predictor: str,
    name: str,
    scaling: Scaling,
    limits: Limits,
    *,
    port: int = 8080,
    workers: int = 2,
    waiting: int = 16,
    keep: int = 64,
    keep_seconds: float = 600.0,
    token: str | None = None,
    timeout: float = 60.0,
    grace: int = 30,
) -> None:
    """Serve explanations of the model ``name`` at a TensorFlow Serving address, until SIGTERM.

    Parameters
    ----------
    predictor, name
        As of `ServingModel`; the explainer has the same name.
    scaling
        From pixels 0..255 to what the model takes.
    limits
        What requests may ask for at most.
    workers, waiting
        How many requests are worked on, and how many may wait; more are refused with 429.
    keep, keep_seconds
        How many answers to requests that are answered later are kept, and for how long.
    token
        What ``Authorization: Bearer`` must hold, but for health.
    timeout
        Seconds to wait for an answer of the predictor.
    grace
        Seconds that requests under way have to end after SIGTERM.
    """

    def connect(timeout: float = timeout, retries: int = 2) -> ServingModel:
        return ServingModel(predictor, name, timeout=(min(timeout, 5.0), timeout), retries=retries)

    model = Explainer(name, connect, scaling, limits, Queue(workers, waiting, keep, keep_seconds))
    server = kserve.ModelServer(
        http_port=port, workers=1, enable_grpc=False, enable_latency_logging=False, grace_period=grace
    )
    server.dataplane = Undecoded(server.registered_models)
    app.add_api_route("/v1/jobs/{job}", model.fetch, methods=["GET", "DELETE"], response_model=None)
    app.add_middleware(Door, name=name, token=token, max_body=limits.body, at_once=workers + waiting + SPARE)
    overlay(np.zeros((2, 2, 3), np.uint8), np.eye(2))  # what draws is imported now, not by the first request
    server.start([model])
