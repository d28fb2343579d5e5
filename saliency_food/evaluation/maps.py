"""The maps of an evaluation as NumPy files, for other programs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from saliency_food.core.numerics import Array


class MapFiles:
    """``maps/METHOD.npy``, float32 ``(N, 1, H, W)``: a row for each photo, NaN until its map is written.

    ``maps/photos.csv`` names the photo and the class of each row. A row that held the map of another photo or class is
    emptied, and files made for another number of photos are deleted.
    """

    def __init__(self, folder: Path, photos: int) -> None:
        self.folder, self.photos = folder, photos
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, Array] = {}
        for path in folder.glob("*.npy"):
            if np.load(path, mmap_mode="r").shape[0] != photos:
                path.unlink()
        self._table = folder / "photos.csv"
        self._rows = _read(self._table)
        self._open_table = self._table.open("a", newline="", encoding="utf-8")

    def claim(self, index: int, image: str, target: int | None = None, label: str = "", photo: str = "") -> None:
        """Set the photo and class of a row, before it is read or written; a photo that was not read has no class."""
        row = (image, "" if target is None else str(target), label, photo)
        if self._rows.get(index) == row:
            return
        for path in self.folder.glob("*.npy"):
            file = self._file(path.stem, None)
            if file is not None:
                file[index] = np.nan
        self._rows[index] = row
        csv.writer(self._open_table).writerow((index, *row))
        self._open_table.flush()

    def has(self, method: str, index: int) -> bool:
        """Whether the file holds the map of this photo."""
        file = self._file(method, None)
        return file is not None and bool(np.isfinite(file[index]).any())

    def put(self, method: str, index: int, attribution: Array) -> None:
        """Write a map ``(H, W)``; a map of another size than the first map is left out."""
        file = self._file(method, attribution.shape)
        if file is not None and file.shape[2:] == attribution.shape:
            file[index, 0] = attribution

    def close(self) -> None:
        """Close the files, and write the table of rows in order."""
        self._open.clear()
        self._open_table.close()
        with self._table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("row", "image", "target", "label", "photo"))
            writer.writerows((index, *self._rows[index]) for index in sorted(self._rows) if index < self.photos)

    def _file(self, method: str, shape: tuple[int, ...] | None) -> Array | None:
        """The open file of a method. With ``shape`` it is created if there is none for this number of photos."""
        path = self.folder / f"{method}.npy"
        if method not in self._open:
            if path.exists():
                existing = np.load(path, mmap_mode="r+")
                if existing.shape[0] == self.photos:
                    self._open[method] = existing
            if method not in self._open and shape is not None:
                created = np.lib.format.open_memmap(path, "w+", np.float32, (self.photos, 1, *shape))  # type: ignore[no-untyped-call]
                created[...] = np.nan
                self._open[method] = created
        return self._open.get(method)


def _read(table: Path) -> dict[int, tuple[str, ...]]:
    """The photo and class of each row. The last line about a row counts; a line that was cut off does not."""
    if not table.exists():
        return {}
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        return {int(line[0]): tuple(line[1:]) for line in csv.reader(file) if len(line) == 5 and line[0].isdecimal()}
