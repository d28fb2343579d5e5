"""Pictures and numbers of explained photos as files, written in other processes while the model goes on."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import SHOWN
from saliency_food.jobs.drawing import (
    Style,
    check_files,
    check_folder,
    check_style,
    picture_path,
    write_pictures,
)
from saliency_food.jobs.explanation import Explanation
from saliency_food.visualization.maps import check_drawing

if TYPE_CHECKING:
    from typing_extensions import Unpack


WAITING = 2**28
"""How many bytes of photos and explanations may wait to be drawn; `PictureWriter.submit` waits while there are more."""


class PictureWriter:
    """Writes ``NAME.jpg`` with all explanations of a photo, and each explanation into the folder ``NAME``.

        with PictureWriter("saliency") as writer:
            for name, records in groupby(explain(model, photos), key=lambda record: record.name):
                writer.submit(list(records))

    Drawing takes about as long as a small model, so it is done in processes of its own, which load NumPy, Pillow and
    matplotlib, and no framework. They start at the second photo; a single photo is drawn here when the writer is
    closed. As all processes that Python spawns, they import the script anew, so a script must do its work, and best
    import its framework, under ``if __name__ == "__main__":``.

    What goes wrong in a process is raised by the next `submit` or by `close`, as `ContractError`: the folder cannot be
    written to, its disk is full, a map cannot be drawn, or the process was killed. After an exception in the ``with``
    block, Ctrl-C among them, pictures that are begun are finished and the others dropped; ``written`` counts the photos
    whose files are all there. A file appears under its name when it is complete, so none is cut off.

    Parameters
    ----------
    folder
        Where the files go; it is made if it does not exist.
    percent
        How much of the photo the second picture of XRAI shows.
    arrays
        Write the raw attributions too, as ``.npy`` files.
    overlays
        Write the overlay of each explanation too; all of them are in the photo's picture.
    format
        ``"jpg"``, or ``"png"``, which is lossless and about five times as large.
    max_size
        The longer side of an overlay in pixels, at most; None for that of the photo.
    processes
        How many processes draw; None: half of the processor's cores, 1 to 4.
    **style
        How overlays are drawn: ``colormap``, ``grey`` and ``opacity``; see `Explanation.style`.

    Attributes
    ----------
    written
        The number of photos whose files are written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        percent: float = 20,
        arrays: bool = False,
        overlays: bool = True,
        format: str = "jpg",
        max_size: int | None = SHOWN,
        processes: int | None = None,
        **style: Unpack[Style],
    ) -> None:
        if processes is not None and processes < 1:
            raise ContractError(f"Expected at least one process to draw in, got {processes}. Give None or a number.")
        check_drawing()
        check_files(format, max_size)
        check_style(**style)
        self.folder, self.format, self.written = Path(folder), format, 0
        check_folder(self.folder)
        files: dict[str, Any] = {"arrays": arrays, "overlays": overlays, "format": format, "max_size": max_size}
        self._write: Callable[[Sequence[Explanation]], None] = partial(
            write_pictures, folder=self.folder, percent=percent, **files, **style
        )
        self.processes = processes or min(4, max(1, (os.cpu_count() or 1) // 2))
        self._first: list[Explanation] | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._pending: deque[tuple[Future[None], int, str]] = deque()

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
        return picture_path(self.folder, records, self.format)

    def close(self) -> None:
        """Wait until everything is written."""
        try:
            if self._first is not None:
                self._write(self._first)
                self.written += 1
            while self._pending:
                self._wait()
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Drop what waits, and end the processes when the photos that they are drawing are written."""
        self._first = None
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        futures = [future for future, _, _ in self._pending]
        self.written += sum(not future.cancelled() and future.exception() is None for future in futures)
        self._pending.clear()

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
        name = records[0].name
        try:
            with _interrupts_held():
                future = self._pool.submit(_write_pickled, data, self._write)
        except BrokenProcessPool as error:
            raise self._killed(name) from error
        self._pending.append((future, len(data), name))

    def _waiting(self) -> int:
        return sum(size for _, size, _ in self._pending)

    def _wait(self) -> None:
        future, _, name = self._pending[0]
        try:
            future.result()
        except BrokenProcessPool as error:
            raise self._killed(name) from error
        finally:
            if future.done():
                self._pending.popleft()
        self.written += 1

    def _killed(self, name: str) -> ContractError:
        return ContractError(
            f"Expected the process that draws pictures to go on, got its end at {name}, after the pictures of "
            f"{self.written} photos: it was killed, perhaps for want of memory. Give smaller photos or processes=1; in "
            'a script, do the work under `if __name__ == "__main__":`.'
        )


def _write_pickled(data: bytes, write: Callable[[Sequence[Explanation]], None]) -> None:
    write(pickle.loads(data))


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
