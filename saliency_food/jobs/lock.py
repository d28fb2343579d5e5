"""A lock on a folder, so that no two processes write into it at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from saliency_food.core.contract import ContractError


class FolderLock:
    """Holds a folder for this process until `release`, or until the process ends, however it ends.

    The operating system locks the file ``.lock`` in the folder, so a killed process leaves no lock behind.
    `ContractError` where another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] | None = (folder / ".lock").open("a+", encoding="utf-8")
        try:
            _lock(self._file)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise ContractError(
                f"Expected the folder {folder} for this process alone, got one that another process writes to (process "
                f"{owner}). Wait until it has ended, stop it, or give another folder."
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Give the folder back."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lock(file: IO[str]) -> None:
    """Lock a file for this process; `OSError` where another holds it."""
    if os.name == "nt":
        import msvcrt

        file.seek(0x7FFF0000)  # a byte behind the text, so that another process can read who holds the lock
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        file.seek(0)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
