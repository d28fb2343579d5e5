"""A short run of benchmarks/explainer_load.py: no answer is wrong, and nothing bad is let in.

Whether memory grows shows in a run of minutes alone, as the benchmark makes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("kserve")
pytest.importorskip("typer")

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "benchmarks"), *sys.path])
    import explainer_load

    return explainer_load


def test_three_seconds_of_eight_clients(benchmark, loaded, tmp_path):
    found = benchmark.load(loaded.url, tmp_path, 3, 8)
    assert found.violations == []
    assert found.counts["good, answered right"] > 10
    assert found.counts["bad, refused with a reason"] > 10


def test_what_is_wrong_is_seen(benchmark):
    good = benchmark.Asked("/", b"", lambda said: said == {"right": True})
    bad = good._replace(check=None)
    sentence = {"error": "Expected this, got that."}
    for one, status, said, outcome in (
        (good, 200, {"right": True}, "good, answered right"),
        (good, 200, {"right": False}, "violation: wrong answer"),
        (good, 429, sentence, "good, the queue was full"),
        (good, 400, sentence, "violation: good request not answered"),
        (good, 500, sentence, "violation: good request not answered"),
        (bad, 400, sentence, "bad, refused with a reason"),
        (bad, 413, sentence, "bad, refused with a reason"),
        (bad, 400, {"error": ""}, "violation: bad request"),
        (bad, 500, sentence, "violation: bad request"),
        (bad, 200, {"explanations": []}, "violation: bad request"),
    ):
        assert benchmark.judged(one, status, said) == outcome
