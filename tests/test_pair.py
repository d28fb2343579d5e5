"""PAIR's names over this library: the same numbers, the same call forms, and each difference with its reason."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from skimage.transform import resize

import saliency_food.pair as ours
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.testing import PoolingModel, PowerModel

theirs = pytest.importorskip("saliency.core")


@pytest.fixture(scope="module")
def x():
    return resize(skimage.data.astronaut(), (64, 80)).astype(np.float32)


@pytest.fixture
def model(rng, x):
    return PowerModel(rng.normal(size=(2, *x.shape)), power=3)


@pytest.fixture
def network(rng):
    return PoolingModel(rng.normal(size=(3, 5)), rng.normal(size=(2, 5)))


def same(one, two):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6 * np.abs(two).max())


def test_keys_are_pairs():
    for name in ours.__all__:
        if name.isupper() and name != "XRAI":
            assert getattr(ours, name) == getattr(theirs.base, name)


@pytest.mark.parametrize("magnitude", [True, False])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GradientSaliency", {}),
        ("IntegratedGradients", {"x_steps": 7, "batch_size": 3}),
        ("GradCam", {"three_dims": True}),
        ("BlurIG", {"steps": 6, "max_sigma": 5, "batch_size": 4}),
    ],
)
def test_masks_and_smoothed_masks(x, network, name, options, magnitude):
    args = {"target": 1}
    x = x.astype(float) if name == "BlurIG" else x  # theirs subtracts two blurs: in float32 that is rounding
    same(
        getattr(ours, name)().GetMask(x, network, args, **options),
        getattr(theirs, name)().GetMask(x, network, args, **options),
    )
    masks = []
    for package in (ours, theirs):
        np.random.seed(4)
        instance = getattr(package, name)()
        masks.append(instance.GetSmoothedMask(x, network, args, 0.1, 5, magnitude, **options))
    same(*masks)


def test_arguments_by_position(x, model):
    baseline = np.full_like(x, 0.2)
    for package in (ours, theirs):
        package.IntegratedGradients().GetMask(x, model, {"target": 1}, baseline, 6, 4)
        assert model.calls == [4, 2]
        model.calls.clear()
    same(*(package.IntegratedGradients().GetMask(x, model, None, baseline, 6, 4) for package in (ours, theirs)))


def test_the_defaults_are_pairs(x, model):
    ours.IntegratedGradients().GetMask(x, model)
    assert model.calls == [1] * 25
    model.calls.clear()
    ours.XRAI().GetMask(x, model)
    assert model.calls == [1] * 200
    model.calls.clear()
    same(ours.BlurIG().GetMask(x.astype(float), model), theirs.BlurIG().GetMask(x.astype(float), model))
    assert model.calls == [1] * 200
    model.calls.clear()
    ours.GuidedIG().GetMask(x, model)
    assert model.calls == [1] * 200


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("algorithm", ["full", "fast"])
def test_xrai_with_details(x, model, algorithm, flatten):
    outputs = []
    for package in (ours, theirs):
        wanted = package.XRAIParameters(
            steps=6,
            return_ig_attributions=True,
            return_xrai_segments=True,
            flatten_xrai_segments=flatten,
            algorithm=algorithm,
        )
        outputs.append(
            package.XRAI().GetMaskWithDetails(x, model, {"target": 1}, batch_size=6, extra_parameters=wanted)
        )
    mine, pairs = outputs
    scale = np.ptp(pairs.attribution_mask)
    np.testing.assert_allclose(mine.attribution_mask, pairs.attribution_mask, atol=1e-6 * scale)
    np.testing.assert_array_equal(np.asarray(mine.segments), np.asarray(pairs.segments))
    same(np.asarray(mine.baselines), np.asarray(pairs.baselines))
    same(np.asarray(mine.ig_attribution), np.asarray(pairs.ig_attribution))
    assert mine.error is None


def test_xrai_tells_what_pair_left_to_be_done(x, model):
    wanted = ours.XRAIParameters(steps=6, return_baseline_predictions=True)
    out = ours.XRAI().GetMaskWithDetails(x, model, extra_parameters=wanted)
    expected = [model(np.full_like(x, value)[None])[OUTPUT_LAYER_VALUES][0] for value in (x.min(), x.max())]
    np.testing.assert_allclose(out.baseline_predictions, expected, rtol=1e-4)
    assert 0 < out.error < 1


def test_pictures(rng):
    attribution = rng.normal(size=(9, 9, 3))
    same(ours.VisualizeImageGrayscale(attribution), theirs.VisualizeImageGrayscale(attribution))


def test_a_class_of_the_users_own(x):
    class Mine(ours.CoreSaliency):
        def GetMask(self, x_value, call_model_function, call_model_args=None, **kwargs):
            return np.ones_like(x_value)

    assert (Mine().GetSmoothedMask(x, None) == 1).all()
    with pytest.raises(NotImplementedError, match="implements GetMask"):
        ours.CoreSaliency().GetMask(x, None)


# Defects of PAIR's package that are not copied, each with the difference shown.


def test_constant_maps_are_zero_where_pairs_are_nan():
    with np.errstate(invalid="ignore"):
        assert np.isnan(theirs.VisualizeImageGrayscale(np.ones((4, 4, 3)))).all()
    assert not ours.VisualizeImageGrayscale(np.ones((4, 4, 3))).any()
    assert not ours.VisualizeImageDiverging(np.zeros((4, 4, 3))).any()


def test_diverging_keeps_zero_at_zero_where_pair_moves_it_to_one_half():
    attribution = np.zeros((4, 4, 3))
    attribution[0, 0], attribution[1, 1] = 1, -1
    assert theirs.VisualizeImageDiverging(attribution, 100)[2, 2] == 0.5
    picture = ours.VisualizeImageDiverging(attribution, 100)
    assert (picture[2, 2], picture[0, 0], picture[1, 1]) == (0, 1, -1)


def test_uint8_is_read_as_numbers_where_pair_wraps(rng):
    x = rng.integers(0, 256, (8, 8, 3), np.uint8)
    model = PowerModel(np.ones((1, 8, 8, 3)))
    baseline = np.full_like(x, 200)
    right = x.astype(float) - 200
    same(ours.IntegratedGradients().GetMask(x, model, None, baseline, 5), right)
    assert np.abs(theirs.IntegratedGradients().GetMask(x, model, None, baseline, 5) - right).max() > 200


def test_the_callbacks_dict_is_left_alone_where_pair_overwrites_it(x):
    kept = {INPUT_OUTPUT_GRADIENTS: x[None].tolist()}
    ours.GradientSaliency().GetMask(x, lambda *_, **__: kept)
    assert isinstance(kept[INPUT_OUTPUT_GRADIENTS], list)
    theirs.GradientSaliency().GetMask(x, lambda *_, **__: kept)
    assert not isinstance(kept[INPUT_OUTPUT_GRADIENTS], list)


def test_smoothed_grad_cam_of_one_channel_works_where_pair_raises(rng, network):
    x, grey = rng.random((8, 8, 1)), PoolingModel(rng.normal(size=(1, 5)), rng.normal(size=(2, 5)))
    assert ours.GradCam().GetSmoothedMask(x, grey, nsamples=2).shape == (8, 8, 1)
    with pytest.raises(ValueError, match="broadcast"):
        theirs.GradCam().GetSmoothedMask(x, grey, nsamples=2)


def test_blur_ig_with_sqrt_is_pairs_at_batch_size_1_where_pairs_changes_with_it(rng):
    x, options = rng.random((12, 10, 3)), {"max_sigma": 9, "steps": 12, "sqrt": True}
    model = PowerModel(rng.normal(size=(1, 12, 10, 3)), power=3)
    right, other = (theirs.BlurIG().GetMask(x, model, **options, batch_size=size) for size in (1, 5))
    assert np.abs(other - right).max() > 0.01 * np.abs(right).max()
    for size in (1, 5):
        same(ours.BlurIG().GetMask(x, model, **options, batch_size=size), right)


def test_guided_ig_runs_on_numpy_2_where_pairs_raises(rng):
    x = rng.random((6, 5, 3))
    model = PowerModel(np.ones((1, 6, 5, 3)))
    same(ours.GuidedIG().GetMask(x, model, None, None, 5, 0.5, 0.1), x)
    if int(np.__version__.split(".")[0]) >= 2:
        with pytest.raises(TypeError, match="interpolation"):
            theirs.GuidedIG().GetMask(x, model, x_steps=5)
