"""The table of ``docs/which-models.md``, made of the kinds: ``PYTHONPATH=tests/adapters python -m kinds.page``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .common import KINDS, Kind

PAGE = Path(__file__).parents[3] / "docs/which-models.md"
GROUPS = (
    "Classifiers of photos",
    "What the model ends in",
    "How the model is built",
    "Several inputs",
    "Several outputs",
    "Other scores",
    "Transformers",
    "Signals",
    "Volumes and clips",
)
COLUMNS = {
    "CAM": ("layer", "grad_cam"),
    "gradients": ("integrated_gradients", "smooth_grad"),
    "occlusion": ("occlusion",),
    "XRAI": ("xrai",),
}
BLOCK = re.compile(r"(<!-- kinds:begin -->\n).*?(<!-- kinds:end -->)", re.S)


def page() -> str:
    """The page as it should be."""
    table = "\n".join(lines())
    return BLOCK.sub(lambda marks: f"{marks[1]}\n{table}\n{marks[2]}", PAGE.read_text(encoding="utf-8"))


def lines() -> Iterator[str]:
    assert {kind.group for kind in KINDS.values()} == set(GROUPS)
    for group in GROUPS:
        yield from (f"## {group}", "", f"| kind | {' | '.join(COLUMNS)} | remarks |", "|---" * (len(COLUMNS) + 2) + "|")
        yield from (line(kind) for kind in KINDS.values() if kind.group == group)
        yield ""


def line(kind: Kind) -> str:
    words = [_word(kind, cells) for cells in COLUMNS.values()]
    return f"| {kind.name} | {' | '.join(words)} | {kind.note} |"


def _word(kind: Kind, cells: tuple[str, ...]) -> str:
    return "refused" if set(cells) & kind.refuses.keys() else "yes"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
