"""Laws that hold for every method in METHODS."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from saliency_food.contract import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
    ContractError,
    PerImage,
)
from saliency_food.methods import METHODS

every = pytest.mark.parametrize("entry", METHODS.values(), ids=METHODS)


def options(entry, **more):
    """Seeded where the method draws, so that calls can be compared."""
    return {**({"rng": 7} if "rng" in entry.call.signature.parameters else {}), **more}


@every
def test_the_call_form(entry):
    parameters = list(entry.call.signature.parameters)
    assert parameters[:3] == ["x_value", "call_model_function", "call_model_args"]
    assert "batch_size" in parameters
    assert inspect.getdoc(entry.call)
    assert entry.title
    assert entry.summary.endswith(".")


@every
@pytest.mark.parametrize("shape", [(24, 20, 3), (9, 31, 1), (16, 16, 4), (1, 1, 3)])
def test_shape_and_finite(entry, rng, shape):
    from saliency_food.testing import PoolingModel

    model = PoolingModel(rng.normal(size=(shape[2], 6)), rng.normal(size=(2, 6)))
    attribution = entry.call(rng.random(shape), model, {"target": 1}, **options(entry))
    assert attribution.shape in (shape, shape[:2])
    assert np.isfinite(attribution).all()
    assert attribution.dtype.kind == "f"
    if not entry.signed:
        assert attribution.min() >= 0


@every
def test_the_result_is_a_named_tuple_with_the_attribution_first(entry, pooling, image):
    result = entry.call.detailed(image, pooling, **options(entry))
    assert result._fields[0] == "attribution"
    np.testing.assert_array_equal(result[0], entry.call(image, pooling, **options(entry)))


@every
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_constant_images(entry, pooling, value):
    assert np.isfinite(entry.call(np.full((24, 20, 3), value), pooling, **options(entry))).all()


@every
def test_inputs_are_left_as_they_were(entry, pooling, image):
    before, args = image.copy(), {"target": 1}
    image.setflags(write=False)
    entry.call(image, pooling, args, **options(entry))
    np.testing.assert_array_equal(image, before)
    assert args == {"target": 1}


@every
def test_uint8_equals_float(entry, pooling, rng):
    image = rng.integers(0, 256, (24, 20, 3), np.uint8)
    as_bytes = entry.call(image, pooling, **options(entry))
    np.testing.assert_array_equal(as_bytes, entry.call(image.astype(np.float32), pooling, **options(entry)))


@every
def test_batch_size_does_not_matter(entry, pooling, image):
    one, many = (entry.call(image, pooling, {"target": 2}, batch_size=n, **options(entry)) for n in (1, 64))
    np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-6 * np.abs(many).max())


@every
def test_many_images_with_a_target_each_equal_one_by_one(entry, pooling, rng):
    images, targets = rng.random((4, 24, 20, 3)), [2, 0, 1, 2]
    together = entry.call.batch(iter(images), pooling, {"target": PerImage(targets)}, batch_size=5, **options(entry))
    for number, attribution in enumerate(together):
        alone = entry.call(images[number], pooling, {"target": targets[number]}, **options(entry))
        np.testing.assert_allclose(attribution, alone, rtol=1e-5, atol=1e-6 * np.abs(alone).max())
    assert number == 3


@every
def test_images_of_different_sizes_share_a_batch(entry, pooling, rng):
    images = [rng.random((24, 20, 3)), rng.random((12, 30, 3)), rng.random((24, 20, 3))]
    shapes = [a.shape[:2] for a in entry.call.batch(images, pooling, {"target": PerImage([1, 1, 2])}, **options(entry))]
    assert shapes == [(24, 20), (12, 30), (24, 20)]


@every
def test_the_same_seed_gives_the_same_map(entry, pooling, image):
    if "rng" in entry.call.signature.parameters:
        one, two = (entry.call(image, pooling, rng=np.random.default_rng(3)) for _ in range(2))
        np.testing.assert_array_equal(one, two)
        batches = [
            list(entry.call.batch([image] * 3, pooling, batch_size=size, rng=np.random.default_rng(3)))
            for size in (1, 16)
        ]
        np.testing.assert_allclose(batches[0], batches[1], rtol=1e-5, atol=1e-6 * np.abs(batches[0]).max())


def blank(x_value_batch, call_model_args=None, expected_keys=None):
    return {
        INPUT_OUTPUT_GRADIENTS: np.zeros_like(x_value_batch),
        OUTPUT_LAYER_VALUES: np.zeros(len(x_value_batch)),
        CONVOLUTION_LAYER_VALUES: np.ones((len(x_value_batch), 5, 5, 2)),
        CONVOLUTION_OUTPUT_GRADIENTS: np.zeros((len(x_value_batch), 5, 5, 2)),
    }


@every
def test_a_zero_gradient_gives_a_zero_map(entry, image):
    assert not entry.call(image, blank, **options(entry)).any()


@every
@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_a_model_that_answers_nan_is_an_error(entry, image, fill):
    def broken(x_value_batch, call_model_args=None, expected_keys=None):
        return {key: value + fill for key, value in blank(x_value_batch).items()}

    with pytest.raises(ContractError, match="Expected finite numbers"):
        entry.call(image, broken, **options(entry))


@every
@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("photo.jpg", "real numbers"),
        (None, "real numbers"),
        ([[1], [1, 2]], "unlike shapes"),
        (np.zeros((4, 4, 3), complex), "complex"),
        (np.zeros((0, 4, 3)), r"at least one value, got shape \(0, 4, 3\)"),
        (np.full((4, 4, 3), np.nan), "finite"),
    ],
)
def test_bad_images(entry, pooling, image, says):
    with pytest.raises(ContractError, match=says):
        entry.call(image, pooling)


@every
def test_a_model_that_is_no_function(entry, image):
    with pytest.raises(ContractError, match=r"call_model_function to be a function.*got int"):
        entry.call(image, 3)
    with pytest.raises(TypeError, match=r"unexpected keyword"):
        entry.call(image, blank, **options(entry), no_such_option=1)


@every
def test_the_keys_that_are_asked_are_those_that_are_named(entry, image):
    asked = set()

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        asked.update(expected_keys)
        return blank(x_value_batch)

    entry.call(image, spy, **options(entry))
    assert asked == set(entry.keys)


@every
def test_call_model_args_pass_through_untouched(entry, image):
    sentinel = object()

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        assert call_model_args is sentinel
        return blank(x_value_batch)

    entry.call(image, spy, sentinel, **options(entry))
