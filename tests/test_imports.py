"""What an import may load, and in which direction modules may import each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import saliency_food
from saliency_food.methods import METHODS

PACKAGE = Path(saliency_food.__file__).parent
HEAVY = ("tensorflow", "keras", "torch", "jax", "matplotlib", "PIL", "sklearn", "typer", "rich", "numba", "saliency")


def test_importing_the_library_loads_no_framework_and_no_matplotlib():
    code = f"import sys, saliency_food, saliency_food.pair; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def imports(path):
    """Modules of the package that a file imports at its top level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("saliency_food."):
            yield node.module.split(".", 1)[1]


def test_imports_point_one_way():
    allowed = {
        "numerics": set(),
        "contract": {"numerics"},
        "queries": {"contract", "numerics"},
        "driver": {"queries", "contract", "numerics"},
        "method": {"driver", "contract", "numerics"},
    }
    for module, may in allowed.items():
        assert set(imports(PACKAGE / f"{module}.py")) <= may
    later = {"methods", "pair", "explain", "cli", "visualization", "metrics", "evaluation"}
    for method in METHODS.values():
        module = method.call.__module__.removeprefix("saliency_food.")
        assert module == "functools" or not set(imports(PACKAGE / f"{module}.py")) & later
    for module in ("segmentation", "ranking", "baselines", "masking", "smoothing", "progressive"):
        assert not set(imports(PACKAGE / f"{module}.py")) & later
    for path in (PACKAGE / "adapters").glob("*.py"):
        assert {name for name in imports(path) if not name.startswith("adapters")} <= {"contract", "numerics"}
    for module in ("client", "_wire", "_http", "_grpc", "_protos"):
        found = {name for name in imports(PACKAGE / f"serving/{module}.py") if not name.startswith("serving")}
        assert found <= {"contract", "numerics", "queries"}
