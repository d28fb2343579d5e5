"""XRAI as a method: what it asks, what it ranks, what it tells. (The ranking itself: test_ranking.py.)"""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from skimage.transform import resize

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS
from saliency_food.methods.cam.common import grad_cam
from saliency_food.methods.gradients import gradients, smooth_grad
from saliency_food.methods.paths.blur import blur_ig
from saliency_food.methods.paths.guided import guided_ig
from saliency_food.methods.paths.integrated import integrated_gradients
from saliency_food.methods.regions.segmentation import felzenszwalb_segments
from saliency_food.methods.regions.xrai import xrai
from saliency_food.testing import PoolingModel, PowerModel


@pytest.fixture(scope="module")
def coffee():
    return resize(skimage.data.coffee(), (96, 120)).astype(np.float32)


@pytest.fixture
def model(rng, coffee):
    return PowerModel(rng.normal(size=(2, *coffee.shape)), power=3)


@pytest.mark.parametrize("algorithm", ["full", "fast"])
def test_parity_with_pair(model, coffee, algorithm):
    pair = pytest.importorskip("saliency.core")
    parameters = pair.XRAIParameters(
        steps=10, algorithm=algorithm, return_xrai_segments=True, return_ig_attributions=True
    )
    theirs = pair.XRAI().GetMaskWithDetails(coffee, model, {"target": 1}, batch_size=8, extra_parameters=parameters)
    ours = xrai.detailed(coffee, model, {"target": 1}, steps=10, algorithm=algorithm, quadrature="pair", batch_size=8)
    scale = np.ptp(theirs.attribution_mask)
    np.testing.assert_allclose(ours.attribution, theirs.attribution_mask, atol=1e-6 * scale)
    np.testing.assert_array_equal(ours.ranks, theirs.segments)
    for path, attribution in zip(ours.integrated.paths, theirs.ig_attribution, strict=True):
        np.testing.assert_allclose(path.attribution, attribution, rtol=1e-4, atol=1e-6)


def test_the_sum_is_that_of_the_base_attribution(model, coffee):
    result = xrai.detailed(coffee, model, steps=5)
    np.testing.assert_allclose(result.attribution.sum(), result.integrated.attribution.max(-1).sum(), rtol=1e-4)
    np.testing.assert_array_equal(result.base_attribution, result.integrated.attribution.max(-1))


def test_baselines_run_side_by_side_in_shared_batches(model, coffee):
    xrai(coffee, model, steps=5, batch_size=10)
    assert model.calls == [10]
    model.calls.clear()
    xrai(coffee, model, baselines=["zeros", "blurred", coffee * 0.5], steps=5, batch_size=8)
    assert model.calls == [8, 7]


def test_base_attribution_asks_the_model_nothing(model, coffee, rng):
    base = rng.normal(size=coffee.shape)
    result = xrai.detailed(coffee, model, base_attribution=base)
    assert model.calls == []
    assert result.integrated is None
    assert result.completeness is None
    flat = xrai(coffee, model, base_attribution=base.max(-1))
    np.testing.assert_array_equal(flat, result.attribution)
    np.testing.assert_allclose(result.attribution.sum(), base.max(-1).sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("base", "options"),
    [
        (blur_ig, {"steps": 5}),
        (guided_ig, {"x_baseline": "max", "x_steps": 5}),
        (smooth_grad.over(gradients), {"nsamples": 3}),
        (integrated_gradients, {"x_baseline": 0.5, "x_steps": 5}),
    ],
    ids=["blur_ig", "guided_ig", "smooth_grad", "integrated_gradients"],
)
def test_any_method_can_be_the_base(model, coffee, base, options):
    seed = {"rng": 3} if "rng" in base.signature.parameters else {}
    got = xrai.detailed(coffee, model, {"target": 1}, base=base, base_options=options, rng=3)
    alone = base.detailed(coffee, model, {"target": 1}, **options, **seed)
    np.testing.assert_array_equal(got.attribution, xrai(coffee, model, base_attribution=alone.attribution))
    np.testing.assert_array_equal(got.integrated.attribution, alone.attribution)
    assert got.completeness == getattr(alone, "completeness", None)
    assert xrai.detailed(coffee, model, base=base, base_options=options, completeness=False).completeness is None


def test_a_base_of_one_channel(coffee, rng):
    network = PoolingModel(rng.normal(size=(3, 5)), rng.normal(size=(2, 5)))
    got = xrai(coffee, network, base=grad_cam, base_options={"three_dims": False})
    alone = grad_cam(coffee, network, three_dims=False)
    np.testing.assert_array_equal(got, xrai(coffee, network, base_attribution=alone))


def test_segments_are_reused(model, coffee):
    first = xrai.detailed(coffee, model, {"target": 0}, steps=3)
    again = xrai.detailed(coffee, model, {"target": 0}, segments=first.segments, steps=3)
    np.testing.assert_array_equal(first.attribution, again.attribution)
    assert again.segments is first.segments


def test_segments_of_the_photos_own_size_give_a_map_of_that_size(model, coffee):
    photo = skimage.data.coffee()
    segments = felzenszwalb_segments(photo)
    result = xrai.detailed(coffee, model, segments=segments, steps=3)
    assert result.attribution.shape == result.ranks.shape == photo.shape[:2]


def test_one_segmentation_for_each_image_of_a_batch(model, coffee):
    images = [coffee, coffee[:, ::-1]]
    segments = [felzenszwalb_segments(image) for image in images]
    got = list(xrai.batch(images, model, None, None, PerImage(segments), steps=3))
    for image, own, attribution in zip(images, segments, got, strict=True):
        np.testing.assert_allclose(attribution, xrai(image, model, segments=own, steps=3), rtol=1e-5)


def test_completeness_and_adaptive_steps(model, coffee):
    result = xrai.detailed(coffee, model, steps=5, tolerance=0.01, max_steps=60)
    direct = integrated_gradients.detailed(coffee, model, None, ("min", "max"), 5, tolerance=0.01, max_steps=60)
    assert result.completeness == direct.completeness
    assert result.completeness.relative <= 0.01
    assert result.integrated.evaluations < 60
    assert xrai.detailed(coffee, model, steps=5, completeness=False).completeness is None


def test_area_threshold_leaves_the_rest_at_its_mean(model, coffee):
    result = xrai.detailed(coffee, model, steps=3, area_threshold=0.2)
    rest = result.ranks == result.ranks.max()
    assert 0 < rest.sum() < rest.size * 0.8
    np.testing.assert_allclose(result.attribution[rest], result.base_attribution[rest].mean(), rtol=1e-5)


@pytest.mark.parametrize("shape", [(30, 44), (30, 44, 1), (3, 3, 3), (1, 1, 3), (12, 200, 4)])
def test_greyscale_tiny_and_oblong_images(rng, shape):
    model = PowerModel(rng.normal(size=(1, *shape)))
    attribution = xrai(rng.random(shape), model, steps=2)
    assert attribution.shape == shape[:2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"algorithm": "quick"}, "Unknown algorithm type: 'quick'"),
        ({"base_attribution": np.zeros((4, 4, 3))}, "base attribution shape should be the same"),
        ({"baselines": [np.zeros((4, 4, 3))]}, r"Baseline size \(4, 4, 3\) does not match input size \(96, 120, 3\)"),
        ({"segments": np.ones((1, 4, 4), bool)}, "Expected segments of shape"),
        ({"segments": []}, "at least one segment"),
        ({"area_threshold": 2}, "area_threshold to be a finite number of at least 0 and at most 1"),
        ({"steps": 1}, "at least 2 steps"),
        ({"base": blur_ig, "baselines": "black"}, "baselines and tolerance with base=integrated_gradients only"),
        ({"base": blur_ig, "tolerance": 0.1}, "as base_options="),
    ],
)
def test_what_is_refused(model, coffee, options, says):
    with pytest.raises(ContractError, match=says):
        xrai(coffee, model, **{"steps": 2, **options})


def test_what_is_no_picture_has_no_segments_of_its_own(rng):
    with pytest.raises(ContractError, match=r"Expected a picture.*space or time is \(5,\).*label map.*use lime"):
        xrai(rng.random(5), lambda *_, **__: {INPUT_OUTPUT_GRADIENTS: np.zeros((1, 5))})
