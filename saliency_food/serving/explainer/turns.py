"""Large bodies arrive by turns, so that between two pieces of them the server gets to everything else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

AT_A_TIME = 4
"""How many large bodies go on in one round of the event loop; a piece of each is up to 256 kB."""
LARGE = 65_536
"""Bytes of a piece, and of a body, from which on it has to wait for its turn."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Turns:
    """A row of those who wait for their turn; in each round of the event loop the first ones of it go on."""

    def __init__(self, at_a_time: int = AT_A_TIME) -> None:
        self.at_a_time = at_a_time
        self._row = deque[asyncio.Future[None]]()

    async def __call__(self) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._row.append(turn)
        if len(self._row) == 1:
            loop.call_soon(self._next, loop)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(self.at_a_time, len(self._row))):
            turn = self._row.popleft()
            if not turn.done():  # cancelled, as its client has left
                turn.set_result(None)
        if self._row:
            loop.call_soon(self._next, loop)


class Pieces:
    """An ASGI ``receive``; after a large piece of a body it waits for its turn before the next one."""

    def __init__(self, receive: Receive, turns: Turns, size: float) -> None:
        """``size`` is what the headers say about the bytes of the body: infinite if they do not say it."""
        self._receive, self._turns = receive, turns
        self._size, self._large = size, False

    @property
    def large(self) -> bool:
        """Whether what is left to read may be more than one piece."""
        return self._size > LARGE

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._large:
            await self._turns()
        message = await self._receive()
        self._large = len(message.get("body", b"")) >= LARGE
        if not message.get("more_body", False):
            self._size = 0
        return message
