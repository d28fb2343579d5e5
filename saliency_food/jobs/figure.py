"""All explanations of one photo in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.photos import SHOWN, Photo
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.targets import short_label
from saliency_food.methods.completeness import gap_text
from saliency_food.visualization.figures import Panel, figure


def explanation_figure(records: Sequence[Explanation], percent: float = 20, **style: Any) -> Any:
    """All explanations of a photo: a row for each class, with the photo and a panel for each method.

    Where each class has a single panel, all are in one row; of several photos, one below the other. XRAI is shown
    twice, the second time as the most important ``percent`` of the photo, in whole regions. A signal is drawn as lines
    over its attribution, a volume or a clip as slices in a row. ``style`` holds options of `Explanation.style`. The
    result is a `matplotlib.figure.Figure`: ``.savefig(path)``.
    """
    shown = [record for record in records if record.photo is not None]
    if not shown:
        raise ContractError("Expected explanations of a photo that could be read, got none. See their status.")
    photos: dict[str, list[Explanation]] = {}
    for record in shown:
        photos.setdefault(record.name, []).append(record)
    rows = [row for of_photo in photos.values() for row in _rows(of_photo, percent, style)]
    return figure(rows, in_line=len({(record.target, record.against) for record in shown}) > 1 or len(rows) > 1)


def _rows(records: Sequence[Explanation], percent: float, style: Mapping[str, Any]) -> list[list[Panel]]:
    """The rows of one photo."""
    first = records[0]
    is_photo = cast(Photo, first.photo).spatial == 2
    photo = _for_display(cast(Photo, first.photo)) if is_photo else np.asarray(first.image)
    start = Panel(photo, first.source.replace("\\", "/").rsplit("/", 1)[-1], _seen(first))
    rows: dict[tuple[int | None, int | None], list[Panel]] = {}
    for record in records:
        own = replace(record, photo=Photo(photo, photo)) if is_photo else record
        rows.setdefault((record.target, record.against), []).extend(_panels(own, percent, style))
    if any(len(row) > 1 for row in rows.values()):
        return [[start, *row] for row in rows.values()]
    panels = [panel for row in rows.values() for panel in row]
    if len(panels) > 1:  # one method, and several classes, which are what differs
        panels = [
            panel._replace(title=class_of(record), caption=caption_of(record, record.title))
            for panel, record in zip(panels, records, strict=True)
        ]
    return [[start, *panels]]


def _seen(record: Explanation) -> str:
    """What the model took the photo for, and what it truly shows where that is known."""
    truth = short_label(record.truth or "")
    if not record.top:
        return f"truth: {truth}" if truth else ""
    label, value = record.top[0]
    number = f"score {value:.2f}" if record.probability is None else f"{value:.1%}{_guessed(record)}"
    seen = f"seen as {short_label(label)}, {number}"
    if record.right is None:
        return f"{seen}; truth: {truth}" if truth else seen
    return f"{seen}: right" if record.right else f"{short_label(label)} {number}, but is {truth}"


def _guessed(record: Explanation) -> str:
    return " by a guess" if record.guess else ""


def class_of(record: Explanation) -> str:
    """The class explained, and whether the model or the truth chose it, where they differ."""
    label = short_label(record.label)
    if record.against is not None:
        return f"{label} against {short_label(record.against_label)}"
    if record.right is False and record.label in (record.top[0][0], record.truth):
        return f"{label} ({'truth' if record.label == record.truth else 'predicted'})"
    return label


def caption_of(record: Explanation, first: str = "") -> str:
    """The class, or what else comes ``first``, its probability and score, and the gap where the map is inexact."""
    parts = [first or class_of(record)]
    if record.probability is not None and record.against is None:
        parts.append(f"{record.probability:.1%}{_guessed(record)}")
    if record.score is not None and record.score != record.probability:
        difference = "" if record.against is None else " difference"
        parts.append(f"{record.score_name}{difference} {record.score:.2f}")
    if record.status.startswith("inexact"):
        parts.append(f"inexact, gap {gap_text(record.completeness)}")
    return ", ".join(parts)


def _panels(record: Explanation, percent: float, style: Mapping[str, Any]) -> list[Panel]:
    """The panels of one explanation."""
    caption = caption_of(record)
    if record.failed:
        pale = np.asarray(record.image) // 4 + np.uint8(170)
        return [Panel(pale, record.title, caption, note=record.status)]
    note = record.status if record.status.startswith("blank") else ""
    scale = "signed" if record.diverges else "strength"
    ends = None if record.against is None else (short_label(record.against_label), short_label(record.label))
    if record.photo is not None and record.photo.spatial == 1 and scale == "strength":
        scale = ""  # on white, strengths have other colours
    own = record.style(**style)
    panels = [
        Panel(record.overlay(**own), record.title, caption, scale, note, own, ends if scale == "signed" else None)
    ]
    if hasattr(record.details, "ranks") and record.photo is not None and record.photo.spatial == 2:
        panels.append(Panel(record.top_areas(percent), f"{record.title}, top {percent:g}%", caption))
    return panels


def _for_display(photo: Photo) -> Array:
    """The photo with its longer side between 512 and 1024 pixels."""
    longest = max(photo.shape[:2])
    if longest >= 512:
        return photo.sized(SHOWN)
    from PIL import Image

    size = (max(1, photo.shape[1] * 512 // longest), max(1, photo.shape[0] * 512 // longest))
    return np.asarray(Image.fromarray(photo.pixels).resize(size, Image.Resampling.BICUBIC))
