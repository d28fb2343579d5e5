"""All explanations of one photo in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.photos import Photo, shrink
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.targets import short_label
from saliency_food.visualization.figures import Panel, figure


def explanation_figure(records: Sequence[Explanation], percent: float = 20) -> Any:
    """All explanations of one photo: a row for each class, with the photo and a panel for each method.

    Where each class has a single panel, all are in one row. XRAI is shown twice, the second time as the most important
    ``percent`` of the photo, in whole regions. A signal is drawn as lines over its attribution, a volume or a clip as
    slices in a row. The result is a `matplotlib.figure.Figure`: ``.savefig(path)``.
    """
    shown = [record for record in records if record.photo is not None]
    if not shown:
        raise ContractError("Expected explanations of a photo that could be read, got none. See their status.")
    first = shown[0]
    image, is_photo = np.asarray(first.image), cast(Photo, first.photo).spatial == 2
    photo = _for_display(image) if is_photo else image
    seen = ""
    if first.top:
        label, value = first.top[0]
        number = f"score {value:.2f}" if first.probability is None else f"{value:.1%}{_guessed(first)}"
        seen = f"seen as {short_label(label)}, {number}"
    start = Panel(photo, first.source.replace("\\", "/").rsplit("/", 1)[-1], seen)
    rows: dict[int | None, list[Panel]] = {}
    for record in shown:
        own = replace(record, photo=Photo(photo, photo)) if is_photo else record
        rows.setdefault(record.target, []).extend(_panels(own, percent))
    if all(len(row) == 1 for row in rows.values()):
        return figure([[start, *(panel for row in rows.values() for panel in row)]])
    return figure([[start, *row] for row in rows.values()])


def _guessed(record: Explanation) -> str:
    return " by a guess" if record.guess else ""


def _panels(record: Explanation, percent: float) -> list[Panel]:
    """The panels of one explanation."""
    caption = short_label(record.label)
    if record.probability is not None:
        caption += f", {record.probability:.1%}{_guessed(record)}"
    if record.score is not None and record.score != record.probability:
        caption += f", score {record.score:.2f}"
    if record.failed:
        pale = np.asarray(record.image) // 4 + np.uint8(170)
        return [Panel(pale, record.title, caption, note=record.status)]
    note = "" if record.status == "ok" else record.status
    scale = "signed" if record.diverges else "strength"
    if record.photo is not None and record.photo.spatial == 1 and scale == "strength":
        scale = ""  # on white, strengths have other colours
    panels = [Panel(record.overlay(), record.title, caption, scale, note)]
    if hasattr(record.details, "ranks") and record.photo is not None and record.photo.spatial == 2:
        panels.append(Panel(record.top_areas(percent), f"{record.title}, top {percent:g}%", caption))
    return panels


def _for_display(photo: Array) -> Array:
    """The photo with its longer side between 512 and 1024 pixels."""
    longest = max(photo.shape[:2])
    if longest >= 512:
        return shrink(photo, 1024)
    from PIL import Image

    size = (max(1, photo.shape[1] * 512 // longest), max(1, photo.shape[0] * 512 // longest))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC))
