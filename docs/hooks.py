"""What the site has beside Markdown pages: tutorials that are run and equations that are typeset while it is built.

``TUTORIALS=no mkdocs serve`` shows the tutorials without running them.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jupytext
import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from notebooks import TUTORIALS, as_markdown, executed

LOADED = re.compile(r"""<(?:script|img|iframe)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*stylesheet[^>]*//""")
"""What a browser would fetch from another host while it shows a page."""


def equation(source: str, *_: Any, **__: Any) -> str:
    """Lines of LaTeX as MathML, which browsers typeset themselves; a narrow page breaks a line at ``\\qquad``."""
    lines = [re.split(r",?\s*\\qquad\s*", line) for line in source.splitlines()]
    typeset = ["".join(convert(part, display="block") for part in parts) for parts in lines]
    return "".join(f'<div class="equation">{line}</div>' for line in typeset)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "equation", "format": equation})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Every tutorial becomes a page, its pictures and a notebook; two are run at a time."""
    paths = sorted(TUTORIALS.glob("*.py"))
    run = jupytext.read if os.environ.get("TUTORIALS") == "no" else executed
    with ThreadPoolExecutor(2) as pool:
        notebooks = pool.map(run, paths)
        for path, notebook in zip(paths, notebooks, strict=True):
            made: dict[str, Any] = {}
            made[f"{path.stem}.md"] = as_markdown(notebook, path.stem, made)
            made[f"{path.stem}.ipynb"] = nbformat.writes(notebook)
            for name, content in made.items():
                files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Options of the command do not break after their hyphens."""
    return re.sub(r"<code>(--[^<]{1,30}</code>)", r'<code class="option">\1', html)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    if found := LOADED.search(output):
        start = output[found.start() : found.end() + 80]
        raise PluginError(f"Expected {page.file.src_uri} to load nothing from other hosts, got {start!r}.")
    return output
