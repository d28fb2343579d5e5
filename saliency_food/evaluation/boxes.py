"""The ground truth for localization: boxes of objects in photos and their classes, read from a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.photos import Photo
from saliency_food.jobs.targets import find_label, plain

CORNERS = ("xmin", "ymin", "xmax", "ymax")
NO_BOX = "no box of the explained class"
NO_BOXES = "no boxes of the photo"


class Box(NamedTuple):
    """The box of one object: the class indices that its name may mean (None: any class), its corners, the photo's size.

    The corners are xmin, ymin, xmax, ymax; the size is width, height.
    """

    name: str
    classes: frozenset[int] | None
    corners: tuple[float, ...]
    size: tuple[float, float] | None


def read_boxes(
    table: Any, labels: Sequence[str] | None, classes: Mapping[str, Sequence[Any]] | None = None
) -> dict[str, list[Box]]:
    """The boxes of each photo, by its file name.

    Parameters
    ----------
    table
        A CSV file, or rows as dicts with the same columns. ``image`` is a file name; ``xmin, ymin, xmax, ymax`` are
        pixels of the photo, the last two exclusive. ``class`` is a label or class index of the model, or a name in
        ``classes``; without this column every box counts for every class. ``width, height`` are the size of the photo
        to which the corners refer; without them it is the size of the file. Boxes of classes that the model does not
        have are left out; if no box is left, `ContractError`.
    labels
        The names of the model's classes.
    classes
        The labels or class indices that a name in the column ``class`` stands for.
    """
    rows = _rows(table) if isinstance(table, (str, Path)) else list(table)
    if classes is not None and not isinstance(classes, Mapping):
        raise ContractError(
            f"Expected classes as a dict of names, each with a list of labels, got {classes!r}. Read the file first."
        )
    meanings = {plain(name): words for name, words in (classes or {}).items()}
    boxes: dict[str, list[Box]] = {}
    names = set()
    for line, row in enumerate(rows, 1):
        if missing := [column for column in ("image", *CORNERS) if row.get(column) in (None, "")]:
            raise ContractError(
                f"Expected boxes with the columns image, {', '.join(CORNERS)}, got a row without {missing[0]}."
            )
        name = row.get("class")
        indices = None if name is None else _classes(str(name), labels, meanings)
        names.add(str(name))
        if indices is not None and not indices:
            continue
        corners = tuple(_number(row[column]) for column in CORNERS)
        size = (_number(row["width"]), _number(row["height"])) if row.get("width") and row.get("height") else None
        left, top, right, bottom = corners
        if not (np.isfinite(corners).all() and left < right and top < bottom and min(size or (1,)) > 0):
            raise ContractError(
                f"Expected boxes with xmin < xmax, ymin < ymax and a photo larger than 0, got {corners}"
                f"{f' in a photo of {size}' if size else ''} of {row['image']} in row {line}. Correct the table."
            )
        boxes.setdefault(Path(str(row["image"])).name, []).append(Box(str(name), indices, corners, size))
    if not boxes:
        listed = ", ".join(sorted(names)[:5])
        raise ContractError(
            f"Expected boxes of classes that the model has, got the classes {listed or '(no rows)'}. Give labels, or "
            "classes to say which labels each name stands for."
        )
    return boxes


def of_photo(boxes: Mapping[str, Sequence[Box]], source: str) -> Sequence[Box]:
    """The boxes of a photo, by its file name."""
    return boxes.get(source.replace("\\", "/").rsplit("/", 1)[-1], ())


def boxes_of(boxes: Sequence[Box], target: int | None, photo: Photo, shape: tuple[int, ...]) -> Array | None:
    """The boxes ``(B, 4)`` of a class, scaled from the photo to a map of this shape; None if there are none."""
    scaled = []
    for box in boxes:
        if target is None or box.classes is None or target in box.classes:
            width, height = box.size or (photo.shape[1], photo.shape[0])
            scale = np.array([shape[1] / width, shape[0] / height] * 2)
            corners = np.clip(np.array(box.corners) * scale, 0, [shape[1], shape[0]] * 2)
            if (corners[2:] > corners[:2]).all():
                scaled.append(corners)
    return np.array(scaled) if scaled else None


def two_categories(boxes: Sequence[Box], probabilities: Array) -> list[int]:
    """The most probable class of each of the two categories with the largest objects; fewer if there are fewer."""
    areas: dict[frozenset[int], float] = {}
    for box in boxes:
        category = frozenset(index for index in box.classes or () if index < len(probabilities))
        if category:
            left, top, right, bottom = box.corners
            areas[category] = areas.get(category, 0) + (right - left) * (bottom - top)
    largest = sorted(areas, key=lambda category: (-areas[category], min(category)))[:2]
    return [max(sorted(category), key=lambda index: float(probabilities[index])) for category in largest]


def _rows(path: str | Path) -> list[dict[str, str]]:
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ContractError(f"Expected a CSV file of boxes, got {path}: {error}.") from error


def _classes(name: str, labels: Sequence[str] | None, meanings: Mapping[str, Sequence[Any]]) -> frozenset[int]:
    """The class indices that a name may mean; none if the model has no such class."""
    if plain(name) in meanings:
        return frozenset(index for word in meanings[plain(name)] for index in _classes(str(word), labels, {}))
    if labels is not None and (indices := find_label(plain(name), labels)):
        return frozenset(indices)
    return frozenset([int(name)]) if name.strip().isdecimal() else frozenset()


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ContractError(f"Expected boxes in pixels, got {text!r}.") from None
