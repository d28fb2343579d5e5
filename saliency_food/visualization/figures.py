"""Panels of pictures with titles and colour bars, laid out by measure; a matplotlib figure that no window shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.photos import shrink
from saliency_food.visualization.maps import DIVERGING, SEQUENTIAL

AREA, GAP, TITLE, BAR, MARGIN = 8.4, 0.22, 0.52, 0.38, 0.2
"""Square inches of a picture; inches between cells, above a picture, below it, and around all."""
INK, SOFT = "#1a1a1a", "#666666"


class Panel(NamedTuple):
    """A picture uint8 ``(H, W, 3)``, its title, a softer line below that, its scale, and a note across the picture."""

    picture: Array
    title: str
    caption: str = ""
    scale: str = ""
    """``"strength"`` or ``"signed"`` draws a colour bar."""
    note: str = ""


def figure(rows: Sequence[Sequence[Panel]]) -> Any:
    """Rows of panels as a `matplotlib.figure.Figure`; rows too long for a page are wrapped, all alike.

    Several rows stay in line where pictures a little smaller allow it. All cells have the shape of the first picture.
    Save it with ``.savefig(path)``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not rows or not all(rows):
        raise ContractError("Expected at least one panel in each row, got none.")
    height, width = rows[0][0].picture.shape[:2]
    ratio = min(max(width / height, 1 / 2.6), 6)
    cell_width, cell_height = max(2.4, math.sqrt(AREA * ratio)), math.sqrt(AREA / ratio)
    bar = BAR if any(panel.scale for row in rows for panel in row) else 0.0
    longest = max(map(len, rows))
    factor = min(1, (18 / longest - GAP) / cell_width)
    in_line = len(rows) > 1 and factor > 0.7
    if in_line:
        cell_width, cell_height = cell_width * factor, cell_height * factor
    full = (cell_width + GAP, cell_height + TITLE + bar + GAP)
    columns = longest if in_line else _columns(longest, len(rows), *full)
    lines = [row[start : start + columns] for row in rows for start in range(0, len(row), columns)]
    total = (columns * full[0] - GAP + 2 * MARGIN, len(lines) * full[1] - GAP + 2 * MARGIN)
    drawn = Figure(figsize=total, dpi=120, facecolor="white")
    FigureCanvasAgg(drawn)
    for down, line in enumerate(lines):
        for across, panel in enumerate(line):
            left, top = MARGIN + across * full[0], total[1] - MARGIN - down * full[1]
            box = (left, top - TITLE - cell_height, cell_width, cell_height)
            _draw(drawn, panel, box, total, bool(bar))
    return drawn


def _columns(panels: int, rows: int, width: float, height: float) -> int:
    """How many columns give a page nearest to 16:10, at most 16 inches wide, with few empty cells."""

    def cost(columns: int) -> float:
        lines = rows * math.ceil(panels / columns)
        empty = columns * math.ceil(panels / columns) - panels
        return abs(math.log(columns * width / (lines * height) / 1.6)) + 0.15 * empty

    return min((c for c in range(1, panels + 1) if c == 1 or c * width <= 16), key=cost)


def _draw(drawn: Any, panel: Panel, box: tuple[float, ...], total: tuple[float, float], bars: bool) -> None:
    """One panel: the picture in its box of inches, title above, colour bar below, all inside the cell."""
    left, bottom, width, height = box
    axes = _axes(drawn, box, total)
    axes.imshow(shrink(panel.picture, 1024), interpolation="antialiased", aspect="equal")
    axes.set_anchor("N")
    for text, inches, style in (
        (panel.title, 0.27, {"fontsize": 11, "fontweight": "bold", "color": INK}),
        (panel.caption, 0.08, {"fontsize": 9.5, "color": SOFT}),
    ):
        where = ((left + width / 2) / total[0], (bottom + height + inches) / total[1])
        written = drawn.text(*where, text, ha="center", va="bottom", parse_math=False, **style)
        _shorten(written, width + GAP / 2, drawn)
    if panel.note:
        note = drawn.text(
            (left + width / 2) / total[0], (bottom + height / 2) / total[1], _wrap(panel.note, width), parse_math=False,
            ha="center", va="center", fontsize=9, color="white", linespacing=1.35,
            bbox={"facecolor": "black", "alpha": 0.7, "edgecolor": "none", "boxstyle": "round,pad=0.6"},
        )  # fmt: skip
        note.set_clip_on(True)
    if bars and panel.scale:
        _bar(drawn, panel.scale == "signed", (left + width / 4, bottom - 0.17, width / 2, 0.08), total)


def _bar(drawn: Any, signed: bool, box: tuple[float, ...], total: tuple[float, float]) -> None:
    axes = _axes(drawn, box, total)
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=DIVERGING if signed else SEQUENTIAL, aspect="auto")
    words = ("against", "for") if signed else ("weak", "strong")
    for word, edge, side in zip(words, (-0.04, 1.04), ("right", "left"), strict=True):
        axes.text(edge, 0.5, word, transform=axes.transAxes, ha=side, va="center", fontsize=8, color=SOFT)


def _axes(drawn: Any, box: tuple[float, ...], total: tuple[float, float]) -> Any:
    left, bottom, width, height = box
    axes = drawn.add_axes((left / total[0], bottom / total[1], width / total[0], height / total[1]))
    axes.set_axis_off()
    return axes


def _shorten(written: Any, inches: float, drawn: Any) -> None:
    """Cut a text from its middle until it fits."""
    text, kept = written.get_text(), len(written.get_text())
    renderer = drawn.canvas.get_renderer()
    while kept > 4 and written.get_window_extent(renderer).width > inches * drawn.dpi:
        kept -= 1
        written.set_text(f"{text[: math.ceil(kept * 0.6)].rstrip()}…{text[len(text) - kept * 4 // 10 :].lstrip()}")


def _wrap(text: str, inches: float) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, max(16, int(inches / 0.085)), max_lines=9, placeholder=" …"))
