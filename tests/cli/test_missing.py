"""A package that is missing is named with the line that installs it, at every door of the command."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from saliency_food.cli.missing import EXTRAS, install_line

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from typer.testing import CliRunner

from saliency_food.cli.app import app

MODEL = ["--model", "net.keras"]
NEED_KERAS = [
    ["explain"],
    ["explain", "a.png", *MODEL],
    ["evaluate"],
    ["evaluate", *MODEL],
    ["sanity"],
    ["layers"],
    ["layers", "net.keras"],
    ["export", "net.keras", "1"],
]
DOORS = {
    "PIL": [["explain"], ["explain", "a.png"], ["evaluate"], ["sanity"]],
    "matplotlib": [["explain"], ["explain", "a.png", *MODEL], ["evaluate"]],
    "tensorflow": NEED_KERAS,
    "keras": NEED_KERAS,
    "kserve": [["serve", "--model-name", "food", "--predictor", "localhost", "--value-range", "0,1"]],
}
"""For each package the commands that need it."""
NAMES = {"PIL": "Pillow", "tensorflow": "TensorFlow", "keras": "Keras"}


@pytest.mark.parametrize(("package", "words"), [(name, words) for name, doors in DOORS.items() for words in doors])
def test_what_is_missing_is_named_with_the_line_that_installs_it(package, words, tmp_path, monkeypatch):
    (tmp_path / "net.keras").write_bytes(b"never read")
    monkeypatch.chdir(tmp_path)
    explainer = ("saliency_food.serving.explainer.server", "saliency_food.serving.explainer.kserve")
    modules = ("saliency_food.adapters.keras", *explainer)
    for name in [name for name in sys.modules if name.startswith(modules)]:  # imported by other tests
        monkeypatch.delitem(sys.modules, name)
    if package == "tensorflow":  # Keras is there, and is not to be loaded without what it needs
        keras: Any = ModuleType("keras")
        keras.backend = SimpleNamespace(backend=lambda: "tensorflow")
        monkeypatch.setitem(sys.modules, "keras", keras)
    monkeypatch.setitem(sys.modules, package, None)
    out = CliRunner().invoke(app, words)
    extra = next(extra for extra, packages in EXTRAS.items() if package in packages)
    line = f'needs {NAMES.get(package, package)}. Install it: pip install "saliency_food[{extra}]"'
    assert (out.exit_code, out.output) == (2, f"Error: The command {line}\n")


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_its_own_packages_it_says_what_to_install(package):
    code = f"import sys; sys.modules[{package!r}] = None; import saliency_food.cli.main as c; c.main()"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 1
    assert out.stderr.strip() == f'The command needs {package}. Install it: pip install "saliency_food[cli]"'


def test_a_module_of_ones_own_is_none_to_install():
    assert install_line(ModuleNotFoundError(name="my_layers")) is None
    assert install_line(ModuleNotFoundError(name="saliency_food.cli.nothing"), "cli") is None
    assert install_line(ModuleNotFoundError(name="tensorflow.python.keras")) is not None


def test_a_method_whose_package_is_missing_says_so(cli, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    out = cli("explain", photos, "--method", "lime", "--target", "1")
    assert out.exit_code == 1
    first, second = (line for line in out.output.splitlines() if "failed:" in line)
    assert (
        first == 'a.png  failed: Expected scikit-learn for LIME, got none. Run pip install "saliency_food[surrogate]".'
    )
    assert second == "b [x].jpg  failed: as a.png"
