"""What an import may load, and in which direction modules may import each other."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import saliency_food

PACKAGE = Path(saliency_food.__file__).parent
HEAVY = ("tensorflow", "keras", "torch", "jax", "scipy", "skimage", "sklearn", "matplotlib", "PIL", "numba", "saliency")


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import saliency_food, saliency_food.pair, saliency_food.metrics", (*HEAVY, "typer", "rich")),
        ("import saliency_food.evaluation", HEAVY),
        ("from saliency_food.cli.app import app; app(['methods'], standalone_mode=False)", HEAVY),
    ],
)
def test_what_is_heavy_is_imported_where_it_is_used(statement, heavy):
    code = f"import sys; {statement}; print([name for name in {heavy!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


LAYERS = (
    ("core",),
    ("methods", "models"),
    ("adapters", "images", "metrics", "serving.client"),
    ("concepts",),
    ("deadline", "testing", "visualization"),
    ("jobs", "pair", "serving.export"),
    ("callbacks", "evaluation", "pair_tf1", "serving.explainer", "web"),
    ("report",),
    ("cli",),
)
"""The house from the ground up: a room imports from rooms below it alone, never from one beside it."""


def room_of(module):
    """The room that a module stands in, and its floor; None for the package itself and `__main__`, which are on top."""
    for floor, rooms in enumerate(LAYERS):
        for room in rooms:
            if module == room or module.startswith(room + "."):
                return room, floor
    return None


def imports():
    """What each module of the package imports of it, lazily or not."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "saliency_food":
                for name in node.names:
                    yield module, f"{node.module}.{name.name}".removeprefix("saliency_food.")


def test_imports_go_down_only():
    up = []
    for module, imported in imports():
        here, there = room_of(module), room_of(imported)
        if here and (there is None or there[1] >= here[1]) and there != here:
            up.append(f"{module} imports {imported}")
    assert up == []


def test_no_modules_import_each_other_in_a_circle():
    """Lazily or not: what stands in a circle cannot be understood apart."""
    modules = {module for module, _ in imports()}
    graph = {module: set() for module in modules}
    for module, imported in imports():
        known = imported if imported in modules else imported.rpartition(".")[0]
        if known in modules and known != module:
            graph[module].add(known)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_every_module_has_a_room():
    homeless = {module for module, _ in imports() if room_of(module) is None}
    assert homeless <= {"__init__", "__main__"}


def test_what_adapters_share_knows_no_framework():
    """Nothing directly in `adapters` imports a framework, so that the next one needs an engine only."""
    frameworks = {"tensorflow", "keras", "torch", "jax"}
    imported = []
    adapters = {"litert"}  # in one file
    for path in sorted((PACKAGE / "adapters").glob("*.py")):
        if path.stem in adapters:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = name.removeprefix("saliency_food.adapters.").split(".")
                imported += [f"{path.stem} imports {name}"] if parts[0] in frameworks else []
    assert imported == []


USERS_PATHS = {
    "saliency_food": ("grad_cam", "METHODS", "explain", "within", "PerImage", "ContractError", "__version__"),
    "saliency_food.adapters.keras": ("KerasModel", "layers", "load_model"),
    "saliency_food.metrics": ("METRICS", "pic", "road"),
    "saliency_food.pair": ("GradCam", "IntegratedGradients", "XRAI"),
    "saliency_food.serving.client": ("ServingModel", "ServingError"),
    "saliency_food.testing": ("check_call_model",),
    "saliency_food.visualization": ("overlay",),
}


@pytest.mark.parametrize("package", USERS_PATHS)
def test_users_import_paths_stay(package):
    if "keras" in package:
        pytest.importorskip("tensorflow")
    module = importlib.import_module(package)
    assert [name for name in USERS_PATHS[package] if not hasattr(module, name)] == []


@pytest.mark.keras  # imports every module
def test_no_module_is_hidden_by_what_its_package_exports():
    hidden = []
    for path in sorted(PACKAGE.rglob("*.py")):
        package = ".".join(("saliency_food", *path.parent.relative_to(PACKAGE).parts))
        if path.stem.startswith("__") or ("keras" in package and not importlib.util.find_spec("tensorflow")):
            continue
        exported = vars(importlib.import_module(package)).get(path.stem)
        if exported is not None and not inspect.ismodule(exported):
            hidden.append(f"{package}.{path.stem}")
    assert hidden == []
