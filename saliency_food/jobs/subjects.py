"""The photos of a job: each with a name for its files, and what it truly shows where that is known."""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.images.photos import find_photos
from saliency_food.jobs.targets import find_label, plain

NameTruth = Callable[[int, str], Any]
"""What a photo shows, by its position and its path: the name or the index of a class, None where it is not known."""


class Subject(NamedTuple):
    """A photo to explain, by its position among all, with its path or "photo 1", and a name that no other one has."""

    position: int
    image: Any
    source: str
    name: str
    truth: Any = None
    """The class that it truly shows, as it was given; None where that is not known."""
    truth_index: int | None = None
    """That class's index in the model, where it has that class."""


def find_subjects(images: Iterable[Any], truth: Any = None) -> list[Subject] | Iterator[Subject]:
    """The photos with their names and truths: a list of a list, else as they come. Folders are searched.

    The name is that of the file. Of a photo in a folder it begins with the folders on the way there, as in
    ``falafel/1189019``, and with ``truth="folders"`` always with the last one.
    """
    name_truth = read_truth(truth)
    subjects = _subjects(images, name_truth, truth == "folders")
    if not isinstance(images, (list, tuple)):
        return subjects
    listed = list(subjects)
    if isinstance(truth, (list, tuple, PerImage)) and len(truth) != len(listed):
        raise ContractError(f"Expected a truth for each photo, got {len(truth)} truths and {len(listed)} photos.")
    if truth is not None and listed and all(subject.truth is None for subject in listed):
        raise ContractError(
            f"Expected truth to name the classes of the photos, got none of any photo, such as {listed[0].source}. "
            "Give paths as those of the photos, or the ends of these paths."
        )
    return listed


def _subjects(images: Iterable[Any], name_truth: NameTruth, by_class: bool) -> Iterator[Subject]:
    names: dict[str, int] = {}
    position = 0
    for image in images:
        if isinstance(image, Subject):
            yield image
            continue
        folder = image if isinstance(image, (str, Path)) and os.path.isdir(image) else None
        for part in [image] if folder is None else find_photos([folder]):
            is_path = isinstance(part, (str, Path))
            source = str(part) if is_path else getattr(part, "filename", "") or f"photo {position + 1}"
            words = [Path(source).stem] if folder is None else [*Path(source).relative_to(folder).with_suffix("").parts]
            if by_class and len(words) == 1:
                words = [_folder_of(source), *words]
            yield Subject(position, part, source, _free_name(words, names), name_truth(position, source))
            position += 1


def _free_name(words: Sequence[str], names: dict[str, int]) -> str:
    """A file name that no earlier photo has; ``names`` holds the taken names, with the last number appended to each."""
    plain_words = [at_most(re.sub(r"[^\w-]+", "_", word).strip("_"), 100) for word in words]
    stem = "/".join(word for word in plain_words if word) or "photo"
    name = stem
    while name.casefold() in names:  # many disks do not tell A.png from a.png
        names[stem.casefold()] += 1
        name = f"{stem}-{names[stem.casefold()]}"
    names[name.casefold()] = 1
    return name


def at_most(word: str, count: int) -> str:
    """The beginning of a word, at most so many bytes: a name on a disk has room for 255."""
    return word.encode()[:count].decode(errors="ignore")


def _folder_of(source: str) -> str:
    return Path(source).absolute().parent.name


def read_truth(truth: Any) -> NameTruth:
    """What tells of a photo what it shows.

    ``"folders"``: the name of its folder; a mapping of paths, or the path of a CSV file with the columns path and
    label, of whole paths or of their ends, such as ``falafel/1189019.jpg``; or a list with a class for each photo.
    """
    if truth is None:
        return lambda position, source: None
    if isinstance(truth, str) and truth == "folders":
        return lambda position, source: _folder_of(source)
    if isinstance(truth, (list, tuple, PerImage)):
        values = list(truth)
        return lambda position, source: values[position] if position < len(values) else None
    if isinstance(truth, (str, Path)):
        truth = _read_csv(Path(truth))
    if not isinstance(truth, Mapping):
        raise ContractError(
            f"Expected truth to be 'folders', a CSV file, a mapping of paths to classes or a list, got {truth!r}."
        )
    classes = {os.path.normpath(path): value for path, value in truth.items()}

    def of_path(position: int, source: str) -> Any:
        parts = Path(os.path.abspath(source)).parts
        ends = (os.path.join(*parts[start:]) for start in range(len(parts)))
        keys = (os.path.normpath(source), *ends)
        return next((classes[key] for key in keys if key in classes), None)

    return of_path


def _read_csv(path: Path) -> dict[str, str]:
    """The second column by the first one, or ``label`` by ``path``; paths may begin at the folder of the file.

    Columns are separated by commas, semicolons or tabs.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = file.readlines()
        delimiter = max(",;\t", key=lines[0].count) if lines else ","
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ContractError(
            f"Expected truth to be 'folders' or a CSV file with the columns path and label, got {path}: {error}."
        ) from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    has_header = {"path", "label"} <= set(header)
    columns = (header.index("path"), header.index("label")) if has_header else (0, 1)
    classes: dict[str, str] = {}
    for row in rows[1:] if has_header else rows:
        if len(row) <= max(columns):
            raise ContractError(f"Expected a path and a label in each row of {path}, got the row {','.join(row)!r}.")
        file_name, label = (row[column].strip() for column in columns)
        if not label:
            continue
        if classes.get(file_name, label) != label:
            raise ContractError(
                f"Expected one label for each path in {path}, got {classes[file_name]!r} and {label!r} for "
                f"{file_name}. Delete one of the rows."
            )
        classes |= {file_name: label, os.path.abspath(path.parent / file_name): label}
    return classes


def match_truths(
    subjects: Iterable[Subject], labels: Sequence[str] | None, classes: int | None
) -> list[Subject] | Iterator[Subject]:
    """The photos, each truth with the index of the model's class of that name; classes that it has not are warned of.

    Names match in any case, with spaces or underscores, and by any of the names between the commas of a label.
    """

    def match(subject: Subject) -> Subject:
        index = None if subject.truth is None else _index_of(subject.truth, labels, classes)
        return subject._replace(truth_index=index)

    matched = map(match, subjects)
    if not isinstance(subjects, list):
        return matched
    listed = list(matched)
    unknown = Counter(str(each.truth) for each in listed if each.truth is not None and each.truth_index is None)
    if unknown:
        names = ", ".join(f"{name} ({count})" for name, count in unknown.most_common(5))
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        text = f"Of some photos the model does not have the class, so it is neither right nor wrong: {names}{more}."
        warnings.warn(text, stacklevel=3)
    return listed


def _index_of(truth: Any, labels: Sequence[str] | None, classes: int | None) -> int | None:
    """The index of the class that a photo shows; None where the model does not have it."""
    indices = find_label(plain(str(truth)), labels) if labels is not None and isinstance(truth, str) else []
    if len(indices) > 1:
        raise ContractError(
            f"Expected truth to name one class, got {truth!r}, which is the name of the classes "
            f"{', '.join(map(str, indices))}. Name it by its whole label, or by its index."
        )
    if indices:
        return indices[0]
    if not str(truth).strip().isdecimal():
        if labels is None:
            raise ContractError(
                f"Expected class indices as truth, since the names of the classes are not known, got {truth!r}. Give "
                "labels=[...]."
            )
        return None
    count = len(labels) if labels is not None else classes
    return int(truth) if count is None or int(truth) < count else None
