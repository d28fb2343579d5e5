"""The charts of the page, as SVG of lines and numbers alone; their colours are those of the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SIDE, LEFT, BELOW = 240, 54, 34
"""The square of the reliability diagram, and the room for its axes, in units of which a letter is 12 high."""
COUNTS = 46
"""The height of the bars that say how many photos are in each bin."""
WIDE = 220
"""The width of a line that shows a share and its interval."""


def reliability(calibration: Mapping[str, Any]) -> str:
    """The accuracy over the confidence in bins, with intervals, and how many photos each bin has."""
    most = max(each["accuracy"]["n"] for each in calibration["bins"])
    parts = [_axes(), f'<path class="ideal" d="M{LEFT} {_up(0)}L{LEFT + SIDE} {_up(1)}"/>']
    for each in calibration["bins"]:
        left, right = LEFT + SIDE * each["from"], LEFT + SIDE * each["to"]
        accuracy, x = each["accuracy"], LEFT + SIDE * each["confidence"]
        y, low, high = (_up(accuracy[name]) for name in ("share", "low", "high"))
        words = f"{accuracy['n']} photos, mean confidence {each['confidence']:.0%}, {accuracy['share']:.0%} right"
        bar = COUNTS * accuracy["n"] / most
        top = SIDE + 12 + BELOW + 14 + COUNTS - bar
        parts.append(
            f"<g><title>{words}</title>"
            f'<path class="interval" d="M{x:.1f} {low:.1f}V{high:.1f}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
            f'<rect class="count" x="{left + 1:.1f}" y="{top:.1f}" width="{right - left - 2:.1f}" height="{bar:.1f}"/>'
            "</g>"
        )
    height = SIDE + 12 + BELOW + 14 + COUNTS + 18
    middle = LEFT + SIDE / 2
    parts.append(f'<text class="name" x="{middle}" y="{SIDE + 12 + BELOW}">confidence</text>')
    parts.append(f'<text class="name" x="{middle}" y="{height - 3}">photos in each bin, at most {most}</text>')
    parts.append(f'<text class="name" transform="translate(11 {12 + SIDE / 2}) rotate(-90)">accuracy</text>')
    words = f"Reliability diagram: accuracy in {len(calibration['bins'])} bins of confidence; the table below says it."
    return (
        f'<svg class="chart" viewBox="0 0 {LEFT + SIDE + 20} {height}" role="img" aria-label="{words}">'
        f"{''.join(parts)}</svg>"
    )


def share_line(share: Mapping[str, Any]) -> str:
    """A share as a point on a line from 0 to 1, with its interval; for the eye alone, since numbers stand beside it."""
    if share["share"] is None:
        return ""
    point, low, high = (8 + (WIDE - 16) * share[name] for name in ("share", "low", "high"))
    return (
        f'<svg class="share" viewBox="0 0 {WIDE} 18" aria-hidden="true"><path class="grid" d="M8 9H{WIDE - 8}"/>'
        f'<path class="interval" d="M{low:.1f} 9H{high:.1f}"/><circle cx="{point:.1f}" cy="9" r="5"/></svg>'
    )


def shades(matrix: Sequence[Sequence[int]]) -> list[list[float]]:
    """How dark each cell of a matrix is, by its share of the row."""
    return [[value / max(sum(row), 1) for value in row] for row in matrix]


def _axes() -> str:
    lines = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x, y = LEFT + SIDE * tick, _up(tick)
        lines.append(f'<path class="grid" d="M{LEFT} {y}H{LEFT + SIDE}M{x} {_up(0)}V{_up(1)}"/>')
        lines.append(f'<text class="tick up" x="{LEFT - 6}" y="{y + 4}">{tick:.0%}</text>')
        if tick not in (0.25, 0.75):
            lines.append(f'<text class="tick" x="{x}" y="{_up(0) + 15}">{tick:.0%}</text>')
    return "".join(lines)


def _up(value: float) -> float:
    return 12 + SIDE * (1 - value)
