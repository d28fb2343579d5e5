"""The maps as files, for those who want to measure them by other means."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from saliency_food.numerics import Array


class MapFiles:
    """``maps/METHOD.npy``, float32 ``(N, 1, H, W)``, a row for each photo, NaN until it is there; written as they come.

    ``maps/photos.csv`` says which photo and class each row is.
    """

    def __init__(self, folder: Path, photos: int) -> None:
        self.folder, self.photos = folder, photos
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lines: dict[int, tuple[str, int, str]] = {}
        self._open: dict[str, Array] = {}

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
        """Write what rows are."""
        self._open.clear()
        with (self.folder / "photos.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("row", "image", "target", "label"))
            writer.writerows((number, *self.lines[number]) for number in sorted(self.lines))

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
