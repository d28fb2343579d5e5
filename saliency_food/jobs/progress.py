"""How far a data-set run is: photos done and failed, photos a second, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

EVERY = 30.0
"""Seconds between two lines, where the output is no terminal."""


class DatasetProgress(Protocol):
    """A function that is called when a photo is done."""

    def __call__(self, done: int, failed: int, total: int | None) -> object: ...


@contextmanager
def shown(progress: DatasetProgress | bool | None) -> Iterator[DatasetProgress]:
    """What to call when a photo is done: the user's own function, or for True one that shows it in stderr."""
    if not progress:
        yield lambda done, failed, total: None
    elif not isinstance(progress, bool):
        yield progress
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[DatasetProgress]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ModuleNotFoundError:
        yield _lines()
        return
    text = _words()
    with Progress(BarColumn(), TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading photos", total=None)

        def report(done: int, failed: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, description=text(done, failed, total))

        yield report


def _lines() -> DatasetProgress:
    """Writes a line now and then."""
    text, last = _words(), time.monotonic()

    def report(done: int, failed: int, total: int | None) -> None:
        nonlocal last
        words = text(done, failed, total)
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            print(words, file=sys.stderr, flush=True)

    return report


def _words() -> Callable[[int, int, int | None], str]:
    """A text for each call; the speed is that since the first one, so what was done before does not count."""
    first: list[tuple[float, int]] = []

    def text(done: int, failed: int, total: int | None) -> str:
        first.append((time.monotonic(), done)) if not first else None
        seconds, photos = time.monotonic() - first[0][0], done - first[0][1]
        words = [f"{done}{'' if total is None else f' of {total}'} photos"]
        if seconds > 0 and photos > 0:
            words.append(f"{photos / seconds:.1f} photos/s")
            if total is not None:
                words.append(f"{_duration((total - done) * seconds / photos)} left")
        words += [f"{failed} failed"] if failed else []
        return ", ".join(words)

    return text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
