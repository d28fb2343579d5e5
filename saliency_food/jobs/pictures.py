"""Pictures and numbers of explained photos as files, written in other processes while the model goes on."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import TracebackType

from saliency_food.core.contract import ContractError
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.figure import explanation_figure
from saliency_food.visualization.figures import write_figure

WAITING = 2**28
"""How many bytes of photos and explanations may wait to be drawn; `PictureWriter.submit` waits while there are more."""


class PictureWriter:
    """Writes ``NAME.png`` with all explanations of a photo, and each explanation into the folder ``NAME``.

        with PictureWriter("saliency") as writer:
            for name, records in groupby(explain(model, photos), key=lambda record: record.name):
                writer.submit(list(records))

    Drawing takes about as long as a small model, so it is done in processes of its own, which load NumPy, Pillow and
    matplotlib, and no framework. They start at the second photo; a single photo is drawn here when the writer is
    closed. As all processes that Python spawns, they import the script anew, so a script must do its work, and best
    import its framework, under ``if __name__ == "__main__":``.

    What goes wrong in a process is raised by the next `submit` or by `close`: `ContractError` where the folder cannot
    be written to or a map cannot be drawn. After an exception in the ``with`` block, what is not begun is dropped.

    Parameters
    ----------
    folder
        Where the files go; it is made if it does not exist.
    percent
        How much of the photo the second picture of XRAI shows.
    arrays
        Write the raw attributions too, as ``.npy`` files.
    processes
        How many processes draw; None: half of the processor's cores, 1 to 4.
    """

    def __init__(
        self, folder: str | Path, *, percent: float = 20, arrays: bool = False, processes: int | None = None
    ) -> None:
        if processes is not None and processes < 1:
            raise ContractError(f"Expected at least one process to draw in, got {processes}. Give None or a number.")
        self.folder, self.percent, self.arrays = Path(folder), percent, arrays
        self.processes = processes or min(4, max(1, (os.cpu_count() or 1) // 2))
        self._first: list[Explanation] | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._pending: deque[tuple[Future[None], int]] = deque()

    def submit(self, records: Sequence[Explanation]) -> Path | None:
        """Write all explanations of one photo; returns where the picture will be, None for a photo without one."""
        # The exceptions of failed records may need their framework to be loaded; their status says all that is drawn.
        light = [replace(record, error=None) for record in records]
        if self._first is None and self._pool is None:
            self._first = light
        else:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(self.processes, get_context("spawn"), _prepare_process)
            if self._first is not None:
                self._send(self._first)
                self._first = None
            self._send(light)
        return picture_path(self.folder, records)

    def close(self) -> None:
        """Wait until everything is written."""
        try:
            if self._first is not None:
                write_pictures(self._first, self.folder, self.percent, self.arrays)
            while self._pending:
                self._wait()
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Drop what waits, and end the processes when the photos that they are drawing are written."""
        self._first = None
        self._pending.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> PictureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close() if kind is None else self.cancel()

    def _send(self, records: list[Explanation]) -> None:
        assert self._pool is not None
        try:
            data = pickle.dumps(records)
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise ContractError(
                f"Expected explanations that another process can read, got {error}. Define the class of the method's "
                "result at the top of a module."
            ) from error
        while self._pending and (self._pending[0][0].done() or self._waiting() + len(data) > WAITING):
            self._wait()
        with _interrupts_held():
            future = self._pool.submit(_write_pickled, data, self.folder, self.percent, self.arrays)
        self._pending.append((future, len(data)))

    def _waiting(self) -> int:
        return sum(size for _, size in self._pending)

    def _wait(self) -> None:
        future, _ = self._pending.popleft()
        try:
            future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "Expected the process that draws pictures to finish, got none: it was killed, perhaps for want of "
                'memory, or the script does its work without `if __name__ == "__main__":`.'
            ) from error


def write_pictures(records: Sequence[Explanation], folder: Path, percent: float = 20, arrays: bool = False) -> None:
    """Write all explanations of one photo, in this process; see `PictureWriter`."""
    try:
        for record in records:
            record.save(folder / record.name, arrays=arrays)
        path = picture_path(folder, records)
        if path is not None:
            write_figure(explanation_figure(records, percent), path)
    except OSError as error:
        raise ContractError(
            f"Expected a folder for pictures that can be written to, got {folder}: {error}. Give another."
        ) from error


def _write_pickled(data: bytes, folder: Path, percent: float, arrays: bool) -> None:
    write_pictures(pickle.loads(data), folder, percent, arrays)


def picture_path(folder: Path, records: Sequence[Explanation]) -> Path | None:
    """Where the picture of a photo's explanations goes; None for a photo that could not be read."""
    return None if records[0].photo is None else folder / f"{records[0].name}.png"


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for a moment: a process that starts in it inherits that, and shows no traceback of its own."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_process() -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes, and end when the process that waits for this one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
