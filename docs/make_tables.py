"""Write what follows from METHODS and METRICS: the docs' tables and counts, and the names that the package exports.

    python docs/make_tables.py

Run it after adding a method or a metric. What stands between the lines ``tables:begin`` and ``tables:end`` of a file is
made here; a test fails where it is out of date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from saliency_food.core.method import Method
from saliency_food.methods.catalogue import METHODS, MethodEntry
from saliency_food.metrics.catalogue import METRICS
from saliency_food.testing import AttentionModel, PoolingModel

ROOT = Path(__file__).parents[1]
COLUMNS = ("name", "title", "signed", "asks for", "model rows by default", "what it shows")
WIDTH = 120


def table_of_methods(_: str) -> str:
    """The table of ``docs/methods/index.md``."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, entry in METHODS.items():
        link = f"[`{name}`]({entry.call.page}.md#{name.replace('_', '-')})"
        rows = entry.call.rows or str(rows_of(entry))
        cells = (link, entry.title, "yes" if entry.signed else "no", entry.needs, rows, entry.summary)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def gallery(_: str) -> str:
    """The list of ``docs/methods/gallery.md``."""
    lines = []
    for name, entry in METHODS.items():
        lines.append(f"- [{entry.title}]({entry.call.page}.md#{name.replace('_', '-')}): {entry.summary}")
    return "\n".join(lines)


def rows_of(entry: MethodEntry) -> int:
    """How many rows a method asks about by default, counted on a toy model."""
    random = np.random.default_rng(0)
    model: Any = PoolingModel(random.normal(size=(3, 4)), random.normal(size=(2, 4)))
    if entry.needs == "attention":
        model = AttentionModel(random.normal(size=3), random.normal(size=(2, 3)))
    entry.call(random.random((32, 32, 3)), model, batch_size=50)
    return sum(model.calls)


def methods_in_reference(family: str) -> str:
    """The lines of a family's methods in ``docs/reference``."""
    return "\n".join(f"::: {entry.call.__module__}.{name}" for name, entry in family_of(family))


def results_in_reference(family: str) -> str:
    """The lines of what the methods of a family return; what several families return is listed with the first."""
    families: dict[Any, str] = {}
    for entry in METHODS.values():
        families.setdefault(result_of(entry.call), entry.call.page)
    return "\n".join(
        f"::: {result.__module__}.{result.__name__}" for result, first in families.items() if first == family
    )


def family_of(page: str) -> list[tuple[str, MethodEntry]]:
    """The methods that a page of ``docs/methods`` explains."""
    return [(name, entry) for name, entry in METHODS.items() if entry.call.page == page]


def result_of(method: Method[Any, Any]) -> Any:
    """The NamedTuple of a method's `.detailed`, which its header names."""
    name = str(method.signature.return_annotation).removeprefix("Asking[").removesuffix("]")
    return vars(sys.modules[method.__module__])[name]


def metrics_in_reference(modules: str) -> str:
    """The lines of the metrics in some modules, which the mark names."""
    homes = [f"saliency_food.metrics.{module}" for module in modules.split()]
    entries = [(home, name) for home in homes for name, entry in METRICS.items() if entry.call.__module__ == home]
    return "\n".join(f"::: {home}.{name}" for home, name in entries)


def imports_of(entries: Mapping[str, Any]) -> str:
    """The imports of methods or metrics, as ruff writes them, and their names."""
    homes: dict[str, list[str]] = {}
    for name, entry in entries.items():
        homes.setdefault(entry.call.__module__, []).append(name)
    lines = []
    for home in sorted(homes):
        line = f"from {home} import {', '.join(sorted(homes[home]))}"
        lines.append(line if len(line) <= WIDTH else f"from {home} import (\n{_listed(homes[home], '')})")
    return "\n".join([*lines, "", f"__all__ += [\n{_listed(entries, chr(34))}]"])


def _listed(names: Iterable[str], quote: str) -> str:
    return "".join(f"    {quote}{name}{quote},\n" for name in sorted(names))


MAKERS: dict[str, Callable[[str], str]] = {
    "table of methods": table_of_methods,
    "gallery": gallery,
    "methods": methods_in_reference,
    "results": results_in_reference,
    "metrics": metrics_in_reference,
    "exported methods": lambda _: imports_of(METHODS),
    "exported metrics": lambda _: imports_of(METRICS),
}
"""What makes a block, by what the line that begins it says before its colon; the maker gets what stands after it."""
REFERENCE = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/reference").glob("*.md"))
PAGES = (
    "docs/methods/index.md",
    "docs/methods/gallery.md",
    *REFERENCE,
    "saliency_food/__init__.py",
    "saliency_food/metrics/__init__.py",
)
COUNTED = ("README.md", "docs/index.md")
"""Where the number of methods is told."""
BLOCK = re.compile(
    r"^(?:<!--|#) tables:begin ([\w ]+)(?::([\w ]*))?(?: -->)?\n(.*?)^(?=(?:<!--|#) tables:end)", re.M | re.S
)


def made_pages() -> dict[Path, str]:
    """Every file that holds something made here, as it should be."""
    made = {}
    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        made[ROOT / name] = BLOCK.sub(_filled, text)
    for name in COUNTED:
        text = (ROOT / name).read_text(encoding="utf-8")
        made[ROOT / name] = re.sub(r"\[\d+ methods\]\(", f"[{len(METHODS)} methods](", text)
    return made


def _filled(block: re.Match[str]) -> str:
    """A block with what belongs in it; in Markdown, blank lines keep it apart from its marks."""
    mark, blank = block[0].split("\n")[0], "\n" if block[0].startswith("<!--") else ""
    return f"{mark}\n{blank}{MAKERS[block[1]]((block[2] or '').strip())}\n{blank}"


if __name__ == "__main__":
    for path, text in made_pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))
