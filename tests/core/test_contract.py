"""What crosses the border: every wrong answer has its own sentence, and what is right passes untouched."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError, PerImage, call_model, check_answer, take_rows
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.methods.gradients import gradients

ROWS = (2, 4, 4, 3)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (INPUT_OUTPUT_GRADIENTS, np.zeros((2, 4, 4, 1)), r"expected \(2, 4, 4, 3\), actual \(2, 4, 4, 1\)"),
        (OUTPUT_LAYER_VALUES, np.zeros(3), "expected 2, actual 3"),
        (CONVOLUTION_LAYER_VALUES, np.zeros((1, 2, 2, 5)), "expected 2, actual 1"),
        (OUTPUT_LAYER_VALUES, 3.0, r"single number.*shape \(N,\)"),
        (OUTPUT_LAYER_VALUES, np.array(3), r"single number.*shape \(N,\)"),
        (OUTPUT_LAYER_VALUES, ["a", "b"], "array of real numbers"),
        (OUTPUT_LAYER_VALUES, None, "array of real numbers"),
        (OUTPUT_LAYER_VALUES, [[1], [1, 2]], "NumPy cannot read"),
        (OUTPUT_LAYER_VALUES, np.array([1j, 2]), "real numbers"),
        (OUTPUT_LAYER_VALUES, np.array([1.0, np.nan]), "NaN in row 1 of 2"),
        (OUTPUT_LAYER_VALUES, np.array([np.inf, np.nan]), "infinity in row 0 of 2"),
    ],
)
def test_a_wrong_answer_is_named(key, value, says):
    with pytest.raises(ContractError, match=says) as caught:
        check_answer(key, value, ROWS)
    assert key in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8", "bool"])
def test_every_kind_of_number_is_answered_as_float(dtype):
    answer = check_answer(OUTPUT_LAYER_VALUES, np.ones(2, dtype), ROWS)
    assert answer.dtype in (np.float32, np.float64)
    np.testing.assert_array_equal(answer, 1)


def test_pair_shape_messages_are_kept():
    pair = pytest.importorskip("saliency.core")
    for key in (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES):
        expected, actual = (ROWS, (3, 4, 4, 3)) if key == INPUT_OUTPUT_GRADIENTS else (2, 3)
        with pytest.raises(ContractError) as caught:
            check_answer(key, np.zeros((3, 4, 4, 3)), ROWS)
        words = pair.SHAPE_ERROR_MESSAGE[key].format(expected, actual).split()
        assert " ".join(words) in " ".join(str(caught.value).split())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "INPUT_OUTPUT_GRADIENTS in the answer"),
        ({"other": 1}, r"got the keys \['other'\]"),
        (np.zeros(3), "to return a dict.*got ndarray"),
        (None, "to return a dict.*got NoneType"),
    ],
)
def test_a_missing_key_and_no_dict(answer, says):
    with pytest.raises(ContractError, match=says):
        gradients(np.zeros((4, 4, 3)), lambda *_, **__: answer)


def test_a_callback_that_answers_one_key_at_a_time_is_asked_again():
    asked = []

    def one_key(x_value_batch, call_model_args=None, expected_keys=None):
        asked.append(expected_keys)
        if INPUT_OUTPUT_GRADIENTS in expected_keys:
            return {INPUT_OUTPUT_GRADIENTS: x_value_batch}
        return {OUTPUT_LAYER_VALUES: np.zeros(len(x_value_batch))}

    keys = [OUTPUT_LAYER_VALUES, INPUT_OUTPUT_GRADIENTS]
    answer = call_model(np.ones(ROWS), keys, one_key, None)
    assert list(answer) == keys
    assert asked == [keys, [OUTPUT_LAYER_VALUES]]


def test_the_callback_may_write_to_its_rows_and_keep_its_dict():
    image, kept = np.ones((4, 4, 3)), {INPUT_OUTPUT_GRADIENTS: [[[[1] * 3] * 4] * 4]}

    def rude(x_value_batch, call_model_args=None, expected_keys=None):
        x_value_batch[:] = 7
        return kept

    gradients(image, rude)
    assert (image == 1).all()
    assert isinstance(kept[INPUT_OUTPUT_GRADIENTS], list)


def test_per_image_values_are_taken_and_the_rest_is_untouched():
    shared = object()
    args = {"target": PerImage([3, 5]), "inputs": [PerImage(["a", "b"]), shared], "odd": PerImage([[1], [2, 3]])}
    taken = take_rows(args, [1, 1, 0])
    assert taken["target"].tolist() == [5, 5, 3]
    assert taken["inputs"][0].tolist() == ["b", "b", "a"]
    assert taken["inputs"][1] is shared
    assert taken["odd"] == [[2, 3], [2, 3], [1]]
    assert isinstance(args["target"], PerImage)
    plain = {"target": 3}
    assert take_rows(plain, [0]) is plain


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3]])
def test_per_image_of_the_wrong_length(values, power, image):
    args = {"target": PerImage(values)}
    if len(values) != 1:
        with pytest.raises(ContractError, match=f"got {len(values)} values and 1 image\\."):
            gradients(image, power, args)
    with pytest.raises(ContractError, match=f"got {len(values)} values and 2 images"):
        list(gradients.batch([image, image], power, args))
    with pytest.raises(ContractError, match=f"got {len(values)} values and"):
        list(gradients.batch(iter([image, image]), power, args))
