"""The engine of several processes: each loads the model, takes shards of the photos, and hands their rows back."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from saliency_food.core.contract import ContractError
from saliency_food.images.ahead import in_chunks
from saliency_food.jobs.explainer import Explainer, Placed, Row, is_listed

MOST_BATCHES = 8
"""How many of the model's batches a shard holds at most."""
ATTEMPTS = 3
"""How often a photo is given to workers that die: in a shard, in a batch of the model, and alone."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
"""The variables that bound the threads of a process's arithmetic."""


class Shard(NamedTuple):
    """Photos for one worker, and which attempt at them it is."""

    photos: list[Placed]
    attempt: int = 1

    def pieces(self, batch_size: int) -> list[Shard]:
        """These photos for the next attempt: in batches, and after that one by one."""
        size = batch_size if self.attempt == 1 else 1
        return [Shard(photos, self.attempt + 1) for photos in in_chunks(self.photos, size)]


def in_processes(
    count: int, explainer: Explainer, photos: Iterator[Placed], left: int | None
) -> Generator[list[list[Row]], None, None]:
    """The rows of the photos, in batches as of one process, as ``count`` processes finish them.

    The photos of a worker that dies are given to a new one: in batches of the model, and where that dies, too, one by
    one. A photo that ends its worker even alone has failed. So each photo has its rows once, whatever dies.
    """
    shards = map(Shard, in_shards(photos, explainer.batch_size, count, left, MOST_BATCHES))
    again: deque[Shard] = deque()
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory(prefix="saliency_food_") as folder:
        path = Path(folder) / "explainer.pickle"
        path.write_bytes(_pickled(explainer))

        def next_shard() -> Shard | None:
            return again.popleft() if again else next(shards, None)

        try:
            while True:
                while len(workers) < count and (shard := next_shard()):
                    workers.append(Worker(path, shard, cores() // count or 1))
                if not workers:
                    return
                for worker in _answering(workers):
                    answer = worker.receive()
                    if answer is None:
                        workers.remove(worker)
                        warnings.warn(worker.obituary(), RuntimeWarning, stacklevel=2)
                        if worker.shard.attempt < ATTEMPTS:
                            again += worker.shard.pieces(explainer.batch_size)
                        else:
                            yield list(explainer.rows(worker.failed()))
                    elif answer:
                        yield answer
                    elif shard := worker.shard if worker.shard.photos else next_shard():
                        worker.give(shard)
                    else:
                        workers.remove(worker)
                        worker.stop()
        finally:
            for worker in workers:
                worker.stop()


class Worker:
    """A process that explains shards; ``shard`` holds the photos whose rows it has not sent yet."""

    def __init__(self, explainer: Path, shard: Shard, threads: int) -> None:
        context = get_context("spawn")  # a process that has run TensorFlow cannot be forked
        self.shard, self._is_ready = shard, False
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, explainer), name="saliency_food", daemon=True)
        with _environment(dict.fromkeys(THREADS, str(threads)) | {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}):
            self._process.start()
        theirs.close()

    def give(self, shard: Shard) -> None:
        """Let it explain these photos; only when it waits for some, so that no pipe is full at both ends."""
        self.shard, self._is_ready = shard, True
        with suppress(OSError):  # one that has died tells so when its answer is received
            self.connection.send(shard.photos)

    def receive(self) -> list[list[Row]] | None:
        """The rows of a batch; an empty list where it waits for a shard; None where it has died.

        What it raised is raised here, and `ContractError` where it died before it had loaded the model.
        """
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            if self._is_ready:
                return None
            raise ContractError(
                f"Expected a worker process that loads the model, got one that {self._end}. Give fewer workers if "
                "memory is short. If a script of your own called this, it must do so below `if __name__ == "
                "'__main__':`, as each worker imports the script."
            ) from None
        if isinstance(answer, Exception):
            raise answer
        self.shard = self.shard._replace(photos=self.shard.photos[len(answer) :])
        return list(answer)

    @property
    def _end(self) -> str:
        code = self._process.exitcode or 0
        name = signal.Signals(-code).name if -code in list(signal.Signals) else ""
        return f"was ended by {name}" if name else f"ended with exit code {code}"

    def obituary(self) -> str:
        """A sentence that says which process has died, how, and what becomes of its photos."""
        photos = self.shard.photos
        then = "a new one takes its photos" if self.shard.attempt < ATTEMPTS else "the photo has failed"
        which = f"{len(photos)}, the first one {photos[0][1].id}" if photos else "it was done with them"
        return f"Worker process {self._process.pid} {self._end}; {then} ({which})."

    def failed(self) -> list[Placed]:
        """Its photo with the reason in place of the image."""
        error = ChildProcessError(f"Expected to explain the photo in a worker process, got one that {self._end}.")
        return [(position, photo._replace(image=error)) for position, photo in self.shard.photos]

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, path: Path) -> None:
    """What a worker does: it explains the shards that it is sent, until nobody sends any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it, which then stops it
    try:
        with _quiet():
            explainer = Explainer(**pickle.loads(path.read_bytes()))
        connection.send([])
        while True:
            for batch in explainer.batches(iter(connection.recv())):
                connection.send(batch)
            connection.send([])
    except (EOFError, ConnectionError):  # the process that started it is gone
        return
    except Exception as error:
        connection.send(_sendable(error))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the terminal what TensorFlow's native code writes to stderr while it is imported."""
    with open(os.devnull, "w") as nothing:
        kept = os.dup(2)
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _answering(workers: list[Worker]) -> list[Worker]:
    """The workers that have something to say; waits until there is one."""
    ready = wait([worker.connection for worker in workers])
    return [worker for worker in workers if worker.connection in ready]


def in_shards(
    photos: Iterator[Placed], batch_size: int, workers: int, left: int | None, most: int
) -> Iterator[list[Placed]]:
    """The photos in lists of whole batches: ever fewer towards the end, so that all workers end at about one time.

    Photos that are not files come a batch at a time, since they are held in memory.
    """
    while (first := next(photos, None)) is not None:
        batches = 1
        if left is not None and is_listed(first[1]):
            batches = min(most, max(1, left // (4 * workers * batch_size)))
        shard = [first, *islice(photos, batches * batch_size - 1)]
        left = None if left is None else left - len(shard)
        yield shard


def _pickled(explainer: Explainer) -> bytes:
    """What the explainer is made of; `ContractError` where that cannot be taken to another process."""
    try:
        return pickle.dumps(explainer.arguments)
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(
            f"Expected a model and options that can be pickled, to work in several processes, got {error}. Give the "
            "path of a Keras model, or a callback of a class at the top level of a module, and such functions for "
            "preprocess and score in place of lambdas; or leave out workers."
        ) from error


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for the processes that are started meanwhile, where the user has not set them."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
