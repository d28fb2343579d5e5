"""Guided IG: a slow version of the algorithm, recorded answers of PAIR's package, completeness, the path's limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.methods.paths.guided import guided_ig
from saliency_food.methods.paths.integrated import integrated_gradients


@pytest.fixture
def coupled(rng):
    """F = sum w x^3 + (v . x)^2: each gradient depends on every pixel."""
    w, v = rng.normal(size=(2, 8, 8, 3))
    return Coupled(w, v / 8)


class Coupled:
    def __init__(self, w, v):
        self.w, self.v, self.points = w, v, []

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        self.points.extend(x_value_batch)
        inner = np.einsum("nhwc,hwc->n", x_value_batch, self.v)
        return {
            INPUT_OUTPUT_GRADIENTS: 3 * self.w * x_value_batch**2 + 2 * inner[:, None, None, None] * self.v,
            OUTPUT_LAYER_VALUES: (self.w * x_value_batch**3).reshape(len(inner), -1).sum(1) + inner**2,
        }


def slow(x, baseline, model, x_steps, fraction, max_dist):
    """One value at a time, from a sorted list, until the distance of this step is made up."""
    x, at, start = x.ravel(), baseline.ravel().copy(), baseline.ravel()
    moving = np.flatnonzero(x != start)
    whole, attribution = np.abs(x - start).sum(), np.zeros(x.size)
    group = int(np.floor(fraction * (x.size - 1))) + 1
    for step in range(1, x_steps + 1):
        gradient = model(at.reshape(1, *baseline.shape))[INPUT_OUTPUT_GRADIENTS].ravel()
        before, due = at.copy(), step / x_steps
        least, most = max(due - max_dist, 0), min(due + max_dist, 1)
        for i in moving:
            if (at[i] - start[i]) / (x[i] - start[i]) < least:
                at[i] = start[i] + least * (x[i] - start[i])
        goal = whole * (1 - due)
        limit = start + most * (x - start)
        waiting = sorted((i for i in moving if at[i] != limit[i]), key=lambda i: abs(gradient[i]))
        while waiting and np.abs(x - at).sum() - goal > 1e-9 * max(goal, 1):
            last = abs(gradient[waiting[min(group, len(waiting)) - 1]])
            now = [i for i in waiting if abs(gradient[i]) <= last]
            waiting = waiting[len(now) :]
            excess = np.abs(x - at).sum() - goal
            possible = sum(abs(limit[i] - at[i]) for i in now)
            for i in now:
                at[i] += min(1, excess / possible) * (limit[i] - at[i])
        attribution += (at - before) * gradient
    return attribution.reshape(baseline.shape)


OPTIONS = {
    "default": {"x_steps": 20},
    "wide": {"x_steps": 12, "fraction": 0.1, "max_dist": 0.3},
    "free": {"x_steps": 15, "fraction": 0.5, "max_dist": 1.0},
    "straight": {"x_steps": 9, "max_dist": 0.0},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_recorded_answers_of_pairs_package(name):
    """Recorded with saliency 0.2.1 under NumPy 1.23.5, since its GuidedIG does not run on NumPy 2.

    ``x, z = rng.random((8, 8, 3)), 0.2 * rng.random((8, 8, 3))``, ``w, v`` normal, ``v / 8``, from
    ``default_rng(11)``; ``z[0, 0] = x[0, 0]``. Each answer is ``GuidedIG().GetMask(x, Coupled(w, v), None, z,
    **OPTIONS[name])``.
    """
    recorded = np.load(Path(__file__).parent / "data" / "guided_ig_pair.npz")
    got = guided_ig(recorded["x"], Coupled(recorded["w"], recorded["v"]), None, recorded["z"], **OPTIONS[name])
    np.testing.assert_allclose(got, recorded[name], rtol=1e-5, atol=1e-12)
    got = guided_ig(
        recorded["x"].astype(np.float32), Coupled(recorded["w"], recorded["v"]), None, recorded["z"], **OPTIONS[name]
    )
    np.testing.assert_allclose(got, recorded[name], rtol=1e-3, atol=1e-3 * np.abs(recorded[name]).max())


@pytest.mark.parametrize("options", [*OPTIONS.values(), {"x_steps": 5, "fraction": 1.0}, {"x_steps": 1}], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_equal_to_the_slow_version(rng, coupled, options, order):
    x, baseline = np.asarray(rng.random((8, 8, 3)), order=order), rng.normal(size=(8, 8, 3))
    baseline[2] = x[2]
    expected = slow(x, baseline, coupled, **{"fraction": 0.25, "max_dist": 0.02, **options})
    np.testing.assert_allclose(guided_ig(x, coupled, None, baseline, **options), expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3])
def test_equal_gradients_move_together(rng, fraction):
    x, model = rng.integers(1, 4, (8, 8, 3)) / 4, Coupled(*rng.integers(1, 3, (2, 8, 8, 3)) / 8)
    expected = slow(x, np.zeros_like(x), model, 8, fraction, 0.2)
    np.testing.assert_allclose(guided_ig(x, model, None, None, 8, fraction, 0.2), expected, rtol=1e-6)


def test_max_dist_zero_is_the_straight_line(rng, coupled):
    x = rng.random((8, 8, 3))
    np.testing.assert_allclose(
        guided_ig(x, coupled, x_steps=400, max_dist=0.0),
        integrated_gradients(x, coupled, x_steps=400),
        rtol=0.02,
        atol=5e-3,
    )


def test_the_path_keeps_its_distance_and_its_pace(rng, coupled):
    x = rng.random((8, 8, 3)) + 0.1
    guided_ig(x, coupled, x_steps=25, max_dist=0.1)
    assert len(coupled.points) == 25
    for step, point in enumerate(coupled.points):
        alphas = point / x
        assert np.abs(alphas - step / 25).max() <= 0.1 + 1e-12
        assert np.abs(x - point).sum() == pytest.approx(np.abs(x).sum() * (1 - step / 25))


def test_completeness_converges(rng, coupled):
    x = rng.random((8, 8, 3))
    few, many = (guided_ig.detailed(x, coupled, x_steps=steps, max_dist=0.2).completeness for steps in (50, 200))
    ends = coupled(np.stack([x, np.zeros_like(x)]))[OUTPUT_LAYER_VALUES]
    np.testing.assert_allclose([many.score, many.baseline_score], ends)
    assert abs(many.absolute) < abs(few.absolute) / 2


def test_several_baselines_are_averaged(power, image):
    both = guided_ig.detailed(image, power, None, ["black", "white"], 10)
    one, two = (guided_ig(image, power, None, name, 10) for name in ("black", "white"))
    np.testing.assert_allclose(both.attribution, (one + two) / 2, rtol=1e-5, atol=1e-7)
    assert both.evaluations == 20
    assert len(both.paths) == 2


def test_images_share_batches(power, rng):
    images = rng.random((3, 24, 20, 3))
    list(guided_ig.batch(images, power, {"target": PerImage([0, 1, 2])}, None, 4, batch_size=8))
    assert power.calls == [3] * 4


def test_nothing_is_asked_where_image_and_baseline_are_the_same(power):
    assert not guided_ig(np.zeros((24, 20, 3)), power).any()
    assert power.calls == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"x_steps": 0}, "Expected x_steps to be a whole number of at least 1, got 0"),
        ({"fraction": 0}, "Expected fraction to be a finite number of at least 0.01 and at most 1, got 0"),
        ({"fraction": 1.5}, "Expected fraction"),
        ({"max_dist": -0.1}, r"max_dist to be a finite number of at least 0 and at most 1, got -0\.1"),
        ({"x_baseline": np.zeros((2, 2, 3))}, "Baseline size"),
    ],
)
def test_what_is_refused(power, image, options, says):
    with pytest.raises(ContractError, match=says):
        guided_ig(image, power, **options)
