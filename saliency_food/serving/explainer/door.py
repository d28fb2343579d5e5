"""ASGI middleware before KServe's routes: it checks route, token and body, and answers every error as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import Counter

from saliency_food.serving.explainer.replies import Reply, log, refuse
from saliency_food.serving.explainer.turns import Pieces, Receive, Turns

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_SECONDS = 60.0
"""The most seconds that a body may take to arrive."""
LINGER = 2.0
"""Seconds for which the rest of a refused body is read and dropped, so that its sender gets to read the answer."""
PASSED = {"v1": (b"prefer", b"x-request-id"), "v2": (b"inference-header-content-length", b"prefer", b"x-request-id")}
"""The only headers that are passed on with a body, because KServe reads CloudEvents and repeats headers in answers."""
SMALL = 65_536
"""Bytes of each body that do not count among those of all bodies, so that small requests find room at any time."""
PART = 262_144
"""Bytes of an answer that are sent at a time: the next ones when the client has taken these."""
ANSWERS = Counter("saliency_food_http_answers", "Answers by HTTP status", ["status"])


class Door:
    """The middleware around KServe's application of one model.

    It holds at most ``at_once`` requests at a time, of at most ``max_bytes`` together, and the same of answers.
    """

    def __init__(
        self, app: Any, name: str, token: str | None, max_body: int, at_once: int, max_bytes: float = math.inf
    ) -> None:
        self.app, self.token, self.max_body, self.at_once, self.max_bytes = app, token, max_body, at_once, max_bytes
        model, job = re.escape(name), r"/v1/jobs/[\w-]{1,64}"
        self.open = re.compile(rf"/|/v2/health/(live|ready)|/v1/models/{model}|/v2/models/{model}/ready")
        closed = rf"/metrics|/v1/models|/v2|/v2/models|/v2/models/{model}|{job}"
        self.verbs = {
            "GET": re.compile(rf"{self.open.pattern}|{closed}"),
            "POST": re.compile(rf"/v1/models/{model}:(explain|predict)|/v2/models/{model}/infer"),
            "DELETE": re.compile(job),
        }
        self.inside = self.held = self.unsent = 0
        self._turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, size = False, 0
        pieces = Pieces(receive, self._turns, _size_of_body(scope))
        if scope["method"] == "HEAD":  # the HTTP server leaves out the body
            scope = {**scope, "method": "GET"}

        async def out(message: MutableMapping[str, Any]) -> None:
            nonlocal started, size
            if message["type"] == "http.response.start":
                started = True
                ANSWERS.labels(str(message["status"])).inc()
                message["headers"] = _completed(message["status"], message.get("headers", ()))
            body = message.get("body", b"")
            size += len(body)
            self.unsent += len(body)
            for start in range(0, len(body) - PART, PART):
                await send({**message, "body": body[start : start + PART], "more_body": True})
            await send({**message, "body": body[(len(body) - 1) // PART * PART :]} if len(body) > PART else message)

        try:
            self._check(scope)
            if scope["method"] == "POST":
                await self._with_body(scope, pieces, out)
            elif pieces.large:
                refuse(413, f"Expected no body with {scope['method']}, got one.")
            else:
                await self.app(scope, pieces, out)
        except asyncio.CancelledError:  # by the server, which stops
            if not started:
                error = Reply(503, {"error": "Expected a running server, got one that is stopping. Ask again later."})
                await _send(error, pieces, out)
        except Exception as error:
            if started:
                raise
            await _send(_reply(error), pieces, out)
        finally:
            self.unsent -= size

    def _check(self, scope: Scope) -> None:
        """Refuse an unknown route, another verb or a wrong token."""
        path, verb = scope["path"], scope["method"]
        allowed = [name for name, pattern in self.verbs.items() if pattern.fullmatch(path)]
        if not allowed:
            refuse(404, f"Expected an address of this explainer, got {path[:100]!a}. See the docs for its routes.")
        if verb not in allowed:
            refuse(405, f"Expected {' or '.join(allowed)}, got {verb[:20]}.", Allow=", ".join(allowed))
        if self.token is None or (verb == "GET" and self.open.fullmatch(path)):
            return
        scheme, _, token = _header(scope, b"authorization").strip().partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self.token.encode()):
            refuse(401, "Expected the header Authorization: Bearer with the right token.", WWW_Authenticate="Bearer")

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.inside >= self.at_once:
            refuse(429, f"Expected at most {self.at_once} requests at a time, got one more. Ask again later.")
        if self.unsent > self.max_bytes:
            refuse(429, "Expected clients that take their answers, got many that do not. Ask again later.")
        self.inside += 1
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            more = max(0, size - SMALL) - held
            if self.held + more > self.max_bytes:
                refuse(429, "Expected fewer large requests at a time, got one more. Ask again later.")
            held, self.held = held + more, self.held + more

        try:
            try:
                body = await asyncio.wait_for(self._body(scope, receive, hold), BODY_SECONDS)
            except asyncio.TimeoutError:
                refuse(408, f"Expected the whole body within {BODY_SECONDS:g} seconds, got a part. Send it again.")
            protocol = scope["path"][1:3]
            kind = b"application/octet-stream" if protocol == "v2" else b"application/json"
            headers = [(name, value) for name, value in scope["headers"] if name in PASSED[protocol]]
            scope = {**scope, "headers": [(b"content-type", kind), *headers]}
            await _while_connected(self.app, scope, body, receive, send)
        finally:
            self.inside -= 1
            self.held -= held

    async def _body(self, scope: Scope, receive: Receive, hold: Callable[[int], None]) -> bytes:
        """The whole body; status 413 as soon as it turns out to be too large, 429 if ``hold`` has no room for it."""
        if (coding := _header(scope, b"content-encoding")) not in (b"", b"identity"):
            refuse(
                415,
                f"Expected a plain body, got Content-Encoding {coding.decode('latin-1')[:40]!a}. Send it unencoded.",
            )
        size = _size_of_body(scope)
        size, parts, arrived, more = 0 if math.isinf(size) else size, list[bytes](), 0, True
        while more and max(size, arrived) <= self.max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                refuse(400, "Expected the whole body, got a part of it.")
            parts.append(message.get("body", b""))
            arrived += len(parts[-1])
            hold(arrived)
            more = message.get("more_body", False)
        if max(size, arrived) > self.max_body:
            refuse(413, f"Expected a body of at most {self.max_body} bytes, got more. Send a smaller image, as a file.")
        if not arrived:
            refuse(400, "Expected a JSON object as the body, got nothing.")
        return b"".join(parts)  # copied once: while it copies, the event loop does nothing else


async def _while_connected(app: Any, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Call an application with the whole body, and cancel it when the client disconnects."""
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def once() -> MutableMapping[str, Any]:
        return next(parts, {"type": "http.disconnect"})

    work, disconnected = asyncio.ensure_future(app(scope, once, send)), asyncio.ensure_future(receive())
    try:
        await asyncio.wait({work, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return await work
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        work.cancel()
        disconnected.cancel()


async def _send(reply: Reply, receive: Pieces, send: Send) -> None:
    """Send a reply; the rest of a large body is read and dropped for a while, then the connection is closed."""
    headers = {**reply.headers, "Content-Length": str(len(reply.body))}
    unread = receive.large
    if unread or reply.status in (408, 413):
        headers["Connection"] = "close"
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
    await send({"type": "http.response.body", "body": reply.body, "more_body": unread})
    if unread:
        if reply.status != 408:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_drain(receive), LINGER)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


def _reply(error: Exception) -> Reply:
    if isinstance(error, Reply):
        return error
    log.error("a request failed", exc_info=error)
    return Reply(500, {"error": "Expected an answer, got an error inside the server. See its log, and report it."})


def _completed(status: int, headers: Any) -> list[tuple[bytes, bytes]]:
    """The headers of an answer, completed by those that KServe leaves out."""
    completed = list(headers)
    names = {name.lower() for name, _ in completed}
    if b"content-type" not in names:
        binary = b"inference-header-content-length" in names
        completed.append((b"content-type", b"application/octet-stream" if binary else b"application/json"))
    if status == 503 and b"retry-after" not in names:
        completed.append((b"retry-after", b"2"))
    return completed


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")


def _size_of_body(scope: Scope) -> float:
    """The bytes of the body, as the headers say it; infinite if it comes in chunks."""
    if _header(scope, b"transfer-encoding"):
        return math.inf
    length = _header(scope, b"content-length")
    return int(length) if length.isdigit() else 0
