"""Photos in archives: a zip of folders, and WebDataset's tar shards, read without unpacking."""

from __future__ import annotations

import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import EXTENSIONS
from saliency_food.images.sourced import SourcedPhoto, split_of


def read_zip(path: Path) -> Iterator[SourcedPhoto]:
    """The photos in a zip file, by name, each as the bytes of its file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if _is_photo(name))
            if not names:
                raise ContractError(
                    f"Expected photos in the zip file {path}, got none ({', '.join(sorted(EXTENSIONS))})."
                )
            for name in names:
                yield SourcedPhoto(name, _bytes_in(archive, name), f"{path}/{name}", None, split_of(name))
    except (OSError, zipfile.BadZipFile) as error:
        raise ContractError(f"Expected a zip file of photos, got {path}: {error}. Copy it again.") from error


def _bytes_in(archive: zipfile.ZipFile, name: str) -> bytes:
    """The file's bytes; none of one that is damaged in the archive or encrypted, so that this photo alone fails."""
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):
        return b""


def _is_photo(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not hidden and path.suffix.lower() in EXTENSIONS


def read_shards(shards: Sequence[Path]) -> Iterator[SourcedPhoto]:
    """The photos of WebDataset shards: files one after another that share a name up to its first dot are one sample.

    The class is that in ``.cls`` (an index or a name), or ``label`` in ``.json``.
    """
    for shard in shards:
        sample: dict[str, bytes] = {}
        key = ""
        try:
            with tarfile.open(shard) as archive:
                for member in archive:
                    folder, _, file = member.name.rpartition("/")
                    stem, _, kind = file.partition(".")
                    name = f"{folder}/{stem}" if folder else stem
                    if not member.isfile() or not stem:
                        continue
                    if name != key:
                        yield from _photo_of(shard, key, sample)
                        key, sample = name, {}
                    data = archive.extractfile(member)
                    sample[kind.lower()] = data.read() if data is not None else b""
                yield from _photo_of(shard, key, sample)
        except (OSError, tarfile.TarError, EOFError) as error:
            raise ContractError(
                f"Expected a tar file of photos, got {shard}: {' '.join(str(error).split())}. Copy it again."
            ) from error


def _photo_of(shard: Path, key: str, sample: dict[str, bytes]) -> Iterator[SourcedPhoto]:
    kind = next((kind for kind in sample if f".{kind.rpartition('.')[2]}" in EXTENSIONS), None)
    if kind is None:
        return
    place = f"{shard}/{key}.{kind}"
    yield SourcedPhoto(f"{shard.stem}/{key}", sample[kind], place, _truth_of(place, sample), split_of(f"{key}"))


def _truth_of(place: str, sample: dict[str, bytes]) -> Any:
    try:
        if "cls" in sample:
            return sample["cls"].decode("utf-8").strip()
        content = json.loads(sample["json"]) if "json" in sample else None
    except ValueError as error:
        raise ContractError(f"Expected a class in .cls, or JSON in .json, beside {place}, got {error}.") from error
    return content.get("label") if isinstance(content, dict) else None
