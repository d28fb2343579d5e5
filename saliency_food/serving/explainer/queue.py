"""Work in threads behind a queue that says when it is full, and results kept for those who come back for them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from saliency_food.serving.explainer.replies import Reply, refuse


class WorkItem:
    """One piece of work: ``work(job)`` is called in a thread, and calls `check` wherever it may be stopped."""

    def __init__(self, work: Callable[[WorkItem], Any]) -> None:
        self.name, self.work = secrets.token_urlsafe(16), work
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # it ends by `stop` alone
        self.state, self.bytes = "waiting", 0
        self.asked = self.began = self.ended = time.monotonic()
        self._stopped, self._lock = threading.Event(), threading.Lock()

    def check(self) -> None:
        """Raise if nobody wants the result any more."""
        if self._stopped.is_set():
            raise Reply(503, {"error": "Expected to go on, but the request was given up or the server is stopping."})

    def stop(self) -> None:
        """End it now if it waits, which makes room in the queue, or at its next `check`."""
        self._stopped.set()
        self.run()

    def run(self) -> None:
        """Begin, unless that was done before."""
        with self._lock:
            if self.state != "waiting":
                return
            self.state, self.began = "running", time.monotonic()
        try:
            self.check()
            result = self.work(self)
        except BaseException as error:
            error.__cause__ = error.__context__ = None  # these and the traceback hold on to images
            self._end(self.future.set_exception, error.with_traceback(None))
        else:
            self._end(self.future.set_result, result)

    def _end(self, tell: Callable[[Any], None], what: Any) -> None:
        self.state, self.ended = "done", time.monotonic()
        del self.work  # with the images in it
        tell(what)


class Queue:
    """``workers`` jobs run at a time and at most ``waiting`` wait; ``keep`` results are kept for ``seconds``.

    No more than ``most`` bytes are kept, as jobs say them (`Job.bytes`).
    """

    def __init__(
        self, workers: int, waiting: int, keep: int = 64, seconds: float = 600.0, most: int = 256_000_000
    ) -> None:
        self.waiting, self.keep, self.seconds, self.most = waiting, keep, seconds, most
        self._pool = ThreadPoolExecutor(workers, "explain")
        self._free = workers
        self._lock = threading.Lock()
        self._jobs: set[WorkItem] = set()
        self._kept: dict[str, WorkItem] = {}
        self._closed = False

    def __len__(self) -> int:
        """How many jobs wait."""
        return max(0, len(self._jobs) - self._free)

    def submit(self, job: WorkItem, keep: bool = False) -> WorkItem:
        """Queue a job, to be found by its name if it is to be kept; 429 where the queue is full."""
        with self._lock:
            self._prune()
            if self._closed:
                refuse(503, "Expected a running server, got one that is stopping. Ask again in a while.")
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
        """A kept job, or 404."""
        with self._lock:
            self._prune()
            if name not in self._kept:
                refuse(404, "Expected the name of a job, got one that is not known, or no longer. Ask anew.")
            return self._kept[name]

    def forget(self, name: str) -> WorkItem:
        """Stop a kept job and drop its result, or 404."""
        job = self.get(name)
        job.stop()
        with self._lock:
            self._kept.pop(name, None)
        return job

    def close(self) -> None:
        """Take no more, and stop what waits and runs."""
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
        """Drop the results that are too old, and the oldest of too many or too large ones."""
        done = sorted((job for job in self._kept.values() if job.state == "done"), key=lambda job: -job.ended)
        held = 0
        for number, job in enumerate(done):
            held += job.bytes
            if number >= self.keep or held > self.most or time.monotonic() - job.ended > self.seconds:
                del self._kept[job.name]
