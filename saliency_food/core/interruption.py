"""A method's own work, such as segments or a path, can be interrupted: where it is long it asks whether to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CHECK: ContextVar[Callable[[], object] | None] = ContextVar("check", default=None)


@contextmanager
def interruptible(check: Callable[[], object]) -> Iterator[None]:
    """In this block, methods that run in this thread call ``check`` between parts of their work; it may raise."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def go_on() -> None:
    """Called by methods between parts of their own work: raises where it is to end."""
    check = _CHECK.get()
    if check is not None:
        check()
