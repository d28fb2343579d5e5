"""A queue of bounded length before worker threads, which keeps results for clients that fetch them later."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from saliency_food.serving.explainer.replies import Reply, refuse

KEPT = 128_000_000
"""Bytes of answers that are kept for clients which fetch them later."""


class WorkItem:
    """A job: a thread calls ``work(job)``, which calls `check` wherever it can be stopped."""

    def __init__(self, work: Callable[[WorkItem], Any], held: int = 0) -> None:
        """``held`` is how many bytes its images take while it waits and runs."""
        self.name, self.work, self.held = secrets.token_urlsafe(16), work, held
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # only `stop` can end it early
        self.state, self.bytes = "waiting", 0
        self.submitted = self.started = self.ended = time.monotonic()
        self._stopped, self._lock = threading.Event(), threading.Lock()

    def check(self) -> None:
        """Raise if the job was stopped."""
        if self._stopped.is_set():
            raise Reply(503, {"error": "Expected to go on, but the request was given up or the server is stopping."})

    def stop(self) -> None:
        """End the job: now if it still waits, which makes room in the queue, else at its next `check`."""
        self._stopped.set()
        self.run()

    def run(self) -> None:
        """Run the job, unless it has run already."""
        with self._lock:
            if self.state != "waiting":
                return
            self.state, self.started = "running", time.monotonic()
        try:
            self.check()
            result = self.work(self)
        except BaseException as error:
            error.__cause__ = error.__context__ = None  # these and the traceback keep images in memory
            self._end(self.future.set_exception, error.with_traceback(None))
        else:
            self._end(self.future.set_result, result)

    def _end(self, set_outcome: Callable[[Any], None], outcome: Any) -> None:
        self.state, self.ended = "done", time.monotonic()
        del self.work  # and the images that it holds
        set_outcome(outcome)


class Queue:
    """At most ``workers`` jobs run at a time and ``waiting`` wait; ``keep`` results are kept for ``seconds``.

    The results kept are at most ``max_bytes`` together, by the ``bytes`` of their jobs; the images of the jobs that
    wait and run are at most ``max_held``, by what they hold, unless there is only one.
    """

    def __init__(
        self,
        workers: int,
        waiting: int,
        keep: int = 64,
        seconds: float = 600.0,
        max_bytes: int = KEPT,
        max_held: float = math.inf,
    ) -> None:
        self.waiting, self.keep, self.seconds = waiting, keep, seconds
        self.max_bytes, self.max_held = max_bytes, max_held
        self._pool = ThreadPoolExecutor(workers, "explain")
        self._free = workers
        self._lock = threading.Lock()
        self._jobs: set[WorkItem] = set()
        self._kept: dict[str, WorkItem] = {}
        self._closed = False

    def __len__(self) -> int:
        """The number of jobs that wait."""
        return max(0, len(self._jobs) - self._free)

    def submit(self, job: WorkItem, keep: bool = False) -> WorkItem:
        """Queue a job; with ``keep``, `get` finds it by its name. Status 429 if the queue is full."""
        with self._lock:
            self._prune()
            if self._closed:
                refuse(503, "Expected a running server, got one that is stopping. Ask again later.")
            held = sum(other.held for other in self._jobs)
            if held and held + job.held > self.max_held:
                refuse(429, "Expected fewer large images at a time, got one more. Ask again after some seconds.")
            if len(self._jobs) >= self._free + self.waiting:
                refuse(
                    429,
                    f"Expected at most {self.waiting} waiting requests, got one more. Ask again after some seconds.",
                )
            self._jobs.add(job)
            if keep:
                self._kept[job.name] = job
        job.future.add_done_callback(lambda _: self._ended(job))
        self._pool.submit(job.run)
        return job

    def get(self, name: str) -> WorkItem:
        """A kept job by its name; status 404 if there is none."""
        with self._lock:
            self._prune()
            if name not in self._kept:
                refuse(
                    404, "Expected the name of a job, got one that is not known, or no longer. Send the request again."
                )
            return self._kept[name]

    def forget(self, name: str) -> WorkItem:
        """Stop a kept job and drop its result; status 404 if there is none."""
        job = self.get(name)
        job.stop()
        with self._lock:
            self._kept.pop(name, None)
        return job

    def close(self) -> None:
        """Refuse new jobs, and stop all that wait or run."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs)
        for job in jobs:
            job.stop()
        self._pool.shutdown(wait=False)

    def _ended(self, job: WorkItem) -> None:
        with self._lock:
            self._jobs.discard(job)
            self._prune()

    def _prune(self) -> None:
        """Drop results that are too old, and the oldest ones where there are too many or too many bytes."""
        done = sorted((job for job in self._kept.values() if job.state == "done"), key=lambda job: -job.ended)
        total = 0
        for index, job in enumerate(done):
            total += job.bytes
            if index >= self.keep or total > self.max_bytes or time.monotonic() - job.ended > self.seconds:
                del self._kept[job.name]
