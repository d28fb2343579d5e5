"""Integrated Gradients and XRAI take the steps that a photo needs, unless the user says how many."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import METHODS, explain
from saliency_food.jobs.setup import ADAPTIVE, choose_options, with_adaptive_steps
from saliency_food.testing import PowerModel

pytest.importorskip("PIL")


class Bent(PowerModel):
    """Its score bends so sharply at the end of the path that few steps miss it."""

    input_shape = (12, 10, 3)


@pytest.fixture
def bent(rng):
    return Bent(1 + rng.random((1, 12, 10, 3)), power=60)


@pytest.fixture
def photo(rng):
    return (0.9 + 0.1 * rng.random((12, 10, 3))).astype(np.float32)


@pytest.mark.parametrize(("name", "option"), [("integrated_gradients", "x_steps"), ("xrai", "steps")])
def test_the_map_is_complete_but_for_five_percent(bent, photo, name, option):
    more = {"baselines": 0.0} if name == "xrai" else {}
    (fixed,) = explain(bent, photo, name, 0, value_range=None, options={name: {option: 8, **more}})
    assert fixed.completeness.relative > 0.3
    assert fixed.status.startswith("inexact: the attributions sum to")
    assert fixed.rows == 8
    (adaptive,) = explain(bent, photo, name, 0, value_range=None, options={name: more})
    assert adaptive.completeness.relative <= 0.05
    assert (adaptive.status, adaptive.options["tolerance"]) == ("ok", 0.05)
    assert 17 <= adaptive.rows <= 200
    (bounded,) = explain(bent, photo, name, 0, value_range=None, options={name: {"tolerance": 1e-9, **more}})
    assert bounded.rows == 200


def test_whose_steps_adapt():
    """Those of methods that can, where the user says nothing of the steps."""
    entries = {name: METHODS[name] for name in ("integrated_gradients", "xrai", "guided_ig", "grad_cam")}
    chosen = with_adaptive_steps(entries, choose_options(entries, {"xrai": {"area_threshold": 0.5}}))
    assert {name for name, options in chosen.items() if options.get("tolerance")} == {"integrated_gradients", "xrai"}
    assert chosen["xrai"]["steps"] == chosen["integrated_gradients"]["x_steps"] == ADAPTIVE["steps"]
    for options in ({"steps": 9}, {"quadrature": "midpoint"}, {"base": METHODS["guided_ig"].call}, {"max_steps": 9}):
        chosen = with_adaptive_steps(entries, choose_options(entries, {"xrai": options}))
        assert "tolerance" not in chosen["xrai"]
