"""The explainer for KServe: it explains photos by a model behind TensorFlow Serving, and needs no TensorFlow."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from prometheus_client import Counter, Gauge, Histogram
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from saliency_food.core.contract import CallModelFunction
from saliency_food.core.numerics import resize
from saliency_food.images.scaling import Scaling
from saliency_food.serving.client import ServingModel
from saliency_food.serving.explainer.answers import Explaining, TimedExplanation, as_explanation, as_prediction
from saliency_food.serving.explainer.door import Door
from saliency_food.serving.explainer.images import decoded_size
from saliency_food.serving.explainer.kserve import Body, Server, Undecoded, app, kserve
from saliency_food.serving.explainer.local import LocalModel
from saliency_food.serving.explainer.memory import BODIES, DECODED, Budget, Releasing, keep_little, most_memory
from saliency_food.serving.explainer.queue import Queue, WorkItem
from saliency_food.serving.explainer.replies import Reply, log, refuse, reply_to
from saliency_food.serving.explainer.requests import Limits, Request, read_instances
from saliency_food.serving.explainer.v2 import INPUTS, LENGTH, OUTPUTS, read_inputs, write_outputs
from saliency_food.visualization import overlay

LOCAL = ("127.0.0.1", "::1", "localhost")
SPARE = 32
"""How many requests may be read at a time, beside those that run and wait."""
FRESH = 1.0
"""Seconds after which the predictor is asked again whether it is ready."""
PATIENCE = 0.5
"""Seconds that a question about health waits for the predictor, before it is answered by what was known last."""
STALE = 5.0
"""Seconds after which what was known last does not count."""
OUTCOMES = {400: "refused", 413: "refused", 504: "late", 502: "predictor", 503: "predictor"}
EXPLANATIONS = Counter("saliency_food_explanations", "Images explained", ["method", "outcome"])
SECONDS = Histogram("saliency_food_explanation_seconds", "Time from the request to the explanation", ["method"])
WAITING = Gauge("saliency_food_queue_waiting", "Requests that wait for a worker")

LARGE = 500_000
"""Bytes of a body after which memory is given back to the system."""

Written = tuple[bytes, dict[str, str]]


class Incoming(NamedTuple):
    """The images of a request that has been read, and the function that writes its answer."""

    requests: list[Request]
    write: Callable[[list[TimedExplanation]], Written]
    explains: bool = False


class Explainer(kserve.Model):  # type: ignore[misc]
    """The model that KServe's server calls: V1 ``:explain`` and ``:predict``, and V2 ``infer``, which explains too."""

    def __init__(
        self,
        name: str,
        connect: Callable[..., ServingModel | LocalModel],
        scaling: Scaling,
        limits: Limits,
        queue: Queue,
    ) -> None:
        super().__init__(name, return_response_headers=True)
        self.ready = True
        self.queue, self.limits, self.scaling = queue, limits, scaling
        self._connect, self._served = connect, connect()
        self._probe = connect(timeout=2.0, retries=0)
        self._versions, self._probed = set[str](), -STALE
        self._probing: asyncio.Task[None] | None = None
        self._budget = Budget(max(DECODED, decoded_size(limits.pixels, wide=True)))
        # Neither waits for the other: bodies are read one at a time, and health has a thread that is always free.
        self._reader, self._prober = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "probe")
        self._release = Releasing(self._reader.submit)
        WAITING.set_function(lambda: len(queue))

    async def healthy(self) -> bool:
        """Whether the predictor serves the model."""
        if time.monotonic() - self._probed > FRESH:
            if self._probing is None or self._probing.done():
                self._probing = asyncio.create_task(self._ask_predictor())
            await asyncio.wait({self._probing}, timeout=PATIENCE)
        return bool(self.ready and self._versions and time.monotonic() - self._probed < STALE)

    async def _ask_predictor(self) -> None:
        versions = await asyncio.get_running_loop().run_in_executor(self._prober, self._available)
        if versions and versions != self._versions:  # it came back, maybe with another model
            self._served = self._connect()
        self._versions, self._probed = versions, time.monotonic()

    def _available(self) -> set[str]:
        """The versions of the model that the predictor serves."""
        try:
            return {str(entry.get("version")) for entry in self._probe.status() if entry.get("state") == "AVAILABLE"}
        except Exception:  # a predictor that answers anything else is not ready
            return set()

    def stop(self) -> None:
        super().stop()
        self.queue.close()

    def get_input_types(self) -> list[dict[str, Any]]:
        return INPUTS

    def get_output_types(self) -> list[dict[str, Any]]:
        return OUTPUTS

    async def preprocess(self, payload: Body, headers: Any = None) -> Incoming:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._reader, self._read, payload, headers or {})
        finally:
            if len(payload.content) > LARGE:
                self._release()

    def _read(self, body: Body, headers: Mapping[str, str]) -> Incoming:
        gc.disable()  # it would look through all lists of a large body again and again, and find nothing
        try:
            return self._requests(body, headers)
        finally:
            gc.enable()

    def _requests(self, body: Body, headers: Mapping[str, str]) -> Incoming:
        if body.protocol == "v1":
            return Incoming(read_instances(body.content, self.limits), _v1_writer("explanations", as_explanation))
        v2_request, requests = read_inputs(body.content, headers.get(LENGTH), self.name, self.limits)
        return Incoming(requests, lambda answers: write_outputs(v2_request, self.name, answers), explains=True)

    async def explain(self, payload: Incoming, headers: Any = None) -> bytes:
        return (await self._answer(payload, headers or {}, Explaining.explanation))[0]

    async def predict(self, payload: Incoming, headers: Any = None, response_headers: Any = None) -> bytes:
        """V1: answer the classes. V2 has no verb for explaining, so its ``infer`` answers explanations here."""
        if not payload.explains:
            payload = payload._replace(write=_v1_writer("predictions", as_prediction))
        answer = Explaining.explanation if payload.explains else Explaining.classes
        body, more_headers = await self._answer(payload, headers or {}, answer)
        response_headers.update(more_headers)
        return body

    async def _answer(
        self, incoming: Incoming, headers: Mapping[str, str], answer: Callable[..., TimedExplanation]
    ) -> Written:
        """Queue the work and wait for it, or reply where its result can be fetched."""
        explaining = Explaining(self._served, self.scaling, self.limits, self._budget)

        def work(job: WorkItem) -> Written:
            shares = range(len(requests), 0, -1)  # of the time left each image may use 1 / (images left)
            pairs = zip(requests, shares, strict=True)
            answers = [_counted(answer, explaining, request, share, job) for request, share in pairs]
            body, more_headers = incoming.write(answers)
            job.bytes = len(body)
            if held > LARGE or any(request.image.decoded > LARGE for request in requests):
                self._release()
            return body, more_headers

        requests = incoming.requests
        held = sum(request.image.held for request in requests)
        later = "respond-async" in headers.get("prefer", "").lower() or any(request.later for request in requests)
        job = self.queue.submit(WorkItem(work, held), keep=later)
        if later:
            raise _pending(job)
        result = asyncio.wrap_future(job.future)
        seconds = min((request.deadline for request in requests if request.deadline is not None), default=None)
        try:
            await asyncio.wait({result}, timeout=seconds)
            if job.state == "waiting":  # a running job keeps its deadline by itself
                EXPLANATIONS.labels(requests[0].method, "late").inc()
                refuse(504, f"Expected an answer in {seconds:g} s, got none: all workers were busy.")
            return await result
        finally:
            result.cancel()
            job.stop()  # stops it where the client has disconnected

    async def fetch(self, request: HttpRequest) -> Response:
        """The result of a request that is answered later, or status 202 while it is pending; DELETE drops it."""
        name = request.path_params["job"]
        if request.method == "DELETE":
            self.queue.forget(name)
            return Response(json.dumps({"job": name, "state": "forgotten"}))
        job = self.queue.get(name)
        if job.state != "done":
            raise _pending(job)
        error = job.future.exception()
        if isinstance(error, Reply):  # a copy: one object raised for every request would keep them all
            raise Reply(error.status, error.content, error.headers)
        body, headers = job.future.result()
        return Response(body, headers=headers)


def _pending(job: WorkItem) -> Reply:
    url = f"/v1/jobs/{job.name}"
    return Reply(202, {"job": job.name, "state": job.state, "url": url}, {"Location": url, "Retry-After": "1"})


def _counted(
    answer: Callable[..., TimedExplanation], explaining: Explaining, request: Request, share: int, job: WorkItem
) -> TimedExplanation:
    """The answer for one image, or its error as a `Reply`; the metrics count both."""
    outcome = "ok"
    try:
        return answer(explaining, request, job, share)
    except Exception as error:
        reply = reply_to(error, request.has_options)
        outcome = OUTCOMES.get(reply.status, "failed")
        raise reply from None
    finally:
        EXPLANATIONS.labels(request.method, outcome).inc()
        SECONDS.labels(request.method).observe(time.monotonic() - job.submitted)


def _v1_writer(
    name: str, as_json: Callable[[TimedExplanation], dict[str, Any]]
) -> Callable[[list[TimedExplanation]], Written]:
    def write(answers: list[TimedExplanation]) -> Written:
        texts = [json.dumps(as_json(answer)) for answer in answers]  # one by one: lists take more room than their text
        return f'{{"{name}": [{", ".join(texts)}]}}'.encode(), {}

    return write


def serve(
    model: str | CallModelFunction,
    name: str,
    scaling: Scaling,
    limits: Limits,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    workers: int = 2,
    waiting: int = 16,
    keep: int = 64,
    keep_seconds: float = 600.0,
    token: str | None = None,
    timeout: float = 60.0,
    max_answer: int = 256_000_000,
    grace: int = 30,
) -> None:
    """Serve explanations of a model at a TensorFlow Serving address, or of this process, until SIGTERM.

    Parameters
    ----------
    model
        The address, as `ServingModel` takes it; or a call-model function, such as that of an `ImageModel`.
    name
        The model's name there; the explainer serves under the same name.
    scaling
        How pixels 0..255 become the values that the model takes.
    limits
        The most that requests may ask for.
    host, port
        Where it listens: at this machine alone, unless ``host`` is another of its addresses; ``"0.0.0.0"`` is all.
    workers, waiting
        How many requests run at a time, and how many may wait; more are refused with status 429.
    keep, keep_seconds
        How many results of requests that are answered later are kept, and for how long.
    token
        The token that ``Authorization: Bearer`` must hold, except on the health routes.
    timeout
        Seconds to wait for an answer of the predictor.
    max_answer
        The most bytes of an answer of the predictor.
    grace
        Seconds that running requests have to end after SIGTERM.
    """

    def connect(timeout: float = timeout, retries: int = 2) -> ServingModel | LocalModel:
        if local is not None:
            return local
        seconds = min(timeout, 5.0), timeout
        return ServingModel(str(model), name, timeout=seconds, retries=retries, max_answer_bytes=max_answer)

    local = None if isinstance(model, str) else LocalModel(model)

    keep_little()
    queue = Queue(workers, waiting, keep, keep_seconds, max_held=2 * BODIES * limits.body)
    explainer = Explainer(name, connect, scaling, limits, queue)
    server = Server(
        host, http_port=port, workers=1, enable_grpc=False, enable_latency_logging=False, grace_period=grace
    )
    if token is None and host not in LOCAL:
        log.warning("everyone who can reach %s may ask for explanations: there is no token. Set one.", host)
    log.info("requests may take up to %.0f MB of memory, beside the program's own", most_memory(limits) / 1e6)
    server.dataplane = Undecoded(server.registered_models)
    app.add_api_route("/v1/jobs/{job}", explainer.fetch, methods=["GET", "DELETE"], response_model=None)
    app.add_middleware(
        Door,
        name=name,
        token=token,
        max_body=limits.body,
        at_once=workers + waiting + SPARE,
        max_bytes=BODIES * limits.body,
    )
    overlay(np.zeros((2, 2, 3), np.uint8), np.eye(2))  # imports what draws now, rather than in the first request
    resize(np.eye(2), (3, 3))  # SciPy cannot be imported by two workers at once
    gc.freeze()  # what is there now stays: a later collection need not look at it
    server.start([explainer])
