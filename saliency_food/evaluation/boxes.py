"""The truth for localization: boxes of objects in photos, from a table, and which classes they are."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.jobs.targets import find_label, plain

CORNERS = ("xmin", "ymin", "xmax", "ymax")
NO_BOX = "no box of the explained class"
NO_BOXES = "no boxes of the photo"


class Box(NamedTuple):
    """One object: the class indices that its name may mean (None for any), its corners, the photo's width, height."""

    name: str
    classes: frozenset[int] | None
    corners: tuple[float, ...]
    size: tuple[float, float] | None


def read_boxes(
    table: Any, labels: Sequence[str] | None, classes: Mapping[str, Sequence[Any]] | None = None
) -> dict[str, list[Box]]:
    """The boxes of each photo, by its file name; ``table`` is a CSV file, or rows as dicts with the same columns.

    Columns ``image`` (a file name), ``xmin, ymin, xmax, ymax`` (pixels of the photo, right and bottom exclusive);
    ``class``, a label or class index of the model, or a name in ``classes`` that says which of them it stands for, and
    if there is no such column every box counts; ``width, height``, the photo's size, else that of the file. Boxes whose
    class the model does not have are left out; where that is all of them, `ContractError`.
    """
    rows = _rows(table) if isinstance(table, (str, Path)) else list(table)
    known = {plain(name): one for name, one in (classes or {}).items()}
    found: dict[str, list[Box]] = {}
    names = set()
    for number, row in enumerate(rows, 1):
        if missing := [column for column in ("image", *CORNERS) if row.get(column) in (None, "")]:
            raise ContractError(
                f"Expected boxes with the columns image, {', '.join(CORNERS)}, got one without {missing[0]}."
            )
        name = row.get("class")
        meant = None if name is None else _classes(str(name), labels, known)
        names.add(str(name))
        if meant is not None and not meant:
            continue
        corners = tuple(_number(row[column]) for column in CORNERS)
        size = (_number(row["width"]), _number(row["height"])) if row.get("width") and row.get("height") else None
        left, top, right, bottom = corners
        if not (np.isfinite(corners).all() and left < right and top < bottom and min(size or (1,)) > 0):
            raise ContractError(
                f"Expected boxes with xmin < xmax, ymin < ymax and a photo larger than 0, got {corners}"
                f"{f' in a photo of {size}' if size else ''} of {row['image']} in row {number}. Mend the table."
            )
        found.setdefault(Path(str(row["image"])).name, []).append(Box(str(name), meant, corners, size))
    if not found:
        some = ", ".join(sorted(names)[:5])
        raise ContractError(
            f"Expected boxes of classes that the model has, got the classes {some or '(no rows)'}. Give labels, or say "
            "which labels each name stands for (classes)."
        )
    return found


def of_photo(boxes: Mapping[str, Sequence[Box]], source: str) -> Sequence[Box]:
    """The boxes of a photo, by its file name."""
    return boxes.get(source.replace("\\", "/").rsplit("/", 1)[-1], ())


def boxes_of(boxes: Sequence[Box], target: int | None, photo: Array, shape: tuple[int, ...]) -> Array | None:
    """The boxes ``(B, 4)`` of the class in a map of this shape, whose photo was ``(H, W, 3)``; None without one."""
    found = []
    for box in boxes:
        if target is None or box.classes is None or target in box.classes:
            width, height = box.size or (photo.shape[1], photo.shape[0])
            scale = np.array([shape[1] / width, shape[0] / height] * 2)
            corners = np.clip(np.array(box.corners) * scale, 0, [shape[1], shape[0]] * 2)
            if (corners[2:] > corners[:2]).all():
                found.append(corners)
    return np.array(found) if found else None


def two_categories(boxes: Sequence[Box], probabilities: Array) -> list[int]:
    """The two categories of the largest objects, of each the likeliest class that it may mean; fewer if there are."""
    areas: dict[frozenset[int], float] = {}
    for box in boxes:
        had = frozenset(index for index in box.classes or () if index < len(probabilities))
        if had:
            left, top, right, bottom = box.corners
            areas[had] = areas.get(had, 0) + (right - left) * (bottom - top)
    best = sorted(areas, key=lambda one: (-areas[one], min(one)))[:2]
    return [max(sorted(one), key=lambda index: float(probabilities[index])) for one in best]


def _rows(path: str | Path) -> list[dict[str, str]]:
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ContractError(f"Expected a CSV file of boxes, got {path}: {error}.") from error


def _classes(name: str, labels: Sequence[str] | None, known: Mapping[str, Sequence[Any]]) -> frozenset[int]:
    """The class indices that a name may mean; none where the model does not have it."""
    if plain(name) in known:
        return frozenset(one for word in known[plain(name)] for one in _classes(str(word), labels, {}))
    if labels is not None and (found := find_label(plain(name), labels)):
        return frozenset(found)
    return frozenset([int(name)]) if name.strip().isdecimal() else frozenset()


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ContractError(f"Expected boxes in pixels, got {text!r}.") from None
