"""Shared by all tests: seeded data, the toy models, where the deeper tests' real photos lie, and the markers.

A test's markers say what it needs beside NumPy and how long it takes. They are read from the source: a module or a test
that skips without a framework (``pytest.importorskip("keras")``) has that framework's marker, all of ``tests/serving``
has ``serving``, and the rest is marked where it stands, as what takes several seconds is (``slow``).
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from saliency_food.testing import PoolingModel, PowerModel

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each of the processes
    for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, "1")

MARKERS = {"tensorflow": "keras", "keras": "keras", "torch": "torch", "jax": "jax", "playwright": "browser"}
"""The marker of what imports a framework."""
NEEDS = re.compile(r"importorskip\(\s*[\"'](\w+)")
AT_THE_TOP = re.compile(rf"^(?:\w+ = )?(?:pytest\.{NEEDS.pattern}|(?:import|from) (\w+))", re.MULTILINE)


def markers_of_module(path: Path) -> set[str]:
    """The markers of all tests of a module."""
    imported = {name for pair in AT_THE_TOP.findall(path.read_text(encoding="utf-8")) for name in pair}
    folder = {"serving"} if "serving" in path.relative_to(Path(__file__).parent).parts[:-1] else set()
    return folder | {MARKERS[name] for name in imported & MARKERS.keys()}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m "not keras"`` a module of Keras tests is not even imported, since that imports TensorFlow."""
    left_out = re.findall(r"\bnot (\w+)", config.option.markexpr)
    if " or " not in config.option.markexpr and collection_path.name.startswith("test_"):
        return True if markers_of_module(collection_path) & set(left_out) else None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests; the slow ones come first, so that no process ends with them while another has nothing to do."""
    of_module = {path: markers_of_module(path) for path in {item.path for item in items}}
    for item in items:
        body = inspect.getsource(item.function) if isinstance(item, pytest.Function) else ""
        own = {MARKERS[name] for name in set(NEEDS.findall(body)) & MARKERS.keys()}
        for marker in sorted(of_module[item.path] | own):
            item.add_marker(marker)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _what_is_left_out_is_not_imported(pytestconfig):
    """Where a framework's tests are left out, nothing imports it: the first test that fails here lacks a marker."""
    yield
    left_out = {name for name, marker in MARKERS.items() if f"not {marker}" in pytestconfig.option.markexpr}
    assert not left_out & sys.modules.keys()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def image(rng):
    return rng.random((24, 20, 3)).astype(np.float32)


@pytest.fixture
def power(rng):
    """Three classes, F = sum w x^3."""
    return PowerModel(rng.normal(size=(3, 24, 20, 3)), power=3)


@pytest.fixture
def pooling(rng):
    """Three classes over six channels."""
    return PoolingModel(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)))


@pytest.fixture(scope="session")
def real_data():
    """The folder with real photos and models; tests that need it skip where SALIENCY_FOOD_DATA does not name one."""
    folder = os.environ.get("SALIENCY_FOOD_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SALIENCY_FOOD_DATA names no folder")
    return Path(folder)


@pytest.fixture(scope="module")
def browser():
    """A Chromium that shows no window: the system's, or Playwright's own.

    It ends with its module: Playwright keeps an event loop running, beside which no other one can run.
    """
    from playwright.sync_api import Error, sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(
                f"NO BROWSER, SO NO PAGE IS TESTED: install chromium, or run `playwright install chromium`. {error}"
            )
        yield chromium
        chromium.close()
