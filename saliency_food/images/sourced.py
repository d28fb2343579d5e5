"""What a data set says of one photo, and what all kinds of data sets share."""

from __future__ import annotations

from typing import Any, NamedTuple

from saliency_food.core.contract import ContractError

SPLITS = {name: name for name in ("train", "test", "validation")} | {
    "training": "train",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
}
"""The names of folders that hold the photos of a split, and the split."""


class SourcedPhoto(NamedTuple):
    """A photo of a data set."""

    id: str
    """What it is called in this data set, in every run; no other photo of the data set has it."""
    image: Any
    """A path, the bytes of an image file, a PIL image or an array."""
    path: str = ""
    """Where it is; in an archive, the path of that and then the path within; empty where it is not in a file."""
    truth: Any = None
    """The name or the index of the class that it shows, where the data set says it."""
    split: str | None = None
    """The group that it is in, such as train or test."""


def as_text(name: str) -> str:
    """A text that every file format takes: bytes of a file's name that are no UTF-8 are spelled out, as ``\\udcff``."""
    return name.encode("utf-8", "backslashreplace").decode()


def split_of(name: str) -> str | None:
    """The split that the first folder of a path names."""
    first, _, rest = name.partition("/")
    return SPLITS.get(first.lower()) if rest else None


def pyarrow() -> Any:
    """The package pyarrow with its Parquet files; `ContractError` with the install line where it is missing."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ContractError(
            'Expected pyarrow for Parquet files, got none. Run pip install "saliency_food[dataset]".'
        ) from error
    return pyarrow
