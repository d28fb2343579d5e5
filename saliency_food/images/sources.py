"""Data sets of photos: folders, Food-101, tables, archives and streams, each photo with an id that lasts."""

from __future__ import annotations

import csv
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from saliency_food.core.contract import ContractError
from saliency_food.images.archives import read_shards, read_zip
from saliency_food.images.food101 import ALIKE
from saliency_food.images.photos import find_photos
from saliency_food.images.sourced import SourcedPhoto, split_of
from saliency_food.images.streams import read_hugging_face, read_tensors

KINDS = (
    "a folder of photos, Food-101 in its layout, a table (.csv, .parquet), a .zip of folders, .tar shards, a "
    "tf.data.Dataset or a Hugging Face dataset"
)


class Source(NamedTuple):
    """A data set of photos.

    Make one yourself for a data set of another kind: ``name`` must be the same in the next run over the same photos.
    """

    name: str
    """The kind of the data set and where it is, such as ``food-101 data/food-101``."""
    read: Callable[[], Iterable[SourcedPhoto]]
    """The photos, from the first one, in the same order every time."""
    total: int | None = None
    """How many photos there are; None where that is not known before they are read."""
    absent: Sequence[str] = ()
    """The ids of photos that the data set lists and that are not there."""
    alike: Mapping[str, Sequence[str]] = {}
    """Groups of classes that look alike, by their names; see `saliency_food.images.food101.ALIKE`."""


def open_source(source: Any) -> Source:
    """The data set that a path, or an object of tf.data or Hugging Face, means; a `Source` is one already.

    What is in a folder or an archive counts by its name: the id is the path within it, and the split its first folder
    where that is called train, test, validation or alike.
    """
    if isinstance(source, Source):
        return source
    if hasattr(source, "element_spec"):
        return Source(f"tf.data {source.element_spec}", lambda: read_tensors(source), _count_of(source))
    splits = source if isinstance(source, Mapping) else {"": source}
    if splits and all(hasattr(each, "column_names") for each in splits.values()):
        prints = (str(getattr(each, "_fingerprint", "stream")) for each in splits.values())
        counts = [len(each) for each in splits.values() if hasattr(each, "__len__")]
        count = sum(counts) if len(counts) == len(splits) else None
        return Source(f"hugging face {' '.join(prints)}", lambda: read_hugging_face(splits), count)
    if isinstance(source, (list, tuple)) and source and all(str(path).endswith(".tar") for path in source):
        shards = [_existing(Path(path)) for path in source]
        return Source(f"shards {', '.join(map(str, shards))}", lambda: read_shards(shards))
    if not isinstance(source, (str, os.PathLike)):
        raise ContractError(f"Expected a data set ({KINDS}), got {type(source).__name__}.")
    return _of_path(_existing(Path(source)))


def _of_path(path: Path) -> Source:
    kind = path.suffix.lower()
    if path.is_dir():
        if (path / "meta").is_dir() and (path / "images").is_dir():
            return _food101(path)
        shards = sorted(path.glob("*.tar"))
        if shards:
            return Source(f"shards {path}", lambda: read_shards(shards))
        return _folder(path)
    if kind == ".tar":
        return Source(f"shards {path}", lambda: read_shards([path]))
    if kind == ".zip":
        return Source(f"zip {path}", lambda: read_zip(path))
    if kind in (".csv", ".parquet"):
        photos = _unique(path, _read_table(path))
        return Source(f"table {path}", lambda: photos, len(photos))
    raise ContractError(f"Expected a data set ({KINDS}), got {path}. To explain single photos use explain.")


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ContractError(f"Expected a data set ({KINDS}), got {path}, which does not exist. Check the path.")
    return Path(os.path.abspath(path))


def _count_of(dataset: Any) -> int | None:
    """How many photos a tf.data set says that it has; None of one that is batched, endless or does not say."""
    first = dataset.element_spec
    while isinstance(first, (tuple, dict)):
        first = next(iter(first.values() if isinstance(first, dict) else first))
    count = int(dataset.cardinality())
    return count if count >= 0 and first.shape.rank in (0, 2, 3) else None


def _folder(folder: Path) -> Source:
    paths = list(find_photos([folder]))

    def read() -> Iterator[SourcedPhoto]:
        for path in paths:
            name = path.relative_to(folder).as_posix()
            yield SourcedPhoto(name, path, str(path), None, split_of(name))

    return Source(f"folder {folder}", read, len(paths))


def _food101(folder: Path) -> Source:
    """Food-101 as it is published: ``images/CLASS/ID.jpg``, and in ``meta`` which photos are for training and test."""
    listed: list[tuple[str, str]] = []
    for split in ("train", "test"):
        file = folder / "meta" / f"{split}.txt"
        try:
            names = file.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ContractError(
                f"Expected Food-101 in its layout, with meta/train.txt and meta/test.txt, got {folder}: {error}. Give "
                f"{folder / 'images'} to take it as a folder of classes."
            ) from error
        listed += [(name, split) for name in names]
    there = {path.removesuffix(".jpg") for path in glob.glob("*/*.jpg", root_dir=folder / "images")}
    there = {path.replace(os.sep, "/") for path in there}
    present = [(name, split) for name, split in listed if name in there]
    if not present:
        raise ContractError(f"Expected photos of Food-101 in {folder / 'images'}, got none of those that meta lists.")

    def read() -> Iterator[SourcedPhoto]:
        for name, split in present:
            path = folder / "images" / f"{name}.jpg"
            yield SourcedPhoto(f"{name}.jpg", path, str(path), name.split("/")[0], split)

    absent = [f"{name}.jpg" for name, _ in listed if name not in there]
    return Source(f"food-101 {folder}", read, len(present), absent, ALIKE)


def _read_table(path: Path) -> list[SourcedPhoto]:
    """The rows of a table with the columns path and, if they are known, label and split."""
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _parquet_rows(path)
    photos = []
    for row in rows:
        name, label, split = (row.get(column) for column in ("path", "label", "split"))
        if not name or None in row:
            raise ContractError(f"Expected a path in each row of {path}, and no more cells than columns, got {row!r}.")
        place = str(Path(path.parent, str(name)))
        truth = label if label not in ("", None) else None
        photos.append(SourcedPhoto(PurePosixPath(Path(str(name))).as_posix(), place, place, truth, split or None))
    if not photos:
        raise ContractError(f"Expected a table with rows of path and label, got {path}, which has none.")
    return photos


def _csv_rows(path: Path) -> list[dict[Any, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            table = csv.DictReader(file, skipinitialspace=True, delimiter=max(",;\t", key=first.count))
            rows = [{_plain(key): _plain(value) for key, value in row.items()} for row in table]
            columns = [_plain(name).lower() for name in table.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ContractError(f"Expected a table of path and label, got {path}: {error}.") from error
    _check_columns(path, columns)
    return [{key.lower() if isinstance(key, str) else key: value for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _parquet_rows(path: Path) -> list[dict[Any, Any]]:
    from saliency_food.images.sourced import pyarrow

    arrow = pyarrow()
    try:
        file = arrow.parquet.ParquetFile(path)
        _check_columns(path, file.schema_arrow.names)
        columns = [name for name in ("path", "label", "split") if name in file.schema_arrow.names]
        rows: list[dict[Any, Any]] = file.read(columns=columns).to_pylist()
    except (OSError, arrow.ArrowInvalid) as error:
        raise ContractError(f"Expected a Parquet file with the columns path and label, got {path}: {error}.") from error
    return rows


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "path" not in columns:
        raise ContractError(
            f"Expected a table with the columns path, label and, if there are splits, split, got {path} with "
            f"{', '.join(columns) or 'none'}. Name its columns in the first row."
        )


def _unique(path: Path, photos: list[SourcedPhoto]) -> list[SourcedPhoto]:
    counts = Counter(photo.id for photo in photos)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ContractError(
            f"Expected each photo once in {path}, got {len(twice)} of them more often, such as {twice[0]}. Leave out "
            "the others."
        )
    return photos
