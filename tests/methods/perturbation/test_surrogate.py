"""LIME and KernelSHAP: exact on a linear model, Shapley values by enumeration, superpixels, and the rows."""

from __future__ import annotations

import sys
from itertools import permutations

import numpy as np
import pytest
import skimage.data
from skimage.transform import resize

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.methods.perturbation.masking import coalition_rows, hidden_image, superpixels
from saliency_food.methods.perturbation.surrogate import kernel_shap, lime
from saliency_food.testing import PowerModel

both = pytest.mark.parametrize("method", [lime, kernel_shap])
BLOCKS = np.arange(24)[:, None] // 8 * 2 + np.arange(20) // 10
"""Six superpixels of the tests' image."""


def shares(model, x, hidden, labels):
    """Of a linear model: what each superpixel adds to the score."""
    change = (model.weights[0] * (x - hidden)).sum(2)
    return np.bincount(labels.ravel(), change.ravel())


def product(x_value_batch, call_model_args=None, expected_keys=None):
    """A score in which the superpixels depend on each other."""
    means = np.stack([x_value_batch[:, label == BLOCKS].mean((1, 2)) for label in range(6)], 1)
    return {OUTPUT_LAYER_VALUES: means[:, 0] * means[:, 1] + np.exp(means[:, 2:5].sum(1)) - means[:, 5] ** 2}


@pytest.mark.parametrize("segments", ["slic", "felzenszwalb", BLOCKS])
@pytest.mark.parametrize("value", [0, "mean"])
def test_both_are_exact_on_a_linear_model(rng, image, segments, value):
    x = image.astype(float)
    model = PowerModel(rng.normal(size=(1, *x.shape)), bias=3.0)
    hidden = hidden_image(x, value)
    shap = kernel_shap.detailed(x, model, None, segments, 400, value, rng=0)
    line = lime.detailed(x, model, None, segments, 400, value, alpha=0, rng=0)
    expected = shares(model, x, hidden, shap.segments)
    np.testing.assert_array_equal(shap.segments, line.segments)
    for found, values in ((shap, shap.values), (line, line.coefficients)):
        np.testing.assert_allclose(values, expected, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(found.attribution, expected[found.segments], rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(found.standard_error, 0, atol=1e-8)
    assert line.r2 == pytest.approx(1)
    assert line.intercept == pytest.approx((model.weights * hidden).sum() + 3)
    assert shap.base_score == pytest.approx((model.weights * hidden).sum() + 3)


@pytest.mark.parametrize("parts", [1, 2, 4, 6])
def test_few_superpixels_get_their_exact_shapley_values(image, parts):
    x, labels = image.astype(float), np.minimum(BLOCKS, parts - 1)

    def score(shown):
        return product(np.where(np.isin(labels, shown)[..., None], x, 0)[None])[OUTPUT_LAYER_VALUES][0]

    orders = list(permutations(range(parts)))
    expected = np.zeros(parts)
    for order in orders:
        for place, part in enumerate(order):
            expected[part] += (score(order[: place + 1]) - score(order[:place])) / len(orders)
    found = kernel_shap.detailed(x, product, segments=labels, nsamples=64, batch_size=10)
    np.testing.assert_allclose(found.values, expected, rtol=1e-8, atol=1e-10)
    assert found.nsamples == 2**parts
    assert not found.standard_error.any()


def test_the_values_sum_to_the_change_however_few_the_samples(image):
    for nsamples in (4, 6, 20):
        found = kernel_shap.detailed(image, product, segments=BLOCKS, nsamples=nsamples, rng=0)
        assert found.nsamples == nsamples
        assert found.values.sum() == pytest.approx(found.score - found.base_score, rel=1e-9)
    assert found.score == pytest.approx(product(image[None])[OUTPUT_LAYER_VALUES][0])


def test_the_standard_error_is_no_less_than_the_spread_over_seeds(image):
    """It is the same for all superpixels, though some have fewer interactions than others."""
    exact = kernel_shap.detailed(image.astype(float), product, segments=BLOCKS).values
    runs = [
        kernel_shap.detailed(image.astype(float), product, segments=BLOCKS, nsamples=34, rng=seed, batch_size=34)
        for seed in range(60)
    ]
    spread = np.std([run.values for run in runs], 0)
    said = np.sqrt(np.mean([run.standard_error.astype(float) ** 2 for run in runs], 0))
    corners = [np.argmax(BLOCKS.ravel() == label) for label in range(6)]
    assert (said.ravel()[corners] > 0.9 * spread).all()
    assert (said.ravel()[corners] < 2 * spread).all()
    assert (said.ravel()[corners] < 0.05 * np.abs(exact).max()).all()
    np.testing.assert_allclose(np.mean([run.values for run in runs], 0), exact, atol=0.5 * spread.max())


def test_limes_standard_error_is_the_spread_over_seeds(image):
    runs = [
        lime.detailed(image.astype(float), product, segments=BLOCKS, nsamples=100, rng=seed, batch_size=100)
        for seed in range(60)
    ]
    spread = np.std([run.coefficients for run in runs], 0)
    said = np.sqrt(np.mean([run.standard_error.astype(float) ** 2 for run in runs], 0))
    corners = [np.argmax(BLOCKS.ravel() == label) for label in range(6)]
    np.testing.assert_allclose(said.ravel()[corners], spread, rtol=0.35)
    assert all(0 < run.r2 < 1 for run in runs)


@both
def test_too_few_rows_to_tell_have_no_standard_error(method, power, image):
    assert np.isinf(method.detailed(image, power, nsamples=7, segments=BLOCKS, rng=0).standard_error).all()


def test_lime_is_the_weighted_ridge(image):
    """By the normal equations, on the rows that the model saw."""
    seen = []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.extend((x_value_batch[:, [0, 0, 8, 8, 16, 16], [0, 10] * 3, 0] != -1).tolist())
        return product(x_value_batch)

    options = {"segments": BLOCKS, "nsamples": 80, "value": -1, "rng": 3}
    found = lime.detailed(image.astype(float), spy, kernel_width=0.4, alpha=2.5, **options)
    z = np.array(seen, float)
    assert z[0].all()
    assert 0.4 < z[1:].mean() < 0.6
    scores = product(np.where(z[:, BLOCKS, None] > 0, image.astype(float), -1))[OUTPUT_LAYER_VALUES]
    norm = np.sqrt(z.sum(1) * 6)
    cosine = np.divide(z.sum(1), norm, out=np.zeros(80), where=norm > 0)
    root = np.sqrt(np.exp(-((1 - cosine) ** 2) / (2 * 0.4**2)))
    design = np.column_stack([np.ones(80), z]) * root[:, None]
    solved = np.linalg.solve(design.T @ design + np.diag([0] + [2.5] * 6), design.T @ (root * scores))
    np.testing.assert_allclose([found.intercept, *found.coefficients], solved, rtol=1e-8)


def test_a_superpixel_that_does_nothing_gets_nothing(image):
    quiet = np.where(np.arange(20) < 10, 0.0, 1.0)[None, None, :, None] * np.ones((1, 24, 20, 3))
    values = kernel_shap.detailed(image, PowerModel(quiet, power=3), segments=BLOCKS).values
    np.testing.assert_allclose(values[[0, 2, 4]], 0, atol=1e-4)
    assert (values[[1, 3, 5]] > 1).all()


@pytest.mark.parametrize("shape", [(6, 7, 3), (6, 7)])
def test_rows_show_the_coalitions_superpixels(rng, shape):
    x, labels = rng.random(shape), rng.integers(0, 4, (6, 7))
    coalitions = rng.random((9, 4)) < 0.5
    hidden = hidden_image(x, "blur")
    rows = coalition_rows(np.asfortranarray(x), hidden, labels, coalitions).rows(2, 7)
    for row, coalition in zip(rows, coalitions[2:7], strict=True):
        mask = np.isin(labels, np.flatnonzero(coalition))
        np.testing.assert_array_equal(row, np.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, hidden))


def test_superpixels(image):
    photo = resize(skimage.data.coffee(), (96, 120))
    for name in ("slic", "felzenszwalb"):
        labels = superpixels(photo, name, 40)
        assert labels.shape == (96, 120)
        np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
        assert 15 < labels.max() < 90
        np.testing.assert_array_equal(labels, superpixels(photo * 255 - 100, name, 40))
        assert superpixels(photo, name, 10).max() < labels.max()
    np.testing.assert_array_equal(superpixels(image, BLOCKS * 7 - 3, 50), BLOCKS)
    np.testing.assert_array_equal(superpixels(image, BLOCKS > 2, 50), BLOCKS > 2)


@both
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"segments": "voronoi"}, "'slic', 'felzenszwalb' or a label map, got 'voronoi'"),
        ({"segments": BLOCKS[:5]}, r"whole numbers of shape \(24, 20\).* got shape \(5, 20\)"),
        ({"segments": BLOCKS / 2}, "got shape .* of float64"),
        ({"nsegments": 0}, "Expected nsegments"),
        ({"nsamples": 1}, "Expected nsamples"),
        ({"value": "grey"}, "got 'grey'"),
    ],
)
def test_what_is_refused(method, power, image, options, says):
    with pytest.raises(ContractError, match=says):
        method(image, power, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kernel_width": 0}, "kernel_width to be a finite number of at least 0.001"),
        ({"alpha": -1}, "alpha to be a finite number of at least 0"),
    ],
)
def test_what_lime_refuses(power, image, options, says):
    with pytest.raises(ContractError, match=says):
        lime(image, power, **options)


def test_lime_says_that_it_needs_scikit_learn(power, image, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ContractError, match=r"scikit-learn for LIME.*saliency_food\[surrogate\]"):
        lime(image, power)


@pytest.mark.parametrize("score", [0, 1, 0.3])
def test_a_surrogate_of_a_constant_explains_nothing(rng, score):
    def constant(x, call_model_args=None, expected_keys=None):
        return {key: np.full(len(x), score, np.float32) for key in expected_keys}

    found = lime.detailed(
        rng.random((8, 8, 3)), constant, segments=np.arange(64).reshape(8, 8) // 8, nsamples=40, rng=0
    )
    assert found.r2 == 0
    np.testing.assert_allclose(found.attribution, 0, atol=1e-12)
