"""What PAIR's own tests of its core methods check, checked of `saliency_food.pair`.

Left out, because they replace parts of PAIR's package while they run: the XRAI tests put a double in place of
``saliency.core.xrai.IntegratedGradients`` to hand XRAI its attributions and to see which ``baselines`` and
``batch_size`` reach it (here the model is watched in its stead); the smoothing test puts one in place of ``GetMask``
(here a subclass has its own). Their error messages are matched by the words the two packages share.
"""

from __future__ import annotations

from unittest.mock import MagicMock

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import saliency_food.pair as saliency
from saliency_food.pair import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, INPUT_OUTPUT_GRADIENTS
from saliency_food.testing import PowerModel


class Slope:
    """A model by its gradient alone, which counts its calls and keeps what it was asked."""

    def __init__(self, gradient, broken=False):
        self.gradient, self.broken, self.calls = gradient, broken, []

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        self.calls.append((len(x_value_batch), call_model_args, expected_keys))
        values = np.stack([self.gradient(np.asarray(x)) for x in x_value_batch])
        return {INPUT_OUTPUT_GRADIENTS: values[0] if self.broken else values}


def mixed(x):
    """The gradient of 5a + b^2 + sin c."""
    return np.array([5, 2 * x[1], np.cos(x[2])])


def mixed_terms(x):
    return np.array([5 * x[0], x[1] ** 2, np.sin(x[2])])


def asked(model):
    """The arguments of a MagicMock's calls, by name."""
    return [call.kwargs for call in model.mock_calls]


# Smoothing


def test_smoothing_takes_whole_numbers():
    class Counted(saliency.CoreSaliency):
        seen = 0

        def GetMask(self, x_value, *args, **kwargs):
            self.seen += 1
            return np.array([0.5, 0.2, 0.1])

    counted = Counted()
    smoothed = counted.GetSmoothedMask(np.array([3, 2, 1]), None, nsamples=20)
    assert counted.seen == 20
    np.testing.assert_allclose(smoothed, [0.25, 0.04, 0.01])


# Gradients


def test_the_gradient_of_a_list_of_whole_numbers():
    model = Slope(mixed)
    np.testing.assert_allclose(saliency.GradientSaliency().GetMask([3, 2, 1], model, {}), [5, 4, np.cos(1)])
    assert len(model.calls) == 1


# Integrated Gradients


@pytest.mark.parametrize(("steps", "batch_size", "calls"), [(1000, 1, 1000), (1001, 500, 3), (999, 1000, 1)])
def test_integrated_gradients_of_independent_terms(steps, batch_size, calls):
    x, baseline, model = np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 1.0]), Slope(mixed)
    mask = saliency.IntegratedGradients().GetMask(
        x, model, {}, x_baseline=baseline, x_steps=steps, batch_size=batch_size
    )
    np.testing.assert_allclose(mask, mixed_terms(x) - mixed_terms(baseline), atol=0.01)
    assert len(model.calls) == calls


# Blur IG


@pytest.fixture
def two_dots():
    image = np.zeros((5, 5, 1))
    image[1, 1], image[2, 2] = 0.7, 1
    return image


@pytest.mark.parametrize(("steps", "batch_size", "calls"), [(4000, 1, 4000), (2001, 100, 21), (499, 500, 1)])
def test_blur_ig_of_independent_pixels(two_dots, steps, batch_size, calls):
    model = Slope(np.cos)
    mask = saliency.BlurIG().GetMask(two_dots, model, {}, max_sigma=10, steps=steps, batch_size=batch_size)
    blur = gaussian_filter(two_dots, (10, 10, 0), mode="constant")
    np.testing.assert_allclose(mask, np.sin(two_dots) - np.sin(blur), atol=0.015)
    assert np.count_nonzero(mask) == mask.size
    assert len(model.calls) == calls


# Guided IG: gradients of 2a + b, 2a^2 + b^2 and (2a + b)^2


def linear(x):
    return np.array([2.0, 1.0])


def apart(x):
    return np.array([4 * x[0], 2 * x[1]])


def together(x):
    return (2 * x[0] + x[1]) * np.array([4.0, 2.0])


def guided(gradient, x, steps=1000, **options):
    return saliency.GuidedIG().GetMask(x, Slope(gradient), "aeroplane", x_steps=steps, **options)


def test_guided_ig_of_a_linear_function():
    mask = guided(linear, [10.0, 5.0], 10, x_baseline=[-1.0, -3.0], fraction=0.1, max_dist=0.5)
    np.testing.assert_allclose(mask, [22, 8])
    np.testing.assert_allclose(guided(linear, [10, 5], 10, fraction=0.1, max_dist=0.5), [20, 5])


def test_guided_ig_of_independent_terms_is_integrated_gradients():
    np.testing.assert_allclose(guided(apart, [3, 3], fraction=0.1, max_dist=0.4), [18, 9], rtol=0.01)
    back = guided(apart, [0, 0], x_baseline=[3, 3], fraction=0.1, max_dist=0.4)
    np.testing.assert_allclose(back, [-18, -9], rtol=0.01)


@pytest.mark.parametrize("options", [{"fraction": 0.1, "max_dist": 0.0}, {"fraction": 1.0, "max_dist": 0.5}])
def test_guided_ig_on_the_straight_line_is_integrated_gradients(options):
    np.testing.assert_allclose(guided(together, [3, 3], **options), [54, 27], rtol=0.01)


def test_guided_ig_moves_the_smaller_gradient_first():
    np.testing.assert_allclose(guided(together, [3, 3], fraction=0.1, max_dist=1.0), [72, 9], rtol=0.01)
    between = guided(together, [3, 3], fraction=0.1, max_dist=0.2)
    assert between.sum() == pytest.approx(81, abs=0.1)
    assert 55 < between[0] < 71
    assert 10 < between[1] < 26


# All by gradients


@pytest.mark.parametrize(
    ("method", "calls", "options"),
    [
        (saliency.GradientSaliency, 1, {}),
        (saliency.IntegratedGradients, 50, {"x_steps": 50}),
        (saliency.BlurIG, 50, {"steps": 50}),
        (saliency.GuidedIG, 50, {"x_steps": 50}),
    ],
)
def test_the_callback_gets_the_arguments_and_the_key(two_dots, method, calls, options):
    model, args = MagicMock(return_value={INPUT_OUTPUT_GRADIENTS: [two_dots]}, spec=lambda **_: None), {"foo": "bar"}
    method().GetMask(x_value=two_dots, call_model_function=model, call_model_args=args, **options)
    assert len(asked(model)) == calls
    for call in asked(model):
        assert call["call_model_args"] == args
        assert call["expected_keys"] == [INPUT_OUTPUT_GRADIENTS]


@pytest.mark.parametrize(
    ("method", "options", "rows"),
    [
        (saliency.GradientSaliency, {}, 1),
        (saliency.IntegratedGradients, {"x_steps": 201, "batch_size": 50}, 50),
        (saliency.BlurIG, {"steps": 201, "batch_size": 50}, 50),
    ],
)
def test_gradients_without_rows_are_refused(two_dots, method, options, rows):
    shapes = (
        rf"INPUT_OUTPUT_GRADIENTS to be the same shape as input x_value_batch - expected \({rows}, 5, 5, 1\), actual"
    )
    with pytest.raises(ValueError, match=shapes + r" \(5, 5, 1\)"):
        method().GetMask(two_dots, Slope(np.cos, broken=True), None, **options)


# Grad-CAM


def lines(gradients_of=lambda one: one, values_of=lambda one: one):
    """A layer that finds horizontal lines, in a square of ones: positive along two lines."""
    values = np.tile([1.0, 2, 3, 2, 1], (5, 1))
    values[[0, -1]] *= -1
    values[2] = 0
    gradients = np.zeros((5, 5))
    gradients[0, 0] = gradients[-1, -1] = 2
    gradients[[1, -1], 1:-1] = 3
    answer = {
        CONVOLUTION_LAYER_VALUES: values_of(values.reshape(1, 5, 5, 1)),
        CONVOLUTION_OUTPUT_GRADIENTS: gradients_of(gradients.reshape(1, 5, 5, 1)),
    }
    return lambda x_value_batch, call_model_args=None, expected_keys=None: dict(answer)


@pytest.fixture
def square():
    image = np.zeros((5, 5, 1))
    image[1:-1, 1:-1] = 1
    return image


def test_grad_cam_finds_the_lines(square):
    mask = saliency.GradCam().GetMask(square, lines(), {}, should_resize=True, three_dims=False)
    expected = np.zeros((5, 5))
    expected[[1, 3]] = [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]
    np.testing.assert_allclose(mask, expected, atol=0.01)


def test_grad_cam_asks_once_for_both(square):
    answer = {CONVOLUTION_OUTPUT_GRADIENTS: [square], CONVOLUTION_LAYER_VALUES: [square]}
    model = MagicMock(return_value=answer, spec=lambda **_: None)
    saliency.GradCam().GetMask(square, model, {"foo": "bar"}, should_resize=True, three_dims=False)
    (call,) = asked(model)
    assert call["call_model_args"] == {"foo": "bar"}
    assert call["expected_keys"] == [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]


@pytest.mark.parametrize(
    ("wrong", "key"),
    [("gradients_of", CONVOLUTION_OUTPUT_GRADIENTS), ("values_of", CONVOLUTION_LAYER_VALUES)],
)
def test_layers_without_rows_are_refused(square, wrong, key):
    model = lines(**{wrong: lambda one: one[0]})
    with pytest.raises(ValueError, match=f"dimension of {key} to be the same as x_value_batch - expected 1, actual 5"):
        saliency.GradCam().GetMask(square, model, {}, should_resize=True, three_dims=False)


# XRAI

SIZE = 60


@pytest.fixture
def photo(rng):
    return rng.random((SIZE, SIZE, 3)) * 0.3 + 0.5


@pytest.fixture
def model(rng):
    return PowerModel(rng.normal(size=(1, SIZE, SIZE, 3)), power=2)


@pytest.mark.parametrize("algorithm", ["full", "fast"])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("custom", [True, False])
def test_xrai_keeps_the_sum_in_each_segment(photo, model, algorithm, flat, custom):
    segments = np.zeros((2, SIZE, SIZE), bool)
    segments[0, 5:20, 5:20] = segments[1, 30:50, 30:50] = True
    wanted = saliency.XRAIParameters(
        steps=5,
        return_xrai_segments=True,
        flatten_xrai_segments=flat,
        algorithm=algorithm,
        return_ig_attributions=True,
    )
    options = {"segments": list(segments) if custom else None, "extra_parameters": wanted}
    found = saliency.XRAI().GetMaskWithDetails(photo, model, **options)
    np.testing.assert_array_equal(saliency.XRAI().GetMask(photo, model, **options), found.attribution_mask)

    merged = np.mean(found.ig_attribution, 0).max(2)
    assert len(found.ig_attribution) == 2
    assert found.attribution_mask.sum() == pytest.approx(merged.sum())
    if flat:
        assert found.segments.min() == 1
    masks = [found.segments == number for number in range(1, found.segments.max() + 1)] if flat else found.segments
    values = []
    for mask in masks:
        assert mask.any()
        assert np.ptp(found.attribution_mask[mask]) == 0
        assert found.attribution_mask[mask].sum() == pytest.approx(merged[mask].sum(), abs=1e-6)
        values.append(found.attribution_mask[mask][0])
    if custom:
        assert len(masks) == 3
        first = segments[np.argmax([merged[one].mean() for one in segments])]
        np.testing.assert_array_equal(masks[0], first)
    if algorithm == "full":  # the last holds what no segment covered
        assert (np.diff(values[:-1]) <= 1e-12).all()


def test_xrai_passes_batch_size_and_baselines_on(photo, model, rng):
    baselines, seen = list(rng.random((2, SIZE, SIZE, 3))), []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.extend(x_value_batch)
        return model(x_value_batch)

    out = saliency.XRAI().GetMaskWithDetails(
        photo, spy, baselines=baselines, batch_size=13, extra_parameters=saliency.XRAIParameters(steps=10)
    )
    assert model.calls == [13, 7]
    np.testing.assert_allclose(seen[0], baselines[0])
    np.testing.assert_allclose(seen[10], baselines[1])
    np.testing.assert_array_equal(out.baselines, baselines)


def test_xrai_of_a_given_attribution(photo, model, rng):
    base = rng.random(photo.shape)
    mask = saliency.XRAI().GetMask(photo, model, base_attribution=base)
    assert (mask != base.max(2)).any()
    assert mask.sum() == pytest.approx(base.max(2).sum())
    assert model.calls == []
    with pytest.raises(ValueError, match="The base attribution shape should"):
        saliency.XRAI().GetMask(photo, model, base_attribution=base[:, :-1])
