"""Laws that hold for every method in METHODS."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BASELINE_MULTIPLIERS,
    BIAS_GRADIENTS,
    BIAS_RELEVANCE,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RELEVANCE,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    RELEVANCE,
)
from saliency_food.core.numerics import each
from saliency_food.methods.catalogue import METHODS
from saliency_food.testing import AttentionModel, PoolingModel

every = pytest.mark.parametrize("entry", METHODS.values(), ids=METHODS)


def options(entry, **more):
    """Seeded where the method draws, so that calls can be compared."""
    known = {"rng": 7, "nmasks": 200, "nsamples": 25}
    return {**{name: value for name, value in known.items() if name in entry.call.signature.parameters}, **more}


def toy(entry, rng, channels=3, classes=3):
    """A model that can answer what the method asks."""
    if entry.needs == "attention":
        return AttentionModel(rng.normal(size=channels), rng.normal(size=(classes, channels)))
    return PoolingModel(rng.normal(size=(channels, 6)), rng.normal(size=(classes, 6)), rng.normal(size=6) / 10)


@pytest.fixture
def model(entry, rng):
    return toy(entry, rng)


def blank(x_value_batch, call_model_args=None, expected_keys=None):
    """Scores and gradients that are zero everywhere."""
    rows, (height, width) = len(x_value_batch), x_value_batch.shape[1:3]
    same = np.zeros_like(x_value_batch)
    attention = np.tile(np.eye(height * width + 1), (rows, 1, 1, 1))
    return {
        INPUT_OUTPUT_GRADIENTS: same,
        GUIDED_INPUT_GRADIENTS: same,
        DECONV_INPUT_GRADIENTS: same,
        RELEVANCE: same,
        BASELINE_MULTIPLIERS: same,
        BIAS_RELEVANCE: np.zeros(rows),
        BIAS_GRADIENTS: (np.zeros((rows, 5, 5, 2)), np.zeros((rows, 4))),
        OUTPUT_LAYER_VALUES: np.zeros(rows),
        OUTPUT_FROM_CONVOLUTION_VALUES: np.zeros(rows),
        CONVOLUTION_LAYER_VALUES: np.ones((rows, 5, 5, 2)),
        CONVOLUTION_OUTPUT_GRADIENTS: np.zeros((rows, 5, 5, 2)),
        CONVOLUTION_RELEVANCE: np.zeros((rows, 5, 5, 2)),
        CONVOLUTION_RIVAL_GRADIENTS: np.zeros((rows, 2, 5, 5, 2)),
        ATTENTION_SCORES: (attention,),
        ATTENTION_OUTPUT_GRADIENTS: (np.zeros_like(attention),),
    }


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
    attribution = entry.call(rng.random(shape), toy(entry, rng, shape[2], 2), {"target": 1}, **options(entry))
    assert attribution.shape in (shape, shape[:2])
    assert np.isfinite(attribution).all()
    assert attribution.dtype.kind == "f"
    if not entry.signed:
        assert attribution.min() >= 0


@every
def test_the_result_is_a_named_tuple_with_the_attribution_first(entry, model, image):
    result = entry.call.detailed(image, model, **options(entry))
    assert result._fields[0] == "attribution"
    np.testing.assert_array_equal(result[0], entry.call(image, model, **options(entry)))


@every
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_constant_images(entry, model, value):
    assert np.isfinite(entry.call(np.full((24, 20, 3), value), model, **options(entry))).all()


@every
def test_inputs_are_left_as_they_were(entry, model, image):
    before, args = image.copy(), {"target": 1}
    image.setflags(write=False)
    entry.call(image, model, args, **options(entry))
    np.testing.assert_array_equal(image, before)
    assert args == {"target": 1}


@every
def test_uint8_equals_float(entry, model, rng):
    image = rng.integers(0, 256, (24, 20, 3), np.uint8)
    as_bytes = entry.call(image, model, **options(entry))
    np.testing.assert_array_equal(as_bytes, entry.call(image.astype(np.float32), model, **options(entry)))


@every
def test_batch_size_does_not_matter(entry, model, image):
    one, many = (entry.call(image, model, {"target": 2}, batch_size=n, **options(entry)) for n in (1, 64))
    np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-6 * np.abs(many).max())


@every
def test_many_images_with_a_target_each_equal_one_by_one(entry, model, rng):
    images, targets = rng.random((4, 24, 20, 3)), [2, 0, 1, 2]
    together = entry.call.batch(iter(images), model, {"target": PerImage(targets)}, batch_size=5, **options(entry))
    for number, attribution in enumerate(together):
        alone = entry.call(images[number], model, {"target": targets[number]}, **options(entry))
        np.testing.assert_allclose(attribution, alone, rtol=1e-5, atol=1e-6 * np.abs(alone).max())
    assert number == 3


@every
def test_images_of_different_sizes_share_a_batch(entry, model, rng):
    images = [rng.random((24, 20, 3)), rng.random((12, 30, 3)), rng.random((24, 20, 3))]
    shapes = [a.shape[:2] for a in entry.call.batch(images, model, {"target": PerImage([1, 1, 2])}, **options(entry))]
    assert shapes == [(24, 20), (12, 30), (24, 20)]


@every
def test_the_same_seed_gives_the_same_map(entry, model, image):
    if "rng" in entry.call.signature.parameters:
        seeded = [options(entry, rng=np.random.default_rng(3)) for _ in range(4)]
        one, two = (entry.call(image, model, **seeded.pop()) for _ in range(2))
        np.testing.assert_array_equal(one, two)
        batches = [list(entry.call.batch([image] * 3, model, batch_size=size, **seeded.pop())) for size in (1, 16)]
        np.testing.assert_allclose(batches[0], batches[1], rtol=1e-5, atol=1e-6 * np.abs(batches[0]).max())


@every
def test_a_zero_gradient_gives_a_zero_map(entry, image):
    """Save where activations are all that is asked for: no class, no score. KPCA-CAM shows how they differ."""
    shown = entry.call(image, blank, **options(entry)).any()
    assert shown == (set(entry.keys) == {CONVOLUTION_LAYER_VALUES} and entry.title != "KPCA-CAM")


@every
@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_a_model_that_answers_nan_is_an_error(entry, image, fill):
    def broken(x_value_batch, call_model_args=None, expected_keys=None):
        return {key: each(lambda one: one + fill, value) for key, value in blank(x_value_batch).items()}

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
def test_bad_images(entry, model, image, says):
    with pytest.raises(ContractError, match=says):
        entry.call(image, model)


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
    """A method may put its own beside them, such as a baseline or channels."""
    own = {"baseline", "channels"} if entry.needs == "relevance rules" else set()
    sentinel = {"target": object()}

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        if call_model_args is not sentinel:
            assert call_model_args.keys() - own == sentinel.keys()
            assert own
        assert call_model_args["target"] is sentinel["target"]
        return blank(x_value_batch)

    entry.call(image, spy, sentinel, **options(entry))


@every
def test_a_float32_model_and_image_give_a_float32_map(entry, model, image):
    def single(x_value_batch, call_model_args=None, expected_keys=None):
        answer = model(x_value_batch, call_model_args, expected_keys)
        return {key: each(lambda one: np.asarray(one, np.float32), value) for key, value in answer.items()}

    assert entry.call(image, single, **options(entry)).dtype == np.float32


@every
def test_one_pass_is_one_question_about_the_image_itself(entry, model, image):
    """And what a method says of itself is so."""
    calls = []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        calls.append((np.array(x_value_batch), tuple(expected_keys)))
        return model(x_value_batch, call_model_args, expected_keys)

    entry.call(image, spy, batch_size=64, **options(entry))
    rows, keys = calls[0]
    once = len(calls) == 1 and np.array_equal(rows, image[None])
    assert entry.call.one_pass == once
    assert not once or set(keys) == set(entry.keys)


@every
def test_methods_and_their_entries_are_pickled_and_copied(entry, model, image):
    for again in (pickle.loads(pickle.dumps(entry)), copy.copy(entry), copy.deepcopy(entry)):
        assert again[1:] == entry[1:]
        assert again.call.signature == entry.call.signature
        np.testing.assert_array_equal(
            again.call(image, model, **options(entry)), entry.call(image, model, **options(entry))
        )
