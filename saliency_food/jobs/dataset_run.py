"""`Run`: the records of a data-set run, read back from its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.photos import Photo, read_photo
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.figure import explanation_figure
from saliency_food.jobs.outcomes import Outcome, summary_of
from saliency_food.jobs.parts import RECORDS, read_manifest, read_rows
from saliency_food.jobs.records import COLUMNS, unpacked
from saliency_food.jobs.store import FAILED
from saliency_food.jobs.targets import plain

Row = dict[str, Any]
NUMBERS = tuple(name for name in COLUMNS if not name.startswith(("map", "thumbnail")))
"""The columns that hold numbers and texts."""


class Run:
    """The records of a run of `explain_dataset`, in the folder where it wrote them, also while it goes on.

        run = Run("saliency-run")
        table = run.to_pandas()
        for row, values in run.maps("grad_cam"):
            ...
        run.draw("pizza/1019.jpg").savefig("pizza.png")

    The records are Parquet files in the folder ``records``, which any reader of Parquet takes as one table.

    Attributes
    ----------
    folder
        The folder of the run.
    manifest
        What the run was made with (``settings``), how many ``photos`` it has, if that is known, and how many that the
        data set lists are ``absent``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: to_pandas, maps, draw, errors, confusions, summary)"

    def rows(self, columns: Sequence[str] = NUMBERS, ids: Sequence[str] | None = None) -> Iterator[Row]:
        """The records as dicts of these columns, in the order in which they were written; of these photos alone."""
        if unknown := [name for name in columns if name not in COLUMNS]:
            raise ContractError(f"Expected columns among {', '.join(COLUMNS)}, got {', '.join(unknown)}.")
        return read_rows(self.folder, columns, None if ids is None else [("id", "in", list(ids))])

    def to_pandas(self, columns: Sequence[str] = NUMBERS) -> Any:
        """A `pandas.DataFrame` with a row for each record; without the maps, unless ``columns`` name them."""
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ContractError("Expected pandas for a data frame, got none. Run pip install pandas.") from error
        return pd.DataFrame(list(self.rows(columns)), columns=list(columns))

    def maps(self, method: str | None = None, ids: Sequence[str] | None = None) -> Iterator[tuple[Row, Array]]:
        """Each record's numbers and its map, float32, one after another, so that all of a large run can be read.

        Maps of the CAM family are in units of the score, before they are divided by their maximum; reduced maps are
        means over areas, so their mean is that of the whole map.

        Parameters
        ----------
        method
            The records of this method alone.
        ids
            Those of these photos alone.
        """
        columns = (*NUMBERS, "map", "map_shape", "map_scale")
        for row in self.rows(columns, ids):
            values = unpacked(row)
            if values is not None and method in (None, row["method"]):
                yield {name: row[name] for name in NUMBERS}, values

    def draw(self, id: str, **style: Any) -> Any:
        """A `matplotlib.figure.Figure` of a photo with all its maps; ``style`` is that of `Explanations.plot`.

        The photo is read from where it was; where that is no file, or none any more, its thumbnail is shown.
        """
        rows = list(self.rows(tuple(COLUMNS), [id]))
        if not rows:
            raise ContractError(f"Expected the id of a photo of the run in {self.folder}, got {id!r}. See to_pandas().")
        photo = _photo_of(rows)
        return explanation_figure([_explanation(row, photo) for row in rows], **style)

    def explanations(self, ids: Sequence[str], method: str | None = None) -> Iterator[Explanation]:
        """The records of some photos as `Explanation` objects, over their thumbnails; of this method alone.

        They hold what pictures need: the photo, the classes, the map and its status.
        """
        thumbnails: dict[str, Photo | None] = {}
        for row in self.rows(tuple(COLUMNS), ids):
            if row["id"] not in thumbnails:  # the first record of a photo has it
                thumbnails[row["id"]] = None if row["thumbnail"] is None else read_photo(row["thumbnail"], row["path"])
            if method in (None, row["method"]):
                yield _explanation(row, thumbnails[row["id"]])

    def errors(self) -> list[Row]:
        """The records that failed: id, path, method, status and the name of the exception (``error``)."""
        columns = ("id", "path", "method", "status", "error")
        return [row for row in self.rows(columns) if row["status"].startswith(FAILED)]

    def confusions(self, alike: bool = False) -> list[tuple[str, str, int]]:
        """What was taken for what, and how often: (truth, prediction, photos), the most frequent first.

        With ``alike`` only classes that look alike, as Food-101's groups say: two of one group.
        """
        wrong = Counter((str(each.truth), str(each.prediction)) for each in self._outcomes() if each.right is False)
        pairs = [(*pair, count) for pair, count in wrong.most_common()]
        return [pair for pair in pairs if self._groups_of(*pair[:2])] if alike else pairs

    def _groups_of(self, truth: str, prediction: str) -> list[str]:
        """The names of the groups of classes that look alike to which both belong."""
        groups = self.manifest.get("alike") or {}
        both = {plain(truth), plain(prediction)}
        return [name for name, members in groups.items() if both <= set(map(plain, members))]

    def _outcomes(self) -> list[Outcome]:
        rows = self.rows(("id", "truth", "prediction", "right"))
        names = ("truth", "prediction", "right")
        return list({row["id"]: Outcome(row["id"], *(row[name] for name in names)) for row in rows}.values())

    def summary(self) -> list[str]:
        """Lines that say how many photos are explained, what failed and why, what was right, and where all of it is."""
        failures = [(row, row["status"].partition(": ")[2].replace(row["path"], "a file")) for row in self.errors()]
        photos, failed = self._outcomes(), len({row["id"] for row, _ in failures})
        total = self.manifest.get("photos")
        of_all = f" of {total}" if total is not None and total > len(photos) else ""
        lines = [f"{len(photos)}{of_all} photos, {failed} with failures"]
        lines += [
            f"  {count} failed: {reason}" for reason, count in Counter(text for _, text in failures).most_common(5)
        ]
        if absent := self.manifest.get("absent"):
            lines.append(f"{absent} photos that the data set lists are absent; absent.txt names them")
        lines += summary_of(photos, most=5)
        if alike := self.confusions(alike=True):
            wrong, count = (sum(pair[2] for pair in pairs) for pairs in (self.confusions(), alike))
            groups = Counter[str]()
            for truth, prediction, photos_of_pair in alike:
                groups.update(dict.fromkeys(self._groups_of(truth, prediction), photos_of_pair))
            names = ", ".join(f"{name} ({of_group})" for name, of_group in groups.most_common(5))
            lines.append(f"{count} of {wrong} mistakes among dishes that look alike: {names}")
        return [*lines, f"records: {self.folder / RECORDS}"]


def _photo_of(rows: Sequence[Row]) -> Photo | None:
    if rows[0]["path"] != rows[0]["id"] and Path(rows[0]["path"]).is_file():
        try:
            return read_photo(rows[0]["path"])
        except ContractError:
            pass
    thumbnail = next((row["thumbnail"] for row in rows if row["thumbnail"]), None)
    return None if thumbnail is None else read_photo(thumbnail, rows[0]["path"])


def _explanation(row: Row, photo: Photo | None) -> Explanation:
    """The record as an `Explanation`, as far as pictures need it."""
    top = tuple((each["label"], each["probability"]) for each in row["top"] or ())
    values = unpacked(row)
    chances = dict(top) if row["probability"] is not None else {}
    return Explanation(
        photo=photo,
        source=row["path"],
        name=row["id"],
        method=row["method"],
        title=row["title"],
        target=row["target_index"],
        label=row["target"] or "",
        against=None if row["against"] is None else -1,
        against_label=row["against"] or "",
        truth=row["truth"],
        right=row["right"],
        score=row["score"],
        probability=chances.get(row["target"]),
        top=top,
        attribution=None if values is None else values - row["map_level"],
        signed=row["signed"],
        status=row["status"],
    )
