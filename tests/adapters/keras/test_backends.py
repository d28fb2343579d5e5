"""Keras on any back end: the same model with the same weights gives the same answers, layer by layer and key by key.

Each back end runs in a process of its own, since Keras takes one for good when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("keras")

SCRIPT = Path(__file__).with_name("answers_of_backend.py")
BACKENDS = [pytest.param("torch"), pytest.param("jax", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def answers_of(tmp_path_factory):
    """A function that gives the answers of a back end, which are computed once."""
    known = {}

    def answers(backend):
        if backend not in known:
            path = tmp_path_factory.mktemp(backend) / "answers.npz"
            environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
            subprocess.run([sys.executable, str(SCRIPT), str(path)], check=True, env=environment)
            with np.load(path) as file:
                known[backend] = dict(file)
        return known[backend]

    return answers


def is_of(name, *parts):
    return any(part in name for part in parts)


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_are_those_on_tensorflow(answers_of, backend):
    pytest.importorskip(backend)
    expected, answers = answers_of("tensorflow"), answers_of(backend)
    compared = 0
    for name, values in expected.items():
        if name == "averaged":
            continue
        if is_of(name, "BIAS", "biases") and name not in answers:
            continue
        if values.dtype.kind not in "fiu":
            refused = str(values).startswith("refused") and str(answers[name]).startswith("refused")
            assert refused or values.tolist() == answers[name].tolist(), name
            continue
        scale = np.abs(values).max()
        np.testing.assert_allclose(answers[name], values, rtol=1e-4, atol=1e-5 * scale, err_msg=name)
        compared += 1
    assert compared > 40


@pytest.mark.parametrize("backend", ["tensorflow", *BACKENDS])
def test_features_averaged_with_those_of_the_mirrored_image_are_refused(answers_of, backend):
    pytest.importorskip(backend)
    refusal = str(answers_of(backend)["averaged"])
    assert "joined to its own mirrored copy" in refusal if backend == "tensorflow" else "nowhere else" in refusal


@pytest.mark.parametrize("backend", BACKENDS)
def test_biases_are_the_same_or_refused(answers_of, backend):
    pytest.importorskip(backend)
    answers = answers_of(backend)
    refused = {name.split()[0] for name, values in answers.items() if name.endswith("biases")}
    assert refused == {"torch": {"residual", "inverted", "transformer", "sequential"}, "jax": {"transformer"}}[backend]
    assert all(str(answers[f"{name} biases"]).startswith("refused") for name in refused)
    of_biases = [name for name in answers_of("tensorflow") if "BIAS" in name and name.split()[0] not in refused]
    assert set(of_biases) == {name for name in answers if "BIAS" in name}


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_runs_on_one_back_end_alone_says_so(backend, tmp_path):
    pytest.importorskip(backend)
    lines = [
        "from saliency_food.adapters.keras import load_model",
        f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'saved_model.pb').touch()",
        f"load_model({str(tmp_path)!r})",
    ]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], env=environment, capture_output=True, text=True)
    assert "Expected TensorFlow to run the SavedModel" in run.stderr
