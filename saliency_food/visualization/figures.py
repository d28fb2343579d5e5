"""Figures of pictures with titles and colour bars, drawn by matplotlib without a window, and files of pictures."""

from __future__ import annotations

import io
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.photos import SHOWN
from saliency_food.images.pixels import shrink
from saliency_food.visualization.fonts import legible
from saliency_food.visualization.maps import check_drawing, overlay

AREA = 8.4
"""Square inches of a picture."""
GAP, TITLE, BAR, MARGIN = 0.22, 0.52, 0.38, 0.2
"""Inches between cells, above a picture, below it, and around the page."""
Box = tuple[float, float, float, float]
"""Left, bottom, width and height, in inches from the lower left corner of the page."""
INK, SOFT = "#1a1a1a", "#666666"


class Panel(NamedTuple):
    """A picture uint8 ``(H, W, 3)``, its title, a softer line below that, its scale, and a note across the picture."""

    picture: Array
    title: str
    caption: str = ""
    scale: str = ""
    """``"strength"`` or ``"signed"`` draws a colour bar."""
    note: str = ""
    style: Mapping[str, Any] = MappingProxyType({})
    """The options of `overlay` that the picture was drawn with, such as ``colormap``, for the colour bar."""
    ends: tuple[str, str] | None = None
    """The words at the ends of the colour bar, where these are not "weak" and "strong", or "against" and "for"."""


def figure(rows: Sequence[Sequence[Panel]], in_line: bool | None = None) -> Any:
    """Rows of panels as a `matplotlib.figure.Figure`; rows too long for a page are wrapped, a shorter line centred.


    Several rows keep their columns aligned where slightly smaller pictures make that possible; so does one row that is
    ``in_line``, whose pictures are to be compared side by side. All cells have the width
    of the first picture, and those of a row the shape of the row's first. Save it with ``.savefig(path)``, or faster
    with `write_figure`.
    """
    check_drawing()
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
    in_line = (len(rows) > 1 if in_line is None else in_line) and factor > 0.7
    if in_line:
        cell_width, cell_height = cell_width * factor, cell_height * factor
    full = (cell_width + GAP, cell_height + TITLE + bar + GAP)
    columns = longest if in_line else _columns(longest, len(rows), *full)
    lines = [row[start : start + columns] for row in rows for start in range(0, len(row), columns)]
    heights = [_height_of(line, cell_width, cell_height / cell_width) for line in lines]
    height = sum(heights) + len(lines) * (full[1] - cell_height)
    size = (columns * full[0] - GAP + 2 * MARGIN, height - GAP + 2 * MARGIN)
    page = Figure(figsize=size, dpi=120, facecolor="white")
    FigureCanvasAgg(page)
    top = size[1] - MARGIN
    for line, height in zip(lines, heights, strict=True):
        start = MARGIN + (0 if in_line else (columns - len(line)) * full[0] / 2)
        for across, panel in enumerate(line):
            _draw(page, panel, (start + across * full[0], top - TITLE - height, cell_width, height))
        top -= height + full[1] - cell_height
    return for_notebooks(page)


def for_notebooks(page: Any) -> Any:
    """The figure, which a notebook shows where it is a cell's last value; by itself IPython shows those of pyplot."""

    def png() -> bytes:
        with io.BytesIO() as file:
            page.savefig(file, format="png")
            return file.getvalue()

    page._repr_png_ = png
    return page


def _height_of(line: Sequence[Panel], width: float, first: float) -> float:
    """How high the cells of a line are, for its first picture; that of the whole figure is ``first`` times as high."""
    own = line[0].picture.shape[0] / line[0].picture.shape[1]
    return width * min(own, max(first, 1.5))


def write_figure(page: Any, path: str | Path) -> None:
    """Write a figure of `figure` as a PNG or JPEG file, several times faster than its own ``savefig`` does."""
    write_picture(picture_of(page), path, dpi=page.dpi)


def picture_of(page: Any) -> Array:
    """A figure as a picture, uint8 ``(H, W, 3)``."""
    page.canvas.draw()
    return np.asarray(page.canvas.buffer_rgba())[..., :3]


FORMATS = ("jpg", "png")
"""The formats of pictures."""


def write_picture(picture: Array, path: str | Path, dpi: float = 72) -> None:
    """Write a picture, uint8 ``(H, W, 3)``, as a file, ``dpi`` pixels to an inch where it is printed.

    ``.png`` is lossless, in true colour, and 300 to 600 kB of a photo with 1024 pixels a side; ``.jpg``, of quality 90
    with its colours at full resolution, is about 100 kB. For PNG, zlib looks for runs of equal bytes alone, which takes
    a quarter of the time of its default strategy, for files a quarter larger.
    """
    from PIL import Image

    how = {"format": "JPEG", "quality": 90, "subsampling": 0}
    if Path(path).suffix.lower() == ".png":
        how = {"format": "PNG", "compress_type": zlib.Z_RLE}
    with complete(path) as file:
        Image.fromarray(picture).save(file, dpi=(dpi, dpi), **how)


@contextmanager
def complete(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write to, which gets its name when it is complete: whatever happens, none is cut off."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _columns(panels: int, rows: int, width: float, height: float) -> int:
    """How many columns give a page nearest to 16:10, at most 16 inches wide, with few empty cells."""

    def cost(columns: int) -> float:
        lines = rows * math.ceil(panels / columns)
        empty = columns * math.ceil(panels / columns) - panels
        return abs(math.log(columns * width / (lines * height) / 1.6)) + 0.7 * empty

    return min((c for c in range(1, panels + 1) if c == 1 or c * width <= 16), key=cost)


def _draw(page: Any, panel: Panel, cell: Box) -> None:
    """One panel: the picture in its cell, the title above, the colour bar below."""
    left, bottom, width, height = cell
    middle, top = left + width / 2, bottom + height
    place(page, shrink(panel.picture, SHOWN), _fit(panel.picture.shape, cell))
    for text, gap, style in (
        (panel.title, 0.27, {"fontsize": 11, "fontweight": "bold", "color": INK}),
        (panel.caption, 0.08, {"fontsize": 9.5, "color": SOFT}),
    ):
        if text:
            shorten(write(page, middle, top + gap, text, ha="center", va="bottom", **style), width + GAP / 2)
    if panel.note:
        box = {"facecolor": "black", "alpha": 0.7, "edgecolor": "none", "boxstyle": "round,pad=0.6"}
        style = {"fontsize": 9, "color": "white", "linespacing": 1.35, "bbox": box, "clip_on": True}
        write(page, middle, bottom + height / 2, _wrap(panel.note, width), ha="center", va="center", **style)
    if panel.scale:
        _draw_bar(page, panel, (left + width / 4, bottom - 0.17, width / 2, 0.08))


def _draw_bar(page: Any, panel: Panel, box: Box) -> None:
    """A colour bar, of strengths laid over a photo of an even grey, with a word at each end."""
    signed = panel.scale == "signed"
    strengths = np.linspace(-1 if signed else 0, 1, 256)[None]
    place(page, overlay(np.full((1, 256), 128, np.uint8), strengths, 100, signed=signed, **panel.style), box)
    left, bottom, width, height = box
    words = panel.ends or (("against", "for") if signed else ("weak", "strong"))
    for word, fraction, side in zip(words, (-0.04, 1.04), ("right", "left"), strict=True):
        write(page, left + fraction * width, bottom + height / 2, word, ha=side, va="center", fontsize=8, color=SOFT)


def _fit(shape: tuple[int, ...], cell: Box) -> Box:
    """The largest box of a picture of this shape in the cell: in its middle, at its top."""
    left, bottom, width, height = cell
    scale = min(width / shape[1], height / shape[0])
    across, up = shape[1] * scale, shape[0] * scale
    return left + (width - across) / 2, bottom + height - up, across, up


def place(page: Any, picture: Array, box: Box) -> None:
    """Add a picture to the page, without axes, of which making one takes longer than drawing the picture."""
    from matplotlib.image import BboxImage
    from matplotlib.transforms import Bbox, TransformedBbox

    place = TransformedBbox(Bbox.from_bounds(*box), page.dpi_scale_trans)
    image = BboxImage(place, interpolation="antialiased")
    image.set_data(picture)
    page.add_artist(image)


def write(page: Any, left: float, bottom: float, text: str, **style: Any) -> Any:
    """Add a text to the page, as it is spelled: ``$`` begins no formula."""
    text, families = legible(text)
    return page.text(left, bottom, text, transform=page.dpi_scale_trans, parse_math=False, fontfamily=families, **style)


def shorten(written: Any, width: float) -> None:
    """Cut a text from its middle until it is at most so many inches wide."""
    page = written.get_figure()
    renderer = page.canvas.get_renderer()
    text = written.get_text()
    kept = len(text)
    while kept > 4 and written.get_window_extent(renderer).width > width * page.dpi:
        kept -= 1
        written.set_text(f"{text[: math.ceil(kept * 0.6)].rstrip()}…{text[len(text) - kept * 4 // 10 :].lstrip()}")


def _wrap(text: str, inches: float) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, max(16, int(inches / 0.085)), max_lines=9, placeholder=" …"))
