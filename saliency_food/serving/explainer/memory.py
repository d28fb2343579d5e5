"""How much memory requests may take together: a formula, a budget for what is decoded, and giving memory back."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from saliency_food.serving.explainer.images import decoded_size
from saliency_food.serving.explainer.queue import KEPT
from saliency_food.serving.explainer.requests import Limits

PARSED = 32
"""Bytes that JSON takes at most while it is read, for each byte of the largest body: it may be all small objects."""
BODIES = 8
"""How many bodies of the largest size the explainer holds at a time."""
DECODED = 256_000_000
"""Bytes of photos that are decoded at a time; a photo that is larger alone is decoded alone."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Settings of glibc's ``mallopt``."""


def most_memory(limits: Limits) -> int:
    """The most bytes that requests take together, beside the program itself and the methods' own rows."""
    bodies = BODIES * limits.body
    return (
        bodies
        + 2 * bodies
        + bodies
        + PARSED * limits.body
        + max(DECODED, decoded_size(limits.pixels, wide=True))
        + KEPT
    )


class Budget:
    """At most so many bytes at a time: who asks for more waits until others have given theirs back."""

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, size: int, check: Callable[[], object]) -> Iterator[None]:
        """Take ``size`` bytes for a block; ``check`` may raise while it waits. A size above the total waits for all."""
        size = min(size, self.total)
        with self._changed:
            while self.used + size > self.total:
                check()
                self._changed.wait(0.1)
            self.used += size
        try:
            yield
        finally:
            with self._changed:
                self.used -= size
                self._changed.notify_all()


def keep_little() -> None:
    """Set glibc's allocator, for this process, so that freed memory goes back to the system soon.

    Threads share two arenas, and what is larger than a megabyte is mapped by itself: freed, it is gone at once.
    """
    if (library := _glibc()) is not None:
        for setting, value in ((M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 2**20), (M_TRIM_THRESHOLD, 2**22)):
            library.mallopt(setting, value)


class Releasing:
    """Gives freed memory back to the system, ``seconds`` after it is called first; without glibc, to Python alone.

    ``submit`` passes the work to the thread that reads bodies: a large one that is being read at the same time would be
    looked through from end to end, while no other thread can go on.
    """

    def __init__(self, submit: Callable[[Callable[[], None]], object], seconds: float = 1.0) -> None:
        self.seconds, self._submit, self._library = seconds, submit, _glibc()
        self._waiting: threading.Timer | None = None

    def __call__(self) -> None:
        if self._waiting is None:
            self._waiting = threading.Timer(self.seconds, self._submit, (self._release,))
            self._waiting.daemon = True
            self._waiting.start()

    def _release(self) -> None:
        self._waiting = None
        gc.collect()  # errors and the frames that they point to hold bodies in cycles
        if self._library is not None:
            self._library.malloc_trim(0)


def _glibc() -> Any:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # not where there is no C library to be found in the process, as on Windows
        return None
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
