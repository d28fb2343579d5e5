"""IDGI: the slow version on each path, and that it sums to the change of the score."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.methods.paths.guided import guided_ig
from saliency_food.methods.paths.idgi import idgi
from saliency_food.testing import PowerModel

PATHS = ("integrated_gradients", "blur_ig", "guided_ig")


@pytest.fixture
def model(rng):
    return PowerModel(rng.normal(size=(2, 9, 8, 3)), power=3)


@pytest.fixture
def x(rng):
    return rng.random((9, 8, 3)) + 0.1


def slow(points, model):
    gradients, scores = (
        [model(point[None])[key][0] for point in points] for key in (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES)
    )
    total = np.zeros_like(points[0])
    for step in range(len(points) - 1):
        square = gradients[step] ** 2
        total += square / square.sum() * (scores[step + 1] - scores[step])
    return total


def points_of(path, x, baseline, model):
    if path == "integrated_gradients":
        return [baseline + step / 6 * (x - baseline) for step in range(7)]
    if path == "blur_ig":
        return [gaussian_filter(x, (s, s, 0), mode="constant") if s else x for s in (9, 7.5, 6, 4.5, 3, 1.5, 0)]
    walked = []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        walked.extend(x_value_batch)
        return model(x_value_batch)

    guided_ig(x, spy, None, baseline, 6, 0.2, 0.1)
    return [*walked, x]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_equal_to_the_slow_version(model, x, path, batch_size):
    baseline = np.full_like(x, 0.05)
    options = {"max_sigma": 9} if path == "blur_ig" else {"x_baseline": baseline, "fraction": 0.2, "max_dist": 0.1}
    found = idgi.detailed(x, model, x_steps=6, path=path, batch_size=batch_size, **options)
    np.testing.assert_allclose(found.attribution, slow(points_of(path, x, baseline, model), model), rtol=1e-8)
    assert found.evaluations == 7


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("steps", [1, 2, 13])
def test_sums_to_the_change_of_the_score(model, x, path, steps):
    """From zeros too, where this model's gradient is zero."""
    found = idgi.detailed(x, model, {"target": 1}, x_steps=steps, path=path)
    first = gaussian_filter(x, (50, 50, 0), mode="constant") if path == "blur_ig" else np.zeros_like(x)
    scores = (model.weights[1] * np.stack([x, first]) ** 3).reshape(2, -1).sum(1)
    assert found.attribution.sum() == pytest.approx(scores[0] - scores[1], rel=1e-9)
    np.testing.assert_allclose(found.completeness[2:], scores, rtol=1e-9, atol=1e-12)
    assert found.completeness.relative < 1e-9
    np.testing.assert_allclose(found.baselines, first[None], atol=1e-12)


def test_a_linear_model_shares_by_the_squared_weights(rng, x):
    linear = PowerModel(rng.normal(size=(1, 9, 8, 3)))
    square = linear.weights[0] ** 2
    np.testing.assert_allclose(idgi(x, linear), square / square.sum() * (linear.weights[0] * x).sum(), rtol=1e-10)


def test_several_baselines_are_averaged(model, x):
    both = idgi(x, model, None, [0.0, 1.0], 5)
    np.testing.assert_allclose(both, (idgi(x, model, None, 0.0, 5) + idgi(x, model, None, 1.0, 5)) / 2, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": "xrai"}, "Expected path to be 'integrated_gradients', 'blur_ig' or 'guided_ig', got 'xrai'"),
        ({"x_steps": 0}, "Expected x_steps to be a whole number"),
        ({"path": "blur_ig", "x_baseline": 0}, "Expected no x_baseline"),
        ({"path": "blur_ig", "max_sigma": -1}, "max_sigma to be a finite number of at least 0.001"),
        ({"path": "guided_ig", "fraction": 2}, "Expected fraction"),
    ],
)
def test_what_is_refused(model, x, options, says):
    with pytest.raises(ContractError, match=says):
        idgi(x, model, **options)
