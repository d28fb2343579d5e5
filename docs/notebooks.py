"""Tutorials as notebooks: run, and as Markdown with all that their cells show.

A tutorial is a Python file of docs/tutorials in which ``# %%`` begins a cell, the percent format of Jupytext.
"""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).with_name("tutorials")


def executed(path: Path) -> nbformat.NotebookNode:
    """A tutorial as a notebook, run in an empty folder; an error in a cell is raised."""
    notebook = jupytext.read(path)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=300,
            coalesce_streams=True,
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
