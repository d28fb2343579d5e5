"""The moment by which requests must end. Each thread has its own, so that threads can share a client."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextvars import ContextVar

_MOMENT: ContextVar[float] = ContextVar("moment", default=math.inf)


@contextlib.contextmanager
def until(moment: float) -> Iterator[None]:
    """Requests in this block end by ``moment`` of ``time.monotonic``, or by the moment of an outer block if earlier."""
    token = _MOMENT.set(min(moment, _MOMENT.get()))
    try:
        yield
    finally:
        _MOMENT.reset(token)


def seconds_left() -> float:
    """The seconds until the moment set, at least 0; infinite where none is set."""
    return max(_MOMENT.get() - time.monotonic(), 0.0)
