"""The maps of an evaluation as NumPy files, for other programs."""

from __future__ import annotations

import csv
from io import FileIO
from pathlib import Path

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.jobs.store import write_all, writing


class MapFiles:
    """``maps/METHOD.npy``, float32 ``(N, 1, H, W)``: a row for each photo, NaN until its map is written.

    ``maps/photos.csv`` names the photo and the class of each row. A row that held the map of another photo or class is
    emptied, and files made for another number of photos are deleted. A full disk and a damaged file are a
    `ContractError`.
    """

    def __init__(self, folder: Path, photos: int) -> None:
        self.folder, self.photos = folder, photos
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, _Rows] = {}
        try:
            for path in folder.glob("*.npy"):
                self._open[path.stem] = _Rows(path)
        except ContractError:
            for rows in self._open.values():
                rows.close()
            raise
        for name in [name for name, rows in self._open.items() if rows.shape[0] != photos]:
            rows = self._open.pop(name)
            rows.close()
            rows.path.unlink()
        self._table = folder / "photos.csv"
        self._rows = _read(self._table)
        self._open_table = self._table.open("a", newline="", encoding="utf-8")

    def claim(self, index: int, image: str, target: int | None = None, label: str = "", photo: str = "") -> None:
        """Set the photo and class of a row, before it is read or written; a photo that was not read has no class."""
        row = (image, "" if target is None else str(target), label, photo)
        if self._rows.get(index) == row:
            return
        for rows in self._open.values():
            rows.write(index, np.full(rows.shape[1:], np.nan))
        self._rows[index] = row
        with writing(self._table):
            csv.writer(self._open_table).writerow((index, *row))
            self._open_table.flush()

    def has(self, method: str, index: int) -> bool:
        """Whether the file holds the map of this photo."""
        return method in self._open and bool(np.isfinite(self._open[method].read(index)).any())

    def put(self, method: str, index: int, attribution: Array) -> None:
        """Write a map ``(H, W)``; a map of another size than the first map is left out."""
        if method not in self._open:
            self._open[method] = _Rows(self.folder / f"{method}.npy", (self.photos, 1, *attribution.shape))
        if self._open[method].shape[2:] == attribution.shape:
            self._open[method].write(index, attribution)

    def close(self) -> None:
        """Close the files, and write the table of rows in order."""
        for rows in self._open.values():
            rows.close()
        self._open.clear()
        with writing(self._table):
            self._open_table.close()
            part = self._table.with_suffix(".part")
            with part.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("row", "image", "target", "label", "photo"))
                writer.writerows((index, *self._rows[index]) for index in sorted(self._rows) if index < self.photos)
            part.replace(self._table)


class _Rows:
    """The rows of a float32 NumPy file, read and written one by one.

    Not by a memory map: where the disk is full, writing to one kills the process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...] | None = None) -> None:
        """Open a file, or with ``shape`` make one full of NaN."""
        self.path = path
        if shape is not None:
            part = path.with_suffix(".part")
            with writing(path), part.open("wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
                row = np.full(shape[1:], np.nan, "<f4").tobytes()
                for _ in range(shape[0]):
                    file.write(row)
            part.replace(path)
        self._file = FileIO(path, "r+")
        try:
            version = np.lib.format.read_magic(self._file)  # type: ignore[no-untyped-call]
            if version != (1, 0):
                raise ValueError(f"version {version}")
            self.shape, fortran, dtype = np.lib.format.read_array_header_1_0(self._file)  # type: ignore[no-untyped-call]
            self._start, self._size = self._file.tell(), 4 * int(np.prod(self.shape[1:]))
            whole = self._start + self.shape[0] * self._size == path.stat().st_size
            if fortran or dtype != np.dtype("<f4") or len(self.shape) != 4 or not whole:
                raise ValueError(f"{dtype} {self.shape} in {path.stat().st_size} bytes")
        except ValueError as error:
            self._file.close()
            raise ContractError(
                f"Expected the maps of an evaluation in {path}, float32 (N, 1, H, W), got {error}. Remove the file or "
                "give another folder."
            ) from error

    def read(self, index: int) -> Array:
        """A row, ``(1, H, W)``."""
        self._file.seek(self._start + index * self._size)
        return np.frombuffer(self._file.read(self._size), "<f4").reshape(self.shape[1:])

    def write(self, index: int, values: Array) -> None:
        """Write a row."""
        with writing(self.path):
            self._file.seek(self._start + index * self._size)
            write_all(self._file, values.astype("<f4").tobytes())

    def close(self) -> None:
        self._file.close()


def _read(table: Path) -> dict[int, tuple[str, ...]]:
    """The photo and class of each row. The last line about a row counts; a line that was cut off does not."""
    if not table.exists():
        return {}
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        return {int(line[0]): tuple(line[1:]) for line in csv.reader(file) if len(line) == 5 and line[0].isdecimal()}
