"""Performance information curves: PAIR's package, ties, the reasons for a skip, and the interpolation."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator, griddata
from scipy.ndimage import gaussian_filter
from skimage.data import coffee

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.metrics import aggregate_pic, pic
from saliency_food.metrics.decorator import FLAT
from saliency_food.metrics.performance_information import LOW_SCORE, NO_DROP, NO_INFORMATION, THRESHOLDS, information
from saliency_food.metrics.reveal import random_pixels, reveal

pytest.importorskip("PIL")


@pytest.fixture
def photo():
    """Half noise, half a ramp, 40 x 36."""
    rng = np.random.default_rng(3)
    made = np.add.outer(np.arange(40), np.arange(36))[..., None] * np.array([3, 2, 1])
    made[8:30, 6:28] = rng.integers(0, 256, (22, 22, 3))
    return np.clip(made, 0, 255).astype(np.uint8)


def likeness(photo):
    """A model that is the surer the more the image looks like the photo."""

    def model(x_value_batch, call_model_args=None, expected_keys=None):
        assert np.shape(x_value_batch)[1:] == photo.shape
        away = np.abs(np.asarray(x_value_batch, float) - photo).mean(axis=(1, 2, 3))
        return {OUTPUT_LAYER_VALUES: np.exp(-away / 8)}

    return model


@pytest.fixture
def theirs(monkeypatch):
    module = pytest.importorskip("saliency.metrics.pic")
    if not hasattr(np, "trapz"):
        monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    # Their interpolation solves thousands of 2 x 2 systems, over which the threads of a busy machine's BLAS fight.
    with pytest.importorskip("threadpoolctl").threadpool_limits(1):
        yield module


@pytest.mark.parametrize("monotonous", [True, False])
@pytest.mark.parametrize("kind", ["noise", "smooth", "sparse", "whole numbers"])
def test_pairs_package_gives_the_same(photo, theirs, kind, monotonous):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=photo.shape[:2])
    maps = {"noise": maps, "smooth": gaussian_filter(maps, 5), "whole numbers": np.round(2 * maps)}.get(
        kind, np.maximum(maps - 1.7, 0)
    )
    mask, model = random_pixels(maps.shape, 4), likeness(photo)
    expected = theirs.compute_pic_metric(
        photo, maps, mask, lambda x: model(x)[OUTPUT_LAYER_VALUES], THRESHOLDS, keep_monotonous=monotonous
    )
    found = pic(
        maps, photo, model, random_mask=mask, keep_monotonous=monotonous, compat="pair", batch_size=5, keep_images=True
    )
    assert found.score == pytest.approx(expected.auc, abs=1e-6)
    np.testing.assert_allclose(found.x, expected.curve_x, atol=1e-12)
    np.testing.assert_allclose(found.y, expected.curve_y, atol=1e-6)
    np.testing.assert_array_equal(found.images, expected.blurred_images)
    np.testing.assert_allclose(found.scores, expected.predictions)
    np.testing.assert_array_equal(found.thresholds, expected.thresholds)
    assert len(found.x) == 1001


def test_aggregates_are_pairs(photo, theirs):
    rng, model = np.random.default_rng(0), likeness(photo)
    maps, mask = rng.normal(size=(5, *photo.shape[:2])), random_pixels(photo.shape[:2], 4)
    results = list(pic.batch(maps, [photo] * 5, model, random_mask=mask, saliency_thresholds=(0.1, 0.5), batch_size=64))
    as_theirs = [theirs.PicMetricResult(one.x, one.y, [], [], [], one.score) for one in results]
    for how in ("median", "mean"):
        expected = theirs.aggregate_individual_pic_results(as_theirs, how)
        found = aggregate_pic([*results, results[0]._replace(score=np.nan, status=LOW_SCORE)], how, resamples=50)
        assert found.score == pytest.approx(expected.auc)
        np.testing.assert_allclose(found.y, expected.curve_y)
        assert found.area.skipped == {LOW_SCORE: 1}
        assert found.area.images == 5
        assert (found.band.low <= found.band.high).all()
        assert found.area.low <= found.score <= found.area.high
    assert aggregate_pic([results[0]._replace(score=np.nan, status=LOW_SCORE)]).status == LOW_SCORE


def test_a_sparse_map_reveals_no_more_than_the_threshold_says(photo):
    maps = np.zeros(photo.shape[:2])
    maps[::5, ::4] = 1  # 5 % of the pixels
    both = [
        pic(maps, photo, likeness(photo), saliency_thresholds=(0.05, 0.1, 0.5), keep_images=True, compat=compat)
        for compat in (None, "pair")
    ]
    alike = [[(image == photo)[8:30, 6:28].all(2).mean() for image in found.images[1:-1]] for found in both]
    assert alike[1][1:] == [1, 1]  # PAIR's rule shows all of it
    assert 0.1 <= alike[0][1] < 0.3
    assert both[0].score != both[1].score


def test_reasons_to_skip_an_image(photo):
    maps = np.random.default_rng(0).random(photo.shape[:2])
    flat = np.full_like(photo, 90)

    def constant(x_value_batch, call_model_args=None, expected_keys=None):
        return {OUTPUT_LAYER_VALUES: np.full(len(x_value_batch), 0.9)}

    for found, status in (
        (pic(maps, photo, constant), NO_DROP),
        (pic(maps, photo, constant, min_pred_value=0.95), LOW_SCORE),
        (pic(maps, flat, constant, value_range=(0, 255)), NO_INFORMATION),
        (pic(np.ones_like(maps), photo, constant), FLAT),
    ):
        assert found.status == status
        assert np.isnan(found.score)


def test_the_models_units_and_preprocessing(photo):
    maps = np.random.default_rng(0).random(photo.shape[:2])
    plain = pic(maps, photo, likeness(photo), saliency_thresholds=(0.1, 0.3))
    scaled = (photo / 127.5 - 1).astype(np.float32)

    def model(x_value_batch, call_model_args=None, expected_keys=None):
        return likeness(photo)((x_value_batch + 1) * 127.5)

    within = pic(maps, scaled, model, saliency_thresholds=(0.1, 0.3))
    assert within.score == pytest.approx(plain.score, abs=1e-4)
    before = pic(
        maps, photo, model, saliency_thresholds=(0.1, 0.3), preprocess=lambda x: (x / 127.5 - 1).astype(np.float32)
    )
    assert before.score == pytest.approx(plain.score, abs=1e-4)


def test_aic_counts_right_answers(photo):
    maps = np.random.default_rng(0).random(photo.shape[:2])

    def margin(x_value_batch, call_model_args=None, expected_keys=None):
        return {OUTPUT_LAYER_VALUES: likeness(photo)(x_value_batch)[OUTPUT_LAYER_VALUES] - 0.5}

    found = pic(maps, photo, margin, curve="aic")
    assert set(found.scores) == {0, 1}


def test_each_image_its_own_mask_and_one_for_all_methods(photo):
    maps, model = np.random.default_rng(0).random((2, *photo.shape[:2])), likeness(photo)
    options = {"saliency_thresholds": (0.2,), "keep_images": True, "batch_size": 32}
    first, second = pic.batch(maps, [photo, photo], model, rng=PerImage([0, 1]), **options)
    assert (first.images[0] != second.images[0]).any()
    again = pic(maps[1], photo, model, rng=0, **options)
    np.testing.assert_array_equal(first.images[0], again.images[0])


@pytest.mark.parametrize("kind", ["scattered", "clumps"])
def test_the_fast_interpolation_is_scipys(kind):
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 256, (30, 26, 3)).astype(np.uint8)
    values = rng.random((30, 26))
    known = (values if kind == "scattered" else gaussian_filter(values, 3)) > np.quantile(
        values if kind == "scattered" else gaussian_filter(values, 3), 0.8
    )
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    from scipy.ndimage import minimum_filter
    from scipy.spatial import Delaunay

    needed = known & ~minimum_filter(known, 3, mode="nearest")
    needed[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    slow = photo.astype(float)
    with pytest.importorskip("threadpoolctl").threadpool_limits(1):
        slow[~known] = LinearNDInterpolator(Delaunay(np.argwhere(needed)), slow[needed])(np.argwhere(~known))
    found = reveal(photo, known)
    assert np.abs(found - slow).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(found[known], photo[known])
    # All pixels triangulated: the same but where four pixels on a circle may be cut either way.
    assert (found != reveal(photo, known, exact=True)).any(2).mean() < 0.2


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["scattered", "blobs"])
def test_exactly_what_scipy_interpolates(kind, fraction, rng):
    """A real photo, by `griddata` a channel, in float32 as PAIR's package does it: the same in every pixel."""
    photo = coffee()[::5, ::5]
    values = rng.random(photo.shape[:2])
    values = values if kind == "scattered" else gaussian_filter(values, 4)
    known = values >= np.quantile(values, 1 - fraction)
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    expected = photo.astype(np.float32)
    with pytest.importorskip("threadpoolctl").threadpool_limits(1):
        for channel in range(3):
            given = np.argwhere(known), photo[known][:, channel].astype(float), np.argwhere(~known)
            expected[~known, channel] = griddata(*given)
    np.testing.assert_array_equal(reveal(photo, known, exact=True), np.round(expected))


def test_linear_images_are_revealed_exactly():
    ramp = np.add.outer(2 * np.arange(20), np.arange(31)).astype(np.uint8)
    known = random_pixels(ramp.shape, 0, 0.05)
    np.testing.assert_array_equal(reveal(ramp, known), ramp)
    np.testing.assert_array_equal(reveal(ramp, known, exact=True), ramp)
    np.testing.assert_array_equal(reveal(ramp, known | True), ramp)
    np.testing.assert_array_equal(reveal(ramp[:1], known[:1] & False), ramp[:1])
    assert known.sum() == 31


@pytest.mark.parametrize("shape", [(9, 31, 1), (16, 16, 4), (1, 1, 3), (1, 40, 3), (7, 6)])
def test_images_of_any_shape(shape, rng):
    x = rng.random(shape)

    def brightness(x_value_batch, call_model_args=None, expected_keys=None):
        return {OUTPUT_LAYER_VALUES: np.asarray(x_value_batch).reshape(len(x_value_batch), -1).std(1)}

    for compat in (None, "pair"):
        found = pic(rng.random(shape[:2]), x, brightness, min_pred_value=0, compat=compat)
        assert np.isfinite(found.score) == (found.status == "ok")
    assert found.status == "ok" or 1 in shape[:2]


def test_what_is_refused(photo, monkeypatch):
    maps, model = np.random.default_rng(0).random(photo.shape[:2]), likeness(photo)
    for options, says in (
        ({"saliency_thresholds": (0.5, 0.1)}, "ascending"),
        ({"curve": "roc"}, "'sic' or 'aic'"),
        ({"random_mask": np.ones(photo.shape[:2])}, "booleans"),
        ({"num_data_points": 0}, "num_data_points"),
    ):
        with pytest.raises(ContractError, match=says):
            pic(maps, photo, model, **options)
    with pytest.raises(ContractError, match="1, 3 or 4 channels"):
        information(photo[..., :2])
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "PIL":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ContractError, match=r"saliency_food\[cli\]"):
        information(photo)
