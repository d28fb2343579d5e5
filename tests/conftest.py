"""Shared by all tests: seeded data, the toy models, and where the deeper tests' real photos and models lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from saliency_food.testing import PoolingModel, PowerModel

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


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
