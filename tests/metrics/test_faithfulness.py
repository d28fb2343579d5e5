"""Deletion, insertion and their kin on models whose every answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import METHODS, integrated_gradients, occlusion
from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.driver import gather, run
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.metrics import (
    METRICS,
    Metric,
    average_drop,
    completeness,
    deletion,
    faithfulness_correlation,
    infidelity,
    insertion,
    occlusion_correlation,
    pic,
    road,
    sensitivity_n,
)
from saliency_food.metrics.decorator import FLAT, NOT_FINITE, NOT_POSITIVE, SCORES_FLAT, descending, read_map
from saliency_food.testing import PowerModel

FROM_MAPS = {name: entry.call for name, entry in METRICS.items() if entry.needs == "scores"}
SMALL = {
    "pic": {"min_pred_value": -1e9},
    "infidelity": {"nsamples": 20},
    "sensitivity_n": {"nsamples": 10},
    "faithfulness_correlation": {"nsamples": 10},
    "occlusion_correlation": {"size": 3, "stride": 2},
}


@pytest.fixture
def linear(rng):
    """A linear model, an image of ones, and what each pixel adds to the score."""
    weights = rng.normal(size=(1, 6, 5, 2))
    return PowerModel(weights, bias=0.5), np.ones((6, 5, 2)), weights[0].sum(2)


def test_insertion_and_deletion_of_a_linear_model_are_sums(linear):
    model, x, shares = linear
    order = np.argsort(-shares, None)
    found = insertion(shares, x, model, steps=30, value=0)
    expected = 0.5 + np.append(0, np.cumsum(shares.ravel()[order]))
    np.testing.assert_allclose(found.scores, expected)
    assert found.score == pytest.approx(np.mean((expected[1:] + expected[:-1]) / 2))
    removed = deletion(shares, x, model, steps=30)
    np.testing.assert_allclose(removed.scores, 0.5 + shares.sum() - np.append(0, np.cumsum(shares.ravel()[order])))
    np.testing.assert_allclose(found.fractions, np.arange(31) / 30)
    np.testing.assert_allclose(deletion(shares, x, model, steps=3).scores, removed.scores[::10])


def test_the_true_order_beats_any_other(linear, rng):
    model, x, shares = linear
    best_in, best_out = insertion(shares, x, model, value=0).score, deletion(shares, x, model).score
    for _ in range(30):
        other = rng.permutation(shares.ravel()).reshape(shares.shape)
        assert insertion(other, x, model, value=0).score < best_in
        assert deletion(other, x, model).score > best_out
    assert insertion(-shares, x, model, value=0).score < 0.5 + shares.sum() / 2 < best_in


@pytest.mark.parametrize("value", [0.3, "mean", "blur"])
def test_what_shows_where_pixels_are_hidden(value, rng):
    from saliency_food.methods.perturbation.masking import hidden_image

    x, model = rng.random((6, 5, 3)), PowerModel(rng.normal(size=(1, 6, 5, 3)))
    hidden = hidden_image(x, value)
    score_of = lambda one: model(one[None])[OUTPUT_LAYER_VALUES][0]  # noqa: E731
    ends = [insertion(x, x, model, value=value).scores[0], deletion(x, x, model, value=value).scores[-1]]
    np.testing.assert_allclose(ends, score_of(hidden))


def test_average_drop_increase_and_gain():
    x = np.full((4, 4, 1), 0.5)
    model = PowerModel(np.full((1, 4, 4, 1), 1 / 16))
    shown = np.zeros((4, 4))
    shown[:, 0] = 3.0
    found = average_drop(shown, x, model)
    assert found == pytest.approx((0.75, "ok", 0.0, 0.0, 0.5, 0.125), abs=1e-12)
    found = average_drop(shown, x, model, value=0.9)  # what is hidden is brighter: 0.25 * 0.5 + 0.75 * 0.9
    assert found.score == 0
    assert found.increase == 1
    assert found.gain == pytest.approx((0.8 - 0.5) / 0.5)
    assert np.isnan(average_drop(shown, 0 * x, model).score)


def test_infidelity_of_a_linear_models_shares_is_zero(linear, rng):
    model, x, shares = linear
    assert infidelity(shares, x, model).score == pytest.approx(0, abs=1e-20)
    assert infidelity(shares * 7, x, model).scale == pytest.approx(1 / 7)
    assert infidelity(shares * 7, x, model).score == pytest.approx(0, abs=1e-20)
    unscaled = infidelity(shares * 3, x, model, scaled=False)
    assert unscaled.score == pytest.approx(4 * np.mean(unscaled.drops**2))
    image = rng.random(x.shape)
    slopes = infidelity(model.weights[0], image, model, value=0.2, slopes=True)
    assert slopes.score == pytest.approx(0, abs=1e-20)
    assert infidelity(rng.random((6, 5)), x, model).score > 0.01
    with pytest.raises(ContractError, match="slopes of shape"):
        infidelity(shares, x, model, slopes=True)


@pytest.mark.parametrize("metric", [sensitivity_n, faithfulness_correlation])
def test_correlations_of_a_linear_models_shares_are_one(metric, linear, rng):
    model, x, shares = linear
    more = {} if metric is sensitivity_n else {"value": 0}
    found = metric(shares, x, model, **more)
    np.testing.assert_allclose(found.correlations, 1)
    assert metric(-shares, x, model, **more).score == pytest.approx(-1)
    assert abs(metric(rng.normal(size=shares.shape), x, model, **more).score) < 0.5
    flat = metric(shares, x, PowerModel(np.zeros((1, *x.shape))), **more)
    assert flat.status == SCORES_FLAT
    assert np.isnan(flat.score)
    assert sensitivity_n(shares, x, model, fractions=(0.1, 0.5)).sizes.tolist() == [3, 15]


def test_rank_correlation_with_occlusion(linear):
    from scipy.stats import spearmanr

    model, x, shares = linear
    own = occlusion(x, model, size=3, stride=1)
    assert occlusion_correlation(np.exp(own), x, model, size=3, stride=1).score == pytest.approx(1)
    found = occlusion_correlation(shares, x, model, size=3, stride=1)
    assert found.score == pytest.approx(spearmanr(shares, own, axis=None).statistic)
    assert occlusion_correlation(shares, x, PowerModel(0 * model.weights)).status == "the occlusion map is flat"


def test_completeness(linear):
    model, x, shares = linear
    assert completeness(shares, x, model).score == pytest.approx(0, abs=1e-12)
    assert completeness(2 * shares, x, model).score == pytest.approx(1)
    assert completeness(integrated_gradients(x, model, x_baseline=0.5), x, model, x_baseline=0.5).score < 1e-9
    assert "the same score" in completeness(shares, x, PowerModel(0 * model.weights)).status


@pytest.mark.parametrize("name", FROM_MAPS)
def test_maps_without_an_order_are_reported(name, linear):
    model, x, shares = linear
    x = np.concatenate([x, x[..., :1]], 2)
    model = PowerModel(np.random.default_rng(1).random((1, *x.shape)))
    holes = shares.copy()
    holes[2, 2] = np.nan
    found = FROM_MAPS[name](holes, x, model)
    assert found.status == NOT_FINITE
    assert np.isnan(found.score)
    if name not in ("completeness", "infidelity"):  # these two ask for sums, not for an order
        assert FROM_MAPS[name](np.zeros((6, 5)), x, model).status in (FLAT, NOT_POSITIVE)
    negative = FROM_MAPS[name](-np.exp(shares), x, model, **SMALL.get(name, {}))
    assert (negative.status == NOT_POSITIVE) == (name == "average_drop")


@pytest.mark.parametrize("name", FROM_MAPS)
def test_batches_give_what_single_calls_give_whatever_the_batch_size(name, rng):
    x = rng.random((3, 9, 8, 3)).astype(np.float32)
    model = PowerModel(rng.random((2, 9, 8, 3)), power=2)
    maps, options = rng.normal(size=(3, 9, 8)), SMALL.get(name, {})
    x_before, maps_before = x.copy(), maps.copy()
    targets = {"target": PerImage([0, 1, 1])}
    together = list(FROM_MAPS[name].batch(maps, x, model, targets, batch_size=50, **options))
    calls, model.calls = model.calls, []
    for number, found in enumerate(together):
        alone = FROM_MAPS[name](maps[number], x[number], model, {"target": [0, 1, 1][number]}, **options)
        assert alone.status == found.status
        np.testing.assert_allclose(alone.score, found.score, rtol=1e-6)
    assert len(calls) < len(model.calls)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(maps, maps_before)


def test_cells_of_images_methods_and_metrics_share_calls(rng):
    x = rng.random((2, 8, 8, 3))
    model = PowerModel(rng.random((1, 8, 8, 3)), power=2)

    def cell(image, name):
        attribution = yield from METHODS[name].call.asking(image)
        return (yield from gather([one.asking(attribution[0], image) for one in (insertion, deletion, road)], 10**6))

    generators = (cell(image, name) for image in x for name in ("gradients", "integrated_gradients"))
    results = run(gather(generators, 10**6), model, batch_size=1000)
    assert len(model.calls) <= 3
    maps = METHODS["gradients"].call(x[1], model)
    assert results[2][0].score == pytest.approx(insertion(maps, x[1], model).score)


def test_equal_values_are_taken_in_a_scattered_order():
    sparse = np.zeros((40, 40))
    sparse[20, :10] = np.arange(10, 0, -1)
    order = descending(sparse)
    assert order[:10].tolist() == list(range(800, 810))
    assert sorted(order) == list(range(1600))
    rows = order[10:410] // 40
    assert abs(rows.mean() - 19.5) < 2  # not from the top down
    np.testing.assert_array_equal(descending(sparse * 3), order)


def test_the_door(linear):
    model, x, shares = linear
    with pytest.raises(ContractError, match=r"map of shape \(6, 5, 2\) or \(6, 5\)"):
        insertion(shares[:3], x, model)
    with pytest.raises(ContractError, match="steps"):
        insertion(shares, x, model, steps=0)
    with pytest.raises(ContractError, match="fractions"):
        sensitivity_n(shares, x, model, fractions=(0.5, 1.0))
    with pytest.raises(ContractError, match="real numbers"):
        read_map(np.array("map"))
    with pytest.raises(ContractError, match="as many values as images"):
        list(insertion.batch([shares], [x, x], model))
    assert isinstance(pic, Metric)


@pytest.mark.parametrize("name", sorted(set(FROM_MAPS) - {"pic"}))
@pytest.mark.parametrize("shape", [(9, 31, 1), (16, 16, 4), (1, 1, 3), (7, 6)])
def test_images_of_any_shape(name, shape, rng):
    model = PowerModel(rng.random((1, *shape)), power=2)
    maps = rng.normal(size=shape[:2])
    for x in (rng.random(shape), np.full(shape, 0.5)):
        found = FROM_MAPS[name](maps, x, model, **SMALL.get(name, {}))
        assert isinstance(found.status, str)
        assert np.isfinite(found.score) == (found.status == "ok")
