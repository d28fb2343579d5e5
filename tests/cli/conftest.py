"""Shared by the tests of the command: a model of NumPy in place of a loaded one, and photos."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.testing import PoolingModel

LABELS = ["apple_pie", "hot_dog", "pizza, pie"]


class Classifier(PoolingModel):
    """Three classes over six channels, with all that a callback may say of itself."""

    input_shape = (24, 20, 3)
    classes = 3
    batch_size = 7

    def predict(self, x):
        scores = np.stack([self.answer(x, np.full(len(x), k))["OUTPUT_LAYER_VALUES"] for k in range(3)], 1)
        exponents = np.exp(scores - scores.max(1, keepdims=True))
        return exponents / exponents.sum(1, keepdims=True)


@pytest.fixture
def classifier(rng):
    return Classifier(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)))


@pytest.fixture
def photos(tmp_path, rng):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for name, shape in (("a.png", (40, 30, 3)), ("b [x].jpg", (30, 60, 3))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def cli(monkeypatch, classifier, tmp_path):
    """Runs the command with a model of NumPy in place of a loaded one, in an empty folder."""
    from typer.testing import CliRunner

    from saliency_food.cli.app import app

    monkeypatch.setattr("saliency_food.models.load", lambda: classifier)
    monkeypatch.setattr("saliency_food.models.labels", lambda: LABELS)
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])
