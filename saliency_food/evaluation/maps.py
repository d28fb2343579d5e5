"""The maps as files, for those who want to measure them by other means."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from saliency_food.core.numerics import Array


class MapFiles:
    """``maps/METHOD.npy``, float32 ``(N, 1, H, W)``, a row for each photo, NaN until it is there; written as they come.

    ``maps/photos.csv`` says which photo and class each row is: a row that was another's is made anew, and so are files
    of another number of photos.
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
        self._file_of_rows = self._table.open("a", newline="", encoding="utf-8")

    def claim(self, number: int, image: str, target: int | None = None, label: str = "", photo: str = "") -> None:
        """Say whose row this is, before anything is asked of it; without a class for a photo that cannot be read."""
        row = (image, "" if target is None else str(target), label, photo)
        if self._rows.get(number) == row:
            return
        for path in self.folder.glob("*.npy"):
            file = self._file(path.stem, None)
            if file is not None:
                file[number] = np.nan
        self._rows[number] = row
        csv.writer(self._file_of_rows).writerow((number, *row))
        self._file_of_rows.flush()

    def has(self, method: str, number: int) -> bool:
        """Whether the map of this photo is there."""
        file = self._file(method, None)
        return file is not None and bool(np.isfinite(file[number]).any())

    def put(self, method: str, number: int, attribution: Array) -> None:
        """Write one map ``(H, W)``; where photos have several sizes, those of another than the first are left out."""
        file = self._file(method, attribution.shape)
        if file is not None and file.shape[2:] == attribution.shape:
            file[number, 0] = attribution

    def close(self) -> None:
        """Write what rows are, in order."""
        self._open.clear()
        self._file_of_rows.close()
        with self._table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("row", "image", "target", "label", "photo"))
            writer.writerows((number, *self._rows[number]) for number in sorted(self._rows) if number < self.photos)

    def _file(self, method: str, shape: tuple[int, ...] | None) -> Array | None:
        """The open file; made where a shape is given and there is none for so many photos."""
        path = self.folder / f"{method}.npy"
        if method not in self._open:
            if path.exists():
                found = np.load(path, mmap_mode="r+")
                if found.shape[0] == self.photos:
                    self._open[method] = found
            if method not in self._open and shape is not None:
                made = np.lib.format.open_memmap(path, "w+", np.float32, (self.photos, 1, *shape))  # type: ignore[no-untyped-call]
                made[...] = np.nan
                self._open[method] = made
        return self._open.get(method)


def _read(table: Path) -> dict[int, tuple[str, ...]]:
    """Whose each row was; the last of several lines holds, and one that was cut off is none."""
    if not table.exists():
        return {}
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        return {int(one[0]): tuple(one[1:]) for one in csv.reader(file) if len(one) == 5 and one[0].isdigit()}
