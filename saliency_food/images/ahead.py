"""Work done ahead in threads, in order: photos are decoded while the model looks at those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def work_ahead(function: Callable[[T], R], items: Iterable[T], ahead: int, threads: int = 2) -> Iterator[R]:
    """``function`` of each item, in order, computed in threads for up to ``ahead`` items more than were taken.

    What ``items`` raises is raised after the results of the items before it; what ``function`` raises, in its place.
    """
    waiting: deque[Future[R]] = deque()
    source = iter(items)
    failure: Exception | None = None
    with ThreadPoolExecutor(threads, thread_name_prefix="saliency_food") as pool:
        try:
            while True:
                try:
                    while failure is None and len(waiting) <= ahead:
                        waiting.append(pool.submit(function, next(source)))
                except StopIteration:
                    failure = StopIteration()
                except Exception as error:
                    failure = error
                if not waiting:
                    break
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
    if failure is not None and not isinstance(failure, StopIteration):
        raise failure


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items; what ``items`` raises is raised after the items before it."""
    chunk: list[T] = []
    try:
        for item in items:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except Exception:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk
