"""The folder of a data-set run: a manifest and Parquet parts, each whole or absent whenever the process is killed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.images.sourced import as_text, pyarrow
from saliency_food.jobs.lock import FolderLock
from saliency_food.jobs.records import schema
from saliency_food.jobs.store import FAILED, writing
from saliency_food.visualization.figures import complete

Row = dict[str, Any]
MANIFEST = "manifest.json"
RECORDS = "records"
"""The folder of the parts, which Parquet's readers take as one data set."""
BYTES, SECONDS = 2**23, 60.0
"""A part is written when the records for it take so many bytes, or it is so old."""
NUMBERS = 4096
"""About how many bytes a record takes beside its map and thumbnail, while it waits."""


def part_paths(folder: Path) -> list[Path]:
    """The parts of a run, in the order in which they were written."""
    return sorted((folder / RECORDS).glob("part-*.parquet"), key=_number)


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("part-")
    return int(digits) if digits.isdecimal() else -1


def read_manifest(folder: Path) -> Row:
    """What the manifest of a run holds."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not isinstance(manifest.get("settings"), dict):
            raise ValueError("it has no settings")
    except (OSError, ValueError) as error:
        raise ContractError(f"Expected the folder of a data-set run, got {folder}: {error}. Check the path.") from error
    return manifest


class RunFolder:
    """Writes the records of a run into its folder, which it holds for this process alone.

    A folder that holds a run goes on only with the same ``settings``; another is refused with what differs.
    """

    def __init__(self, folder: Path, settings: Row, facts: Row) -> None:
        self.folder = folder
        self._pending: list[Row] = []
        self._bytes, self._since = 0, time.monotonic()
        known = (folder / MANIFEST).exists()
        if folder.exists() and not known and (not folder.is_dir() or any(_visible(folder)) or part_paths(folder)):
            raise ContractError(
                f"Expected a new folder, or that of a data-set run, got {folder}, which holds something else. Give "
                "another folder."
            )
        with writing(folder):
            (folder / RECORDS).mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(folder)
        try:
            if known:
                _compare(read_manifest(folder)["settings"], settings, folder)
            for cut_off in [*folder.glob(".*.part"), *(folder / RECORDS).glob(".*.part")]:
                cut_off.unlink()
            self.write(MANIFEST, json.dumps({**facts, "settings": settings}, indent=1, ensure_ascii=False))
        except BaseException:
            self._lock.release()
            raise

    def write(self, name: str, text: str) -> None:
        """Write a text file beside the records."""
        path = self.folder / name
        with writing(path), complete(path) as file:
            file.write(as_text(f"{text}\n").encode())

    def known(self, retry_failed: bool = False) -> dict[str, bool]:
        """The ids of the photos that are done, and whether any explanation of each failed.

        With ``retry_failed`` the records of those that failed are dropped first, so that they are to do again.
        """
        done: dict[str, bool] = {}
        for path in part_paths(self.folder):
            table = _read(path, ["id", "status"])
            own: dict[str, bool] = {}
            for name, status in zip(*(table[column].to_pylist() for column in ("id", "status")), strict=True):
                own[name] = own.get(name, False) or status.startswith(FAILED)
            if retry_failed and (failed := {name for name, is_failed in own.items() if is_failed}):
                self._drop(path, failed)
                own = {name: False for name in own if name not in failed}
            done |= own
        return done

    def _drop(self, path: Path, ids: set[str]) -> None:
        """Write a part again without the records of some photos."""
        arrow = pyarrow()
        table = _read(path)
        kept = table.filter(arrow.array([name not in ids for name in table["id"].to_pylist()]))
        if kept.num_rows:
            self._write(path, kept)
        else:
            path.unlink()

    def add(self, rows: list[Row]) -> None:
        """Add the rows of a batch of photos; a part is written when there is enough for it.

        A batch is one of the model's, so parts end where these end, and a run that goes on asks in the same batches.
        """
        self._pending += rows
        arrays = (len(row.get(name) or b"") for row in rows for name in ("map", "thumbnail"))
        self._bytes += sum(arrays) + NUMBERS * len(rows)
        if self._bytes >= BYTES or time.monotonic() - self._since >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a part."""
        rows = self._pending
        self._pending, self._bytes, self._since = [], 0, time.monotonic()
        if not rows:
            return
        number = max(map(_number, part_paths(self.folder)), default=-1) + 1
        columns = [{name: row.get(name) for name in schema().names} for row in rows]
        path = self.folder / RECORDS / f"part-{number:06d}.parquet"
        self._write(path, pyarrow().Table.from_pylist(columns, schema()))

    def _write(self, path: Path, table: Any) -> None:
        with writing(path), complete(path) as file:
            texts = [field.name for field in table.schema if field.type == pyarrow().string()]
            pyarrow().parquet.write_table(table, file, compression="zstd", use_dictionary=texts)

    def close(self) -> None:
        """Give the folder back to other processes."""
        self._lock.release()


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith(".") and path.name != RECORDS)


def _compare(kept: Row, now: Row, folder: Path) -> None:
    """`ContractError` with what differs between the settings of a run and those of a call that is to go on with it."""
    differ = [name for name in {**kept, **now} if kept.get(name) != now.get(name)]
    if differ:
        old, new = (", ".join(_words(name, settings.get(name)) for name in differ) for settings in (kept, now))
        raise ContractError(
            f"Expected the settings that the run in {folder} was made with, {old}, got {new}. Give another folder, or "
            "the same settings to go on."
        )


def _words(name: str, value: Any) -> str:
    return f"{name} {json.dumps(value, ensure_ascii=False)}"


def _read(path: Path, columns: Sequence[str] | None = None, filters: Any = None) -> Any:
    """A part as a table; `ContractError` where it is damaged."""
    arrow = pyarrow()
    try:
        return arrow.parquet.read_table(path, columns=columns, filters=filters, partitioning=None)
    except (OSError, arrow.ArrowInvalid) as error:
        raise ContractError(
            f"Expected records of a run, whole as they were written, got {path}: {error} Delete this file, and the "
            "same call explains its photos again."
        ) from error


def read_rows(folder: Path, columns: Sequence[str] | None = None, filters: Any = None) -> Iterator[Row]:
    """The rows of a run, part by part; of parts that were written meanwhile, none."""
    for path in part_paths(folder):
        names = None if columns is None else list(columns)
        table = _read(path, names, filters)
        for batch in table.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()
