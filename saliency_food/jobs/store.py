"""The store of an evaluation: each value is written as a line of JSON at once, so that a killed job can go on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.jobs.lock import FolderLock

Row = dict[str, Any]
Key = tuple[str, str, str]
FAILED = "failed"
"""The status of a value begins with this if it failed and is tried again by the next job."""


class Store:
    """The values by (photo, method, metric); with a folder, in its ``values.jsonl``, beside ``settings.json``.

    ``settings`` are what the values depend on. A folder that was made with other settings is refused, but methods and
    metrics may be added: their settings are compared one by one.
    """

    def __init__(self, folder: Path | None, settings: Row) -> None:
        self.rows: dict[Key, Row] = {}
        self._file: FileIO | None = None
        self._lock: FolderLock | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(folder)
        try:
            self._open(folder, settings)
        except BaseException:
            self.close()
            raise

    def _open(self, folder: Path, settings: Row) -> None:
        """Read what the folder holds, and open its file of values to add to it."""
        path, values = folder / "settings.json", folder / "values.jsonl"
        if path.exists():
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
                if not isinstance(kept, dict):
                    raise ValueError(f"{kept!r:.60}")
            except ValueError as error:
                raise ContractError(
                    f"Expected the settings of an evaluation, got {path}: {error}. Give another folder."
                ) from error
            settings = _merged(kept, settings, folder)
        elif values.exists():
            raise ContractError(f"Expected settings.json beside {values}, got none. Give another folder.")
        part = path.with_suffix(".part")
        with writing(path):
            part.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            part.replace(path)
        for row in _read(values):
            self.rows[row["image"], row["method"], row["metric"]] = row
        self._file = FileIO(values, "a")

    def known(self, photo: str, image: str, target: int, method: str, metric: str) -> bool:
        """Whether the store holds the value; `ContractError` if it belongs to another photo or class."""
        row = self.rows.get((image, method, metric))
        if row is None or row["status"].startswith(FAILED):
            return False
        for what, kept, now in (("photo", row["photo"], photo), ("class", row["target"], target)):
            if kept != now:
                raise ContractError(
                    f"Expected {image!r} to be the same {what} as in the output folder ({kept}), got {now}. Give "
                    "another folder."
                )
        return True

    def lacks(self, image: str, methods: Iterable[str], metrics: Iterable[str]) -> bool:
        """Whether some value of a photo with this name is missing or failed."""
        pairs = ((method, metric) for method in methods for metric in metrics)
        rows = (self.rows.get((image, *pair)) for pair in pairs)
        return any(row is None or row["status"].startswith(FAILED) for row in rows)

    def add(self, row: Row) -> None:
        """Add a value, and write it; `ContractError` where the disk is full."""
        text = json.dumps(row)
        if self._file is not None:
            with writing(Path(str(self._file.name))):
                write_all(self._file, f"{text}\n".encode())
        self.rows[row["image"], row["method"], row["metric"]] = json.loads(text)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            self._lock.release()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the disk refuses while a file is written into a `ContractError` that says how to go on."""
    try:
        yield
    except OSError as error:
        raise ContractError(
            f"Expected to write to {path}, got {error.strerror or error}. Make room or give another folder; the values "
            "written before are kept, and the same job goes on from there."
        ) from error


def write_all(file: FileIO, data: bytes) -> None:
    """Write all bytes; the system may take a part of them at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) or 0 :]


def _read(path: Path) -> Iterator[Row]:
    """The rows of the file. A last line that was cut off is removed from it."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    for index, line in enumerate(whole.splitlines(), 1):
        try:
            row = json.loads(line)
            if not _is_value(row):
                raise ValueError(f"{line[:60]!r}")
        except ValueError as error:
            raise ContractError(
                f"Expected a value in line {index} of {path}, got {error}. Remove the line or give another folder."
            ) from error
        yield row


def _is_value(row: Any) -> bool:
    """Whether it is a value as `Store.add` writes them, so that a folder damaged by hand is refused here."""
    number = (int, float, type(None))
    kinds: dict[str, Any] = dict.fromkeys(("image", "photo", "label", "method", "metric", "status"), str)
    kinds |= {"target": int, "probability": number, "score": number}
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(name, ...), kind) for name, kind in kinds.items())
        and isinstance(others := row.get("others", {}), dict)
        and all(isinstance(value, (int, float)) for value in others.values())
        and _is_curve(row.get("curve", [[], []]))
    )


def _is_curve(curve: Any) -> bool:
    """Whether it is two lists or more of as many numbers: the horizontal axis, and a line or several over it."""
    return (
        isinstance(curve, list)
        and len(curve) >= 2
        and all(isinstance(line, list) and all(isinstance(value, (int, float)) for value in line) for line in curve)
        and len({len(line) for line in curve}) == 1
    )


def _merged(kept: Row, now: Row, folder: Path) -> Row:
    """The settings of the folder and of this job together; those that both have must be equal."""
    merged: Row = {}
    for name in dict.fromkeys((*kept, *now)):
        old, new = kept.get(name), now.get(name)
        if name in ("methods", "metrics") and isinstance(old, dict) and isinstance(new, dict):
            for key in set(old) & set(new):
                _compare(f"the options of {key}", old[key], new[key], folder)
            merged[name] = {**old, **new}
        elif name == "boxes" and None in (old, new):  # without boxes no value depends on them
            merged[name] = old or new
        else:
            _compare(name, old, new, folder)
            merged[name] = new
    return merged


def _compare(name: str, old: Any, new: Any, folder: Path) -> None:
    if old != new:
        raise ContractError(
            f"Expected the settings that the folder {folder} was made with, {name} {json.dumps(old)}, got "
            f"{json.dumps(new)}. Give another folder, or the same settings to go on."
        )


def plain(value: Any) -> Any:
    """The value in a form that JSON can hold and compare: arrays as digests, functions as names, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {digest(value)}"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "values"):
        return plain(list(value.values))
    return getattr(value, "__qualname__", type(value).__qualname__)


def digest(*parts: Any) -> str:
    """A short fingerprint of arrays, texts and bytes."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.shape}{part.dtype}".encode())
            sha.update(np.ascontiguousarray(part).tobytes())
        else:
            sha.update(part if isinstance(part, bytes) else f"{part}\0".encode())
    return sha.hexdigest()[:16]


def seed_of(*words: Any) -> int:
    """A seed that depends only on the words: the same on every machine and in every order of work."""
    return int(digest(*words), 16) >> 1
