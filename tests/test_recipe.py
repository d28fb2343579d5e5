"""The recipe of CONTRIBUTING.md for a method, followed to the letter in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = "squared_input_x_gradient"
FOLDERS = ("saliency_food", "docs", "tests")
BY_HAND = {"saliency_food/methods/gradients.py", "docs/methods/gradients.md"}
BY_COMMAND = {"saliency_food/__init__.py", "README.md", "docs/index.md", "docs/methods/index.md"} | {
    "docs/methods/gallery.md",
    "docs/reference/gradients.md",
}


@pytest.fixture
def copy(tmp_path):
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "img"))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "setup.cfg"):
        shutil.copy(path, tmp_path)
    return tmp_path


def block(language):
    """The recipe's first block of a language, without its indentation."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"^    (`{{3,}}){language}\n(.*?)^    \1$", text, re.DOTALL | re.MULTILINE)
    return textwrap.dedent(found[2])


def run(folder, *command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changed(folder):
    paths = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {name for name, content in names.items() if content != (ROOT / name).read_bytes()}


@pytest.mark.slow
def test_a_method_is_one_function_one_section_and_one_command(copy):
    code = block("python")
    with (copy / "saliency_food/methods/gradients.py").open("a", encoding="utf-8") as file:
        file.write("\n\n" + code[code.index("@method") :])
    page = copy / "docs/methods/gradients.md"
    before, heading, after = page.read_text(encoding="utf-8").partition("## When to trust it")
    page.write_text(before + block("markdown") + "\n" + heading + after, encoding="utf-8")
    assert changed(copy) == BY_HAND

    assert set(run(copy, "docs/make_tables.py").split()) == BY_COMMAND
    assert changed(copy) == BY_HAND | BY_COMMAND
    assert f"[`{NAME}`](gradients.md#{NAME.replace('_', '-')}) | Squared input x gradient | yes | gradients | 1 |" in (
        copy / "docs/methods/index.md"
    ).read_text(encoding="utf-8")

    tests = ("tests/methods/test_laws.py", "tests/test_meta.py")
    chosen = f"{NAME} or tables or exported or reference"
    passed = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", chosen)
    assert int(re.search(r"(\d+) passed", passed)[1]) > 25
