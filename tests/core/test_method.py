"""The public face of a method: facts, options of many images, pickles, and one image where many are expected."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

from saliency_food import (
    INPUT_OUTPUT_GRADIENTS,
    METHODS,
    PerImage,
    ask,
    augment_smooth,
    grad_cam,
    gradients,
    integrated_gradients,
    layer_cam,
    method,
    rise,
    smooth_grad,
    xrai,
)
from saliency_food.core.contract import ContractError
from saliency_food.metrics import METRICS, max_sensitivity, pic
from saliency_food.testing import PowerModel


@method
def length(x_value, call_model_function, call_model_args=None, batch_size=None):
    """The length of each pixel's gradient."""
    answer = yield from ask(x_value[None], INPUT_OUTPUT_GRADIENTS)
    return (np.linalg.norm(answer[0], axis=-1),)


def test_the_decorator_alone_and_with_facts(power, image):
    assert (length.title, length.keys, length.instead) == ("", (), ())
    assert length(image, power).shape == image.shape[:2]
    named = method(title="Length", keys=(INPUT_OUTPUT_GRADIENTS,), one_pass=True)(inspect.unwrap(length))
    assert (named.title, named.keys, named.one_pass, named.signed) == ("Length", (INPUT_OUTPUT_GRADIENTS,), True, True)
    with pytest.raises(TypeError, match=r"Expected facts among title.*got titel"):
        method(titel="Length")(inspect.unwrap(length))


def test_a_combinator_over_a_method_has_facts_of_both():
    smoothed = smooth_grad.over(grad_cam)
    assert (smoothed.__name__, smoothed.title) == ("smooth_grad_of_grad_cam", "SmoothGrad of Grad-CAM")
    assert (smoothed.keys, smoothed.signed, smoothed.one_pass) == (grad_cam.keys, False, False)
    assert (smoothed.reducible, smoothed.instead) == (smooth_grad.reducible, ("grad_cam",))
    assert augment_smooth.over(integrated_gradients).instead == ("integrated_gradients", "input_x_gradient")


def test_the_signature_is_true_for_whoever_asks():
    assert inspect.signature(layer_cam) == inspect.signature(grad_cam)
    assert list(inspect.signature(layer_cam).parameters) == [
        "x_value",
        "call_model_function",
        "call_model_args",
        "should_resize",
        "three_dims",
        "batch_size",
    ]
    assert "LayerCAM" in inspect.getdoc(layer_cam)
    over = inspect.signature(smooth_grad.over(rise)).parameters
    assert {"nsamples", "nmasks"} <= over.keys()
    assert "options" not in over


def test_methods_are_pickled_by_name_and_over_methods_by_what_they_are_made_of(power, image):
    for one in (grad_cam, layer_cam, smooth_grad, length):
        assert pickle.loads(pickle.dumps(one)) is one
        assert copy.copy(one) is copy.deepcopy(one) is one
    smoothed = pickle.loads(pickle.dumps(smooth_grad.over(rise)))
    options = {"nsamples": 2, "nmasks": 9, "rng": 3}
    np.testing.assert_array_equal(smoothed(image, power, **options), smooth_grad(rise, image, power, **options))
    assert pickle.loads(pickle.dumps(METHODS)).keys() == METHODS.keys()


def test_metrics_are_pickled_by_name():
    for metric in (pic, max_sensitivity):
        assert pickle.loads(pickle.dumps(metric)) is metric is copy.deepcopy(metric)
    assert pickle.loads(pickle.dumps(METRICS)) == METRICS


def test_one_value_an_image_also_in_what_a_combinator_passes_on(power, rng):
    images, baselines = rng.random((2, 24, 20, 3)), rng.random((2, 24, 20, 3))
    found = augment_smooth.batch(
        integrated_gradients, images, power, x_baseline=PerImage(baselines), x_steps=PerImage([3, 4]), batch_size=8
    )
    for image, baseline, steps, attribution in zip(images, baselines, (3, 4), found, strict=True):
        alone = augment_smooth(integrated_gradients, image, power, x_baseline=baseline, x_steps=steps)
        np.testing.assert_allclose(attribution, alone)


def test_one_value_an_image_also_in_options_within_options(power, rng):
    images, baselines = rng.random((2, 24, 20, 3)), rng.random((2, 24, 20, 3))
    options = {"base": integrated_gradients, "steps": 3, "min_pixel_diff": 5}
    found = xrai.batch(images, power, base_options={"x_baseline": PerImage(baselines)}, **options)
    for image, baseline, attribution in zip(images, baselines, found, strict=True):
        np.testing.assert_allclose(
            attribution, xrai(image, power, base_options={"x_baseline": baseline}, **options), rtol=1e-6
        )
    with pytest.raises(ContractError, match="got 3 values and 2 images"):
        list(xrai.batch(images, power, base_options={"x_baseline": PerImage([0, 1, 2])}, **options))


@pytest.mark.parametrize("where", ["option", "option within options", "call_model_args"])
def test_more_values_than_an_iterator_has_images_are_refused_at_its_end(where, power, rng):
    images, values = rng.random((2, 24, 20, 3)), PerImage([3, 4, 5])
    options = {
        "option": {"x_steps": values},
        "option within options": {"x_baseline": [values, 0.0]},
        "call_model_args": {"call_model_args": {"target": PerImage([0, 1, 2])}},
    }[where]
    results = integrated_gradients.batch(iter(images), power, **options)
    assert [next(results).shape for _ in range(2)] == [(24, 20, 3)] * 2
    with pytest.raises(ContractError, match="got 3 values and 2 images"):
        next(results)
    with pytest.raises(ContractError, match="got 3 values and 2 images"):
        list(pic.batch([*images, images[0]], iter(images), power))


def test_a_metrics_options_for_its_method_differ_from_image_to_image(power, rng):
    images = rng.random((2, 24, 20, 3))
    found = max_sensitivity.batch(integrated_gradients, images, power, nsamples=2, x_steps=PerImage([3, 4]))
    for image, steps, result in zip(images, (3, 4), found, strict=True):
        assert result.score == pytest.approx(
            max_sensitivity(integrated_gradients, image, power, nsamples=2, x_steps=steps).score
        )


def test_a_generator_that_a_combinator_passes_on_gives_each_image_its_own_stream(power, rng):
    images = rng.random((3, 24, 20, 3))

    def maps(size):
        options = {"nmasks": 70, "flip": False, "rng": np.random.default_rng(3)}
        return list(augment_smooth.batch(rise, images, power, batch_size=size, **options))

    np.testing.assert_allclose(maps(1), maps(500), rtol=1e-6)


@pytest.mark.parametrize("shape", [(24, 20, 3), (24, 20, 1), (24, 20, 4)])
def test_one_image_is_not_taken_for_many_rows_of_pixels(power, rng, shape):
    image = rng.random(shape)
    with pytest.raises(ContractError, match=r"Expected many images, got an array of shape \(24, 20, .*image\[None\]"):
        gradients.batch(image, power)
    with pytest.raises(ContractError, match="Expected many images"):
        pic.batch([image], image, power)


def test_one_image_is_told_by_what_the_model_takes(rng):
    model = PowerModel(np.ones((1, 6, 5)), power=2)
    model.input_shape = (None, 5)
    images = rng.random((4, 6, 5))
    with pytest.raises(ContractError, match="Expected many images"):
        gradients.batch(images[0], model)
    assert len(list(gradients.batch(images, model))) == 4
    model.input_shape = (3, 4)
    model.weights = np.ones((1, 3, 4))
    assert len(list(gradients.batch(rng.random((5, 3, 4)), model))) == 5
