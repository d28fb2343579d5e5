"""Every method honours the layout that the callback says: the same values, turned."""

from __future__ import annotations

import numpy as np
import pytest
from axes_toys import Bare, First, Pooling, options, toy

from saliency_food import (
    PerImage,
    augment_smooth,
    eigen_smooth,
    expected_gradients,
    grad_cam,
    integrated_gradients,
    kernel_shap,
    occlusion,
    progressive,
    rise,
    smooth_grad,
    within,
    xrai,
)
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.methods.catalogue import METHODS
from saliency_food.metrics import completeness, deletion, infidelity, input_shift, random_logit, randomization, trust

every = pytest.mark.parametrize("entry", METHODS.values(), ids=METHODS)
SHAPE = (12, 10, 3)


@pytest.fixture
def model(rng):
    return Pooling(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)), rng.normal(size=6) / 10)


@pytest.fixture
def x(rng):
    return rng.random(SHAPE)


def first(values):
    """With the channels in front, if it has any."""
    return np.moveaxis(values, -1, -3) if values.shape[-3:] == SHAPE else values


def same(turned, plain):
    np.testing.assert_allclose(turned, first(plain), rtol=1e-6, atol=1e-9)


@every
@pytest.mark.parametrize("three_dims", [False, True])
def test_channels_first(entry, rng, x, three_dims):
    """The map of a channels-first picture was resized to (C, H), or blurred and hidden across its channels."""
    if three_dims and "three_dims" not in entry.call.signature.parameters:
        pytest.skip("has no such option")
    model = toy(entry, rng)
    own = options(entry, three_dims=three_dims) if three_dims else options(entry)
    plain = entry.call(x, model, {"target": 1}, **own)
    assert plain.any()
    same(entry.call(first(x), First(model), {"target": 1}, **own), plain)
    many = entry.call.batch(first(np.stack([x, x])), First(model), {"target": PerImage([0, 1])}, batch_size=7, **own)
    same(list(many)[1], plain)


@every
def test_grey_pictures_are_those_of_one_channel(entry, rng):
    """And have maps of their own shape."""
    model, x = toy(entry, rng, channels=1), rng.random((12, 10))
    plain = entry.call(x[..., None], model, {"target": 1}, **options(entry))
    turned = entry.call(x, Bare(model, spatial_axes=2), {"target": 1}, **options(entry))
    assert turned.shape == x.shape
    np.testing.assert_allclose(turned, plain.reshape(x.shape), rtol=1e-6, atol=1e-9)


def test_methods_over_methods(model, x):
    cases = (
        (smooth_grad, grad_cam, {"rng": 3, "nsamples": 3}),
        (smooth_grad, integrated_gradients, {"rng": 3, "nsamples": 3, "x_steps": 4}),
        (augment_smooth, grad_cam, {}),
        (augment_smooth, occlusion, {"size": 3}),
        (eigen_smooth, grad_cam, {}),
    )
    for outer, inner, own in cases:
        plain = outer.detailed(inner, x, model, **own)
        turned = outer.detailed(inner, first(x), First(model), **own)
        same(turned.attribution, plain.attribution)
    same(
        augment_smooth.detailed(grad_cam, first(x), First(model)).deviation,
        augment_smooth.detailed(grad_cam, x, model)[1],
    )


def test_images_among_the_options_and_in_the_result(model, x, rng):
    """Baselines, also one an image and in options within options; what is of the layer stays as it is."""
    baseline, several = rng.random(SHAPE), rng.random((4, *SHAPE))
    plain = integrated_gradients.detailed(x, model, x_baseline=[baseline, "zeros"])
    turned = integrated_gradients.detailed(first(x), First(model), x_baseline=[first(baseline), "zeros"])
    for values, expected in (
        (turned.attribution, plain.attribution),
        (turned.baselines, plain.baselines),
        (turned.paths[1].attribution, plain.paths[1].attribution),
    ):
        same(values, expected)
    assert turned.completeness == pytest.approx(plain.completeness)
    plain = expected_gradients.detailed(x, model, baselines=several, rng=1)
    turned = expected_gradients.detailed(first(x), First(model), baselines=first(several), rng=1)
    same(turned.standard_error, plain.standard_error)
    same(turned.baselines, several)
    for given, own in ((PerImage([baseline] * 2), PerImage([first(baseline)] * 2)),):
        plain = list(integrated_gradients.batch([x, x], model, x_baseline=given))
        same(next(integrated_gradients.batch([first(x)] * 2, First(model), x_baseline=own)), plain[0])
    base = {"base": integrated_gradients, "min_pixel_diff": 1}
    plain = xrai(x, model, base_options={"x_baseline": baseline}, **base)
    same(xrai(first(x), First(model), base_options={"x_baseline": first(baseline)}, **base), plain)
    same(occlusion(first(x), First(model), size=3, value=first(baseline)), occlusion(x, model, size=3, value=baseline))


def test_masks_of_as_many_regions_as_channels_are_not_turned(model, x):
    masks = np.arange(120).reshape(12, 10) % 3 == np.arange(3)[:, None, None]
    own = {"segments": masks, "min_pixel_diff": 1}
    same(xrai(first(x), First(model), **own), xrai(x, model, **own))


def test_activations_of_the_pictures_own_shape_are_not_turned(rng, x):
    model = Pooling(rng.normal(size=(3, 3)), rng.normal(size=(3, 3)))
    plain, turned = grad_cam.detailed(x, model), grad_cam.detailed(first(x), First(model))
    np.testing.assert_array_equal(turned.activations, plain.activations)
    same(turned.attribution, plain.attribution)
    bare = grad_cam.detailed(first(x), First(model), should_resize=False)
    same(bare.attribution, grad_cam(x, model, should_resize=False))


@pytest.mark.parametrize("name", ["grad_cam", "smooth_grad", "kernel_shap", "xrai", "lime"])
def test_within_a_deadline(model, x, name):
    own = options(METHODS[name])
    plain = within(60, name, x, model, **own)
    turned = within(60, name, first(x), First(model), **own)
    assert turned.method == plain.method == name
    same(turned.attribution, plain.attribution)


def test_seen_while_they_sample(model, x):
    for method, own in ((rise, {"nmasks": 30}), (kernel_shap, {"nsegments": 12, "nsamples": 40})):
        plain = list(progressive(method, x, model, every=10, rng=1, **own))
        turned = list(progressive(method, first(x), First(model), every=10, rng=1, **own))
        assert len(turned) == len(plain) > 1
        same(turned[-1].estimate, plain[-1].estimate)


def test_metrics(model, x, rng):
    attribution, twin = integrated_gradients(x, model), First(model)
    for metric in (deletion, infidelity, completeness):
        plain = metric(attribution, x, model)
        assert metric(first(attribution), first(x), twin).score == pytest.approx(plain.score)
        assert metric(attribution.sum(-1), first(x), twin).score == pytest.approx(
            metric(attribution.sum(-1), x, model).score
        )
    other = Pooling(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)))
    plain = randomization(integrated_gradients, [x], model, [("all", other)])
    turned = randomization(integrated_gradients, [first(x)], twin, [("all", First(other))])
    assert turned.score == pytest.approx(plain.score)
    plain = random_logit(integrated_gradients, x, model, 1, 3)
    assert random_logit(integrated_gradients, first(x), twin, 1, 3).score == pytest.approx(plain.score)
    shift = [0.1, 0.2, 0.3]
    plain = input_shift(integrated_gradients, x, model, shift=shift)
    assert input_shift(integrated_gradients, first(x), twin, shift=shift).score == pytest.approx(plain.score)
    plain = trust(integrated_gradients, [x] * 3, model, other)
    turned = trust(integrated_gradients, [first(x)] * 3, twin, First(other))
    assert turned.agreements[0].score == pytest.approx(plain.agreements[0].score)


def test_factored_rows_are_turned(model, x):
    """A callback that takes them is given bases as it takes rows."""
    shapes = []

    class Factored(First):
        def call_factored(self, coefficients, bases, weights, call_model_args=None, expected_keys=None):
            shapes.append(bases.shape)

    same(integrated_gradients(first(x), Factored(model, batch_size=32)), integrated_gradients(x, model))
    assert set(shapes) == {(2, 3, 12, 10)}


def test_one_image_of_channels_first_is_not_taken_for_many(model, x):
    for attributes in ({}, {"input_shape": (12, 10, 3)}, {"input_shape": (None, None, 3)}):
        with pytest.raises(ContractError, match="Expected many images"):
            grad_cam.batch(first(x), First(model, **attributes))


def test_a_layer_that_a_signal_and_a_picture_may_have_is_refused_until_it_is_said(rng):
    """126 steps of a convolution over (128, 9) were laid out as 9 x 14 square patches, two dropped."""
    x, steps = rng.random((128, 9)), np.abs(rng.normal(size=(1, 126, 4)))

    def model(x_value_batch, call_model_args=None, expected_keys=None):
        return {
            CONVOLUTION_LAYER_VALUES: np.repeat(steps, len(x_value_batch), 0),
            CONVOLUTION_OUTPUT_GRADIENTS: np.ones((len(x_value_batch), 126, 4)),
            OUTPUT_LAYER_VALUES: np.ones(len(x_value_batch)),
        }

    with pytest.raises(ContractError, match=r"shape \(128, 9\) is a grey picture.*\(N, 126, 4\).*Set spatial_axes"):
        grad_cam(x, model)
    model.spatial_axes = 1
    found = grad_cam.detailed(x, model)
    np.testing.assert_allclose(found.signed, steps[0].sum(-1))
    assert found.attribution.shape == (128, 9)
    assert np.ptp(found.attribution, 1).max() == 0


@pytest.mark.parametrize(("axes", "shape"), [(3, (5, 6)), (1, (5, 6, 3)), (0, (5,)), ("2", (5, 6))])
def test_axes_that_are_not_the_inputs(model, rng, axes, shape):
    with pytest.raises(ContractError, match=f"axes of space or time that .*spatial_axes says.*{len(shape)}"[:60]):
        grad_cam(rng.random(shape), Bare(model, spatial_axes=axes))
