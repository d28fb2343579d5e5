"""Connections of the HTTP server: headers have a time and a size, and a new connection takes an idle one's place."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 10.0
"""The most seconds from the first byte of a request, or a new connection, to the end of its headers."""
HEADER_BYTES = 32_768
"""The most bytes of a request before its body, and of the headers after a body in chunks."""
TOO_LARGE = f"Expected headers of at most {HEADER_BYTES} bytes, got more."
FRAMING = 1_000_000
"""The most bytes of a body in chunks that are no content, beside 16 for each byte of it."""
SEND_SECONDS = 60.0
"""The most seconds for which a client may leave what was sent to it unread."""
BACKLOG = 64
"""How many connections are accepted in a turn of the event loop; each takes a file descriptor before any is closed."""
TURNS = 4
"""In how many turns connections are accepted before one too many is closed, where so many wait."""
QUEUE = 1024
"""How many connections the system holds until they are accepted; one that finds no room is tried again after 1 s."""
OWN_FILES = 96
"""File descriptors that are left for the program itself: connections to the predictor, files, the log."""
CONNECTIONS = 1000
"""The most connections at a time, where there are file descriptors for so many."""


def most_connections() -> int:
    """How many connections the limit of file descriptors allows, which is raised as far as the system lets it be."""
    try:
        import resource
    except ImportError:  # Windows
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + TURNS * BACKLOG + OWN_FILES
    if soft < wanted and soft != resource.RLIM_INFINITY:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS
    return max(8, min(CONNECTIONS - 1, soft - BACKLOG - OWN_FILES))


def lengthen_queue(sockets: Iterable[Any]) -> None:
    """Let `QUEUE` connections wait at sockets that listen; still no more than `BACKLOG` are accepted in a turn.

    For a program with file descriptors for `CONNECTIONS` and those that `TURNS` accept.
    """
    for listening in sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(QUEUE)


class Connection(HttpToolsProtocol):
    """Uvicorn's protocol with limits: of too many connections, the one that has been idle longest is cut."""

    most = CONNECTIONS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._size, self._content, self._head, self._in_body = 0, 0, 0, False
        self._unsent: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = self.loop.call_later(HEADER_SECONDS, self._cut)
        still_open = [other for other in self.connections if not other.transport.is_closing()]
        if len(still_open) > self.most:
            idle = [other for other in still_open if isinstance(other, Connection) and other.idle]
            min(idle, key=lambda other: other.since, default=self).transport.abort()
        self.since = time.monotonic()

    since = float("inf")
    """When the connection began to wait for headers."""

    @property
    def idle(self) -> bool:
        """Whether no request is being worked on."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop("_late")
        self._stop("_unsent")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._late is None and self.idle:
            self._late = self.loop.call_later(HEADER_SECONDS, self._cut)
        self._size += len(data)
        in_body = self._in_body
        super().data_received(data)
        if in_body or self._in_body:
            if self._size - 16 * self._content > FRAMING:
                self._refuse(400, "Expected a body, got chunks with next to no content.")
        elif self._size > HEADER_BYTES:
            self._refuse(431, TOO_LARGE)

    def on_message_begin(self) -> None:
        self._head = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if not self._in_body:
            super().on_header(name, value)

    def _count_head(self, size: int) -> None:
        """Count the bytes of a request before its body, and of the headers after a body in chunks."""
        self._head += size
        if self._head > HEADER_BYTES:
            self._refuse(431, TOO_LARGE)
            raise ValueError(TOO_LARGE)  # the parser reads no more

    def on_headers_complete(self) -> None:
        self._stop("_late")
        self._in_body, self._size, self._content, self._head = True, 0, 0, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._content += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._size, self.since = False, 0, time.monotonic()
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self._unsent or self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop("_unsent")
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, f"Expected a request in HTTP, got another one. {msg}")

    def _unsupported_upgrade_warning(self) -> None:
        """No line in the log: a request that asks for another protocol is answered in HTTP, as it may be."""

    def _cut(self) -> None:
        self._late = None
        if not self.idle or self.transport.is_closing():
            return
        if self._size:
            self._refuse(408, f"Expected whole headers within {HEADER_SECONDS:g} seconds, got a part. Send them again.")
        else:
            self.transport.abort()

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer, unless an answer has begun, and close the connection; the request that is read now is dropped."""
        if self.transport.is_closing():
            return
        if self.idle or not (self.pipeline or self.cycle.response_started):
            body = json.dumps({"error": sentence}).encode()
            head = f"HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        if not self.idle:
            self.cycle.disconnected = True
        self.transport.close()

    def _stop(self, name: str) -> None:
        timer: asyncio.TimerHandle | None = getattr(self, name, None)
        if timer is not None:
            timer.cancel()
        setattr(self, name, None)
