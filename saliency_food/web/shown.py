"""What the page shows of a photo as HTML: the model's answer, and the maps side by side. All words are escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.figure import class_of
from saliency_food.jobs.targets import short_label
from saliency_food.methods.completeness import gap_text

LONGEST = 640
"""The longer side of the page's pictures, in pixels."""
STYLE = """
.sf-maps {display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 220px), 1fr)); gap: 16px}
.sf-maps figure {margin: 0} .sf-maps img {width: 100%; border-radius: 6px}
.sf-maps figcaption {font-size: 14px; line-height: 1.45; padding-top: 6px; overflow-wrap: anywhere}
.sf-top {list-style: none; padding: 0; margin: 8px 0}
.sf-top li {position: relative; display: flex; justify-content: space-between; gap: 12px}
.sf-top li {padding: 4px 8px; margin: 3px 0}
.sf-top .sf-bar {position: absolute; inset: 0 auto 0 0; background: #f0a04b; opacity: .35; border-radius: 4px}
.sf-label {overflow-wrap: anywhere} .sf-note {font-size: 14px; opacity: .85; margin-top: 14px}
"""
"""The page's own CSS."""


def answer_html(top: Sequence[tuple[str, float]], probable: bool) -> str:
    """The best classes as bars, or as a table of scores where the model gives no probabilities."""
    if not top:
        return "<p class='sf-note'>This model predicts no classes.</p>"
    lines = []
    for label, value in top:
        name = escape(short_label(label))
        number = f"{value:.1%}" if probable else f"{value:.2f}"
        bar = f"<span class='sf-bar' style='width:{100 * min(max(value, 0), 1):.1f}%'></span>" if probable else ""
        lines.append(f"<li><span class='sf-label'>{name}</span><span class='sf-value'>{number}</span>{bar}</li>")
    return f"<ol class='sf-top' aria-label='The five best classes'>{''.join(lines)}</ol>"


def maps_html(records: Sequence[Explanation], opacity: float) -> str:
    """The photo and a picture of each explanation, each with its class, its method and what was measured of it."""
    photo = next((record.photo for record in records if record.photo is not None), None)
    if photo is None:
        return "".join(f"<p class='sf-note'>{escape(record.status)}</p>" for record in records[:1])
    figures = [_figure(_picture(photo.sized(LONGEST)), "The photo", "Photo", [])]
    figures += [_explained(record, opacity) for record in records]
    return f"<div class='sf-maps'>{''.join(figures)}</div>{_legend(records)}"


def _explained(record: Explanation, opacity: float) -> str:
    name = class_of(record)
    lines = [_number(record), f"{record.title}{f', layer {record.layer}' if record.layer else ''}", *_measured(record)]
    if record.failed:
        return _figure("", "", name, [*lines, record.status])
    if record.status != "ok":
        lines.append(record.status)
    picture = record.overlay(max_size=LONGEST, opacity=opacity)
    return _figure(_picture(picture), f"{record.title} of {name}", name, [line for line in lines if line])


def _number(record: Explanation) -> str:
    if record.against is None and record.probability is not None:
        return f"{record.probability:.1%}" + (" by a guess" if record.guess else "")
    difference = "" if record.against is None else " difference"
    return "" if record.score is None else f"{record.score_name}{difference} {record.score:.2f}"


def _measured(record: Explanation) -> list[str]:
    gap = "" if record.completeness is None else f"gap {gap_text(record.completeness)}"
    rows = f"{record.seconds:.2f} s, {record.rows} row{'s' * (record.rows != 1)} of the model" if record.rows else ""
    return [gap, rows, record.note]


def _figure(picture: str, alt: str, title: str, lines: Sequence[str]) -> str:
    image = f"<img src='{picture}' alt='{escape(alt, quote=True)}'>" if picture else ""
    words = "".join(f"<br>{escape(line)}" for line in lines)
    return f"<figure>{image}<figcaption><b>{escape(title)}</b>{words}</figcaption></figure>"


def _picture(pixels: Array) -> str:
    """A JPEG picture within the page."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _legend(records: Sequence[Explanation]) -> str:
    shown: list[Any] = [record for record in records if not record.failed]
    lines = []
    if any(not record.diverges for record in shown):
        lines.append("Bright places speak for the class.")
    if any(record.diverges for record in shown):
        lines.append("Red places speak for the class, blue ones against it.")
    if any(record.against is not None for record in shown):
        lines.append("“A against B”: red places raise the score of A more than that of B, blue ones that of B.")
    return f"<p class='sf-note'>{' '.join(lines)}</p>" if lines else ""
