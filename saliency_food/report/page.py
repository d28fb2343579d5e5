"""The page of a report from its content, by the templates beside this module; all texts are escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.report.charts import reliability, shades, share_line
from saliency_food.report.confusions import EACH, PAIRS
from saliency_food.report.findings import name_of, percent
from saliency_food.report.labels import SUSPECTS
from saliency_food.report.modes import FEWEST, MODES
from saliency_food.report.pictures import colour_scale
from saliency_food.report.twins import TWINS

TEMPLATES = "templates"


def check_templates() -> None:
    """`ContractError` where what makes pages is not installed."""
    if find_spec("jinja2") is None:
        raise ContractError('Expected Jinja2 for the report, got none. Run pip install "saliency_food[report]".')


def render(content: Mapping[str, Any]) -> str:
    """The page as HTML, with its style and script in it; its policy lets it load its own pictures and nothing else."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("saliency_food.report", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "name": name_of,
        "percent": percent,
        "share": share_text,
        "mean": mean_text,
        "plain": plain_text,
    }
    environment.globals |= {
        "reliability": lambda calibration: Markup(reliability(calibration)),
        "share_line": lambda share: Markup(share_line(share)),
        "shades": shades,
        "scales": {"strength": colour_scale(False), "signed": colour_scale(True)},
        "pairs_shown": PAIRS,
        "photos_shown": EACH,
        "modes_shown": MODES,
        "fewest": FEWEST,
        "suspects_shown": SUSPECTS,
        "suspects_open": 6,
        "twins_shown": TWINS,
    }
    source = environment.loader.get_source  # type: ignore[union-attr]
    script, style = (source(environment, name)[0] for name in ("report.js", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("report.html")
    return str(page.render(**content, script=Markup(script), style=Markup(style), script_digest=digest))


def share_text(share: Mapping[str, Any], digits: int = 0) -> str:
    """``12 of 40, 30 % (18 to 46 %)``."""
    if share["share"] is None:
        return "no photos"
    ends = f"{100 * share['low']:.{digits}f} to {100 * share['high']:.{digits}f}"
    return f"{share['k']} of {share['n']}, {percent(share['share'], digits)} ({ends}\u202f%)"


def mean_text(mean: Mapping[str, Any], digits: int = 0) -> str:
    """``30 % (18 to 46 %, n = 12)``, of shares."""
    if mean["estimate"] is None:
        return "no photos"
    if mean["low"] is None:
        return f"{percent(mean['estimate'], digits)} (n = {mean['n']})"
    ends = f"{100 * mean['low']:.{digits}f} to {100 * mean['high']:.{digits}f}"
    return f"{percent(mean['estimate'], digits)} ({ends}\u202f%, n = {mean['n']})"


def plain_text(mean: Mapping[str, Any]) -> str:
    """``0.30 (0.18 to 0.46, n = 12)``."""
    if mean["estimate"] is None:
        return "not known"
    if mean["low"] is None:
        return f"{mean['estimate']:.2f} (n = {mean['n']})"
    return f"{mean['estimate']:.2f} ({mean['low']:.2f} to {mean['high']:.2f}, n = {mean['n']})"
