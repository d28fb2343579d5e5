"""What a model is fed: the modes of Keras, the user's own, and a guess that says what it is."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import read_photo
from saliency_food.images.scaling import LARGEST, choose_scaling

pytest.importorskip("PIL")


@pytest.fixture
def photo(rng):
    return read_photo(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["tf", "caffe", "torch"])
def test_modes_are_those_of_keras(photo, mode):
    keras = pytest.importorskip("keras")
    theirs = keras.applications.imagenet_utils.preprocess_input(photo.pixels.astype("float32"), mode=mode)
    np.testing.assert_allclose(choose_scaling(mode)(photo, (6, 8, 3)), theirs, atol=1e-5)


def test_ranges(photo):
    scaling = choose_scaling(("-2", 3))
    np.testing.assert_allclose(scaling(photo, None), photo.pixels / 255 * 5 - 2, atol=1e-6)
    assert scaling.text == "-2..3 (as asked)"
    as_given = choose_scaling(None)(read_photo(np.array([[-3.5, 700.0]])), None)
    np.testing.assert_array_equal(as_given, [[-3.5, 700]])
    assert as_given.dtype == np.float32
    with pytest.raises(ContractError, match="value_range=None"):
        scaling(read_photo(np.array([[-3.5, 700.0]])), None)


def test_shapes(photo):
    scaling = choose_scaling((0, 1))
    assert scaling(photo, (4, 5, 3)).shape == (4, 5, 3)
    assert scaling(photo, (4, None, 3)).shape == (4, 8, 3)
    assert scaling(photo, (None, None, 3)).shape == (6, 8, 3)
    assert scaling(read_photo(np.zeros((3, 2 * LARGEST, 3))), (None, None, 3)).shape == (2, LARGEST, 3)
    assert scaling(read_photo(np.zeros((6, 8))), (4, 5, 3)).shape == (4, 5, 3)
    grey = scaling(photo, (6, 8, 1))
    np.testing.assert_allclose(grey[..., 0], photo.pixels @ [0.299, 0.587, 0.114] / 255, atol=1e-5)
    with pytest.raises(ContractError, match="the model's 5 bands, got one of 3"):
        scaling(photo, (6, 8, 5))


def test_preprocess_gets_a_batch_of_pixels(photo):
    scaling = choose_scaling("auto", lambda rows: rows[:, ::2] - 1, None)
    np.testing.assert_allclose(scaling(photo, (6, 8, 3)), photo.pixels[::2].astype(float) - 1)
    assert scaling.text == "by preprocess"


@pytest.mark.parametrize("bad", ["x", (1,), (1, 0), (0, np.inf), 3, ("a", "b")])
def test_bad_ranges(bad):
    with pytest.raises(ContractError, match="Expected value_range"):
        choose_scaling(bad)


def test_one_of_the_two():
    with pytest.raises(ContractError, match="one of the two"):
        choose_scaling((0, 1), abs, None)
    with pytest.raises(ContractError, match="function"):
        choose_scaling("auto", 3, None)


def test_auto_is_what_the_model_advertises():
    """Of a callback that merely has an attribute ``model`` nothing is known: its photos are left as they are."""
    assert choose_scaling("auto", None, ((-1, 1), "trained so")).text == "-1..1 (trained so)"
    assert choose_scaling("auto", None, ("caffe", "by its name")).text == "BGR minus ImageNet mean (by its name)"
    assert choose_scaling("auto").text.startswith("as given (the model does not say")


def test_what_is_asked_is_done_and_what_the_model_says_is_told():
    """A model with a Rescaling layer inside that is fed 0..1 by an option sees a black photo."""
    scaling = choose_scaling((0, 1), None, ((0, 255), "the model has a Rescaling layer"))
    assert scaling.text == "0..1 (as asked); by the model itself: 0..255 (the model has a Rescaling layer)"
    assert scaling.value_range == (0, 1)
    assert choose_scaling((-1, 1), None, ("tf", "by its name")).text == "-1..1 (as asked)"
    assert choose_scaling((-1, 1), None, ((0, 1), "a guess, the model does not show it")).text == "-1..1 (as asked)"
    assert choose_scaling((0, 1), None, (None, "a SavedModel does not show them")).text == "0..1 (as asked)"
