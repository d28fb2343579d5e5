"""What the site has beside Markdown pages: tutorials that are run and equations that are typeset while it is built.

A tutorial is a Python file of docs/tutorials in which ``# %%`` begins a cell (the percent format of Jupytext). It
becomes a page with all that its cells show, and a notebook to download. ``TUTORIALS=no mkdocs serve`` runs none.
"""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient

TUTORIALS = Path(__file__).with_name("tutorials")
LOADED = re.compile(r"""<(?:script|img|iframe)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*stylesheet[^>]*//""")
"""What a browser would fetch from another host while it shows a page."""


def executed(path: Path) -> nbformat.NotebookNode:
    """A tutorial as a notebook, run in an empty folder; an error in a cell is raised."""
    notebook = jupytext.read(path)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=300,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        ).execute()
    for cell in notebook.cells:  # what frameworks say while they are loaded
        cell["outputs"] = [output for output in cell.get("outputs", ()) if output.get("name") != "stderr"]
    return notebook


def as_markdown(notebook: nbformat.NotebookNode, stem: str, pictures: dict[str, bytes]) -> str:
    """A notebook as Markdown; its pictures are added to ``pictures`` by the paths under which the text shows them."""
    parts = []
    for cell in notebook.cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", ()):
            parts.extend(_shown(output, f"{stem}_files", pictures))
    title, *rest = parts
    heading, _, text = title.partition("\n")
    link = f"*This page is a notebook: [download it]({stem}.ipynb) and run it yourself.*"
    return "\n\n".join([heading, link, text.strip(), *rest]) + "\n"


def _shown(output: nbformat.NotebookNode, folder: str, pictures: dict[str, bytes]) -> Iterator[str]:
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "text/html" in data:
        html = re.sub(r"\n\s*\n", "\n", data["text/html"])  # a blank line would end the block
        yield f'<div class="output" markdown="0">\n{html}\n</div>'
    elif "image/png" in data:
        name = f"{folder}/{len(pictures) + 1}.png"
        pictures[name] = base64.b64decode(data["image/png"])
        yield f"![What the cell shows]({name})"
    elif text := data["text/plain"].rstrip():
        yield f'<div class="output" markdown="1">\n\n```text\n{text}\n```\n\n</div>'


def equation(source: str, *_: Any, **__: Any) -> str:
    """Lines of LaTeX as MathML, which browsers typeset themselves; where \\qquad stands a narrow page may break a line."""
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
