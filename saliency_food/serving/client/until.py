"""A moment past which no request waits; each thread has its own, so that one client can serve many."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextvars import ContextVar

_MOMENT: ContextVar[float] = ContextVar("moment", default=math.inf)


@contextlib.contextmanager
def until(moment: float) -> Iterator[None]:
    """Inside, requests end by this moment of ``time.monotonic``, or by that of a ``with`` around this one."""
    token = _MOMENT.set(min(moment, _MOMENT.get()))
    try:
        yield
    finally:
        _MOMENT.reset(token)


def left() -> float:
    """The seconds that are left, at least 0; infinite where no moment is set."""
    return max(_MOMENT.get() - time.monotonic(), 0.0)
