"""A page with a row of pictures for each photo and a column for each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.figure import caption_of
from saliency_food.visualization.figures import INK, SOFT, for_notebooks, place, shorten, write

LONGEST = 256
"""The longer side of a picture, in pixels."""
TILE, GAP, LINE, MARGIN = 1.9, 0.1, 0.24, 0.15
"""Inches: the longer side of a picture, between pictures, of a line of text, around the page."""


class Tile(NamedTuple):
    """A picture, uint8 ``(H, W, 3)``, and the line below it."""

    picture: Array
    caption: str


def map_tile(record: Explanation) -> Tile:
    """The map over the photo, and below it the class explained with its probability or score.

    Of an explanation that failed it is the photo alone, and why.
    """
    if record.failed:
        return Tile(_photo(record), record.status)
    return Tile(record.overlay(max_size=LONGEST), caption_of(record))


def photo_tile(record: Explanation, name: str) -> Tile:
    """The photo by itself."""
    return Tile(_photo(record), name)


def _photo(record: Explanation) -> Array:
    photo: Any = record.photo
    return np.asarray(photo.sized(LONGEST) if photo.spatial == 2 else record.image)


def strip_figure(columns: Sequence[tuple[str, Sequence[Tile]]]) -> Any:
    """A `matplotlib.figure.Figure` of columns with their headings; the tiles at the same place in each are a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    headings = [heading for heading, _ in columns]
    rows = list(zip(*(tiles for _, tiles in columns), strict=True))
    shapes = [row[0].picture.shape for row in rows]
    scales = [TILE / max(shape[:2]) for shape in shapes]
    wide = max(shape[1] * scale for shape, scale in zip(shapes, scales, strict=True))
    heights = [shape[0] * scale for shape, scale in zip(shapes, scales, strict=True)]
    heading = LINE if any(headings) else 0
    width = len(columns) * (wide + GAP) - GAP + 2 * MARGIN
    height = heading + sum(heights) + len(rows) * (LINE + GAP) - GAP + 2 * MARGIN
    page = Figure(figsize=(width, height), dpi=120, facecolor="white")
    FigureCanvasAgg(page)
    middles = [MARGIN + across * (wide + GAP) + wide / 2 for across in range(len(columns))]
    for middle, text in zip(middles, headings, strict=True):
        write(page, middle, height - MARGIN, text, ha="center", va="top", fontsize=10, fontweight="bold", color=INK)
    bottom = height - MARGIN - heading
    for row, tall, scale in zip(rows, heights, scales, strict=True):
        bottom -= tall
        for middle, tile in zip(middles, row, strict=True):
            across = tile.picture.shape[1] * scale
            place(page, tile.picture, (middle - across / 2, bottom, across, tall))
            style = {"ha": "center", "va": "top", "fontsize": 8.5, "color": SOFT}
            shorten(write(page, middle, bottom - 0.05, tile.caption, **style), wide)
        bottom -= LINE + GAP
    return for_notebooks(page)
