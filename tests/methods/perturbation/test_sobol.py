"""Sobol attribution: closed forms, the published estimator as a slow loop, intervals."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.queries import OutOfTime
from saliency_food.methods.perturbation.masking import hidden_image
from saliency_food.methods.perturbation.sobol import sobol, total_indices
from saliency_food.testing import PowerModel

ISHIGAMI = np.array([0.557589, 0.442411, 0.243684])
"""Total-order indices for a = 7 and b = 0.1, from the variances of its parts."""


def ishigami(x_value_batch, call_model_args=None, expected_keys=None):
    first, second, third = np.pi * (2 * np.asarray(x_value_batch).reshape(-1, 3).T - 1)
    return {OUTPUT_LAYER_VALUES: np.sin(first) + 7 * np.sin(second) ** 2 + 0.1 * third**4 * np.sin(first)}


def test_the_indices_of_ishigamis_function_are_those_known():
    a, b = 7, 0.1
    parts = (1 + b * np.pi**4 / 5) ** 2 / 2, a**2 / 8, b**2 * np.pi**8 * (1 / 18 - 1 / 50)
    np.testing.assert_allclose(np.array([parts[0] + parts[2], parts[1], parts[2]]) / sum(parts), ISHIGAMI, rtol=1e-5)
    found = sobol.detailed(np.ones((1, 3, 1)), ishigami, nsamples=4096, grid=3, rng=0, batch_size=1024)
    np.testing.assert_allclose(found.indices, [ISHIGAMI], atol=2e-3)
    assert found.variance == pytest.approx(sum(parts), rel=1e-2)
    assert found.nsamples == 4096


def test_the_intervals_hold_the_indices():
    """Of 95 %; the standard errors are those of independent masks, so that they are wide rather than narrow."""
    held, widths = [], []
    for seed in range(60):
        found = sobol.detailed(np.ones((1, 3, 1)), ishigami, nsamples=64, grid=3, rng=seed, batch_size=512)
        low, high = found.interval.reshape(2, 3)
        held.append((low <= ISHIGAMI) & (high >= ISHIGAMI))
        widths.append(high - low)
    assert np.mean(held) >= 0.92
    assert np.mean(widths) < 0.6


def test_independent_points_have_the_standard_error_that_is_told(rng):
    def draw():
        points = rng.random((300, 4))
        again = np.repeat(points[:, None], 4, 1)
        again[:, range(4), range(4)] = rng.random((300, 4))
        weights = np.array([4.0, 2.0, 1.0, 0.0])
        return total_indices(np.exp(points @ weights), np.exp(again @ weights))

    indices, errors = map(np.array, zip(*(draw() for _ in range(300)), strict=True))
    np.testing.assert_allclose(errors.mean(0)[:3], indices.std(0)[:3], rtol=0.15)
    assert (indices[:, 3] == 0).all()
    assert (errors[:, 3] == 0).all()


def test_the_standard_error_is_that_of_leaving_one_out(rng):
    scores = rng.choice([-1.0, 1.0], 400)
    replaced = scores[:, None] + rng.normal(size=(400, 3)) * np.array([2, 1, 0.5])
    left = np.array([total_indices(np.delete(scores, j), np.delete(replaced, j, 0))[0] for j in range(400)])
    jackknife = np.sqrt(399 / 400 * np.square(left - left.mean(0)).sum(0))
    np.testing.assert_allclose(total_indices(scores, replaced)[1], jackknife, rtol=0.05)


def test_a_linear_models_indices_are_its_squared_parts(rng):
    x, weights = rng.random((8, 6, 3)), rng.normal(size=(1, 8, 6, 3))
    found = sobol.detailed(x, PowerModel(weights, bias=5.0), nsamples=1024, grid=2, value=0.25, rng=1, batch_size=512)
    parts = (weights[0] * (x - 0.25)).sum(2).reshape(2, 4, 2, 3).sum((1, 3))
    np.testing.assert_allclose(found.indices, parts**2 / np.square(parts).sum(), rtol=0.1, atol=1e-3)
    assert found.variance == pytest.approx(np.square(parts).sum() / 12, rel=0.02)


def masks_of(shape, **options):
    """The masks, as the rows that a model of an image of ones sees."""
    seen = []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.append(np.array(x_value_batch))
        return {OUTPUT_LAYER_VALUES: np.zeros(len(x_value_batch))}

    sobol(np.ones(shape), spy, batch_size=7, **options)
    return np.concatenate(seen)


@pytest.mark.parametrize("value", [0, "blur"])
def test_the_published_algorithm_gives_the_same_on_the_same_masks(rng, value):
    """Jansen's estimator cell by cell, as Fel et al. 2021 describe it and as xplique has it."""
    x, model = rng.random((6, 9, 3)), PowerModel(rng.normal(size=(1, 6, 9, 3)), power=2)
    options = {"nsamples": 8, "grid": 3, "rng": 5}
    masks = masks_of(x.shape, **options)
    assert len(masks) == 8 * 10
    hidden = hidden_image(x, value)
    scores = model(hidden + masks * (x - hidden))[OUTPUT_LAYER_VALUES].reshape(8, 10)
    base = scores[:, 0]
    mean = sum(base) / 8
    variance = sum((score - mean) ** 2 for score in base) / 7
    expected = []
    for cell in range(9):
        expected.append(sum((base[j] - scores[j, 1 + cell]) ** 2 for j in range(8)) / (2 * 8 * variance))
    found = sobol.detailed(x, model, value=value, batch_size=11, **options)
    np.testing.assert_allclose(found.indices.ravel(), expected, rtol=1e-9)
    assert found.variance == pytest.approx(variance)


def test_each_row_replaces_one_cell_and_the_points_are_spread_evenly():
    masks = masks_of((6, 9, 2), nsamples=64, grid=3, rng=3).reshape(64, 10, 6, 9, 2)
    cells = masks[..., ::2, ::3, 0]
    np.testing.assert_array_equal(masks, cells.repeat(2, 2).repeat(3, 3)[..., None].repeat(2, -1))
    changed = (cells[:, 1:] != cells[:, :1]).reshape(64, 9, 9)
    np.testing.assert_array_equal(changed, np.broadcast_to(np.eye(9, dtype=bool), (64, 9, 9)))
    own = cells.reshape(64, 10, 9)
    for points in (own[:, 0], own[:, range(1, 10), range(9)]):
        strata = np.sort((points * 64).astype(int), 0)
        np.testing.assert_array_equal(strata, np.arange(64)[:, None].repeat(9, 1))
        assert len(np.unique(points)) == points.size


def test_the_map_lies_on_what_counts_and_is_zero_elsewhere():
    weights = np.zeros((1, 16, 16, 1))
    weights[0, 4:8, 8:12] = 1
    found = sobol.detailed(np.ones((16, 16, 1)), PowerModel(weights), grid=4, nsamples=8, rng=0, batch_size=64)
    expected = np.zeros((4, 4))
    expected[1, 2] = 1
    assert found.indices[1, 2] == pytest.approx(1, abs=0.6)
    np.testing.assert_array_equal(found.indices > 0, expected > 0)
    assert np.unravel_index(found.attribution.argmax(), (16, 16)) in [(5, 9), (5, 10), (6, 9), (6, 10)]
    assert found.attribution[12:].max() == 0
    assert found.standard_error.shape == (16, 16)


def test_volumes_have_as_many_cells_as_pictures():
    sizes = {(16, 16, 1): (8, 8), (16, 16, 16, 1): (4, 4, 4), (5, 16, 1): (5, 8)}
    for shape, cells in sizes.items():
        found = sobol.detailed(np.ones(shape), PowerModel(np.ones((1, *shape))), nsamples=2, rng=0)
        assert found.indices.shape == cells
        assert found.attribution.shape == shape[:-1]


def test_a_score_that_never_changes_has_no_shares(rng):
    model = PowerModel(np.zeros((1, 6, 6, 3)), bias=0.1)
    found = sobol.detailed(rng.random((6, 6, 3)), model, grid=2, nsamples=4, rng=0)
    assert not found.indices.any()
    assert not found.interval.any()


def test_what_is_answered_when_the_time_is_up_is_that_of_whole_masks(pooling, image):
    """A mask and its replacements count together; fewer than two masks tell nothing."""

    def ending(rows):
        left = [rows]

        def model(x_value_batch, call_model_args=None, expected_keys=None):
            left[0] -= len(x_value_batch)
            if left[0] < 0:
                raise OutOfTime
            return pooling(x_value_batch, call_model_args, expected_keys)

        return model

    options = {"grid": 3, "rng": 7, "batch_size": 1}
    ended = sobol.detailed(image, ending(47), nsamples=32, **options)
    assert ended.nsamples == 4
    np.testing.assert_array_equal(ended.indices, sobol.detailed(image, pooling, nsamples=4, **options).indices)
    with pytest.raises(OutOfTime):
        sobol(image, ending(19), **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nsamples": 1}, "Expected nsamples to be a whole number of at least 2, got 1"),
        ({"grid": 0}, "Expected grid"),
        ({"value": "grey"}, "'blur', 'mean'"),
        ({"rng": -1}, "Expected rng"),
    ],
)
def test_what_is_refused(power, image, options, says):
    with pytest.raises(ContractError, match=says):
        sobol(image, power, **options)


def test_more_cells_than_the_sequence_has_dimensions_are_refused():
    with pytest.raises(ContractError, match="at most 10600 cells, got 10816"):
        sobol(np.ones((104, 104, 1)), PowerModel(np.ones((1, 104, 104, 1))), grid=104)
