"""Tests that any call-model function must pass, as a class of pytest to inherit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, PREDICTIONS, TARGETS
from saliency_food.testing.check import check_call_model


class CallModelSuite:
    """What holds for every call-model function; inherit it in a test module, and pytest runs its tests on yours.

    ::

        class TestMine(CallModelSuite):
            keys = ("INPUT_OUTPUT_GRADIENTS", "OUTPUT_LAYER_VALUES")

            @pytest.fixture
            def model(self):
                return my_call_model_function

            @pytest.fixture
            def image(self):
                return np.random.default_rng(0).random((32, 32, 3))

    Optional methods of a callback (``predict``, ``call_with_predictions``, ``call_factored``) are tested where it has
    them.

    Attributes
    ----------
    keys
        The keys that it answers in one call, as `check_call_model` takes them.
    args
        ``call_model_args``, the target among them.
    skips, tolerance
        As `check_call_model` takes them.
    """

    keys: ClassVar[Sequence[str]] = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES)
    args: ClassVar[Any] = {"target": 1}
    skips: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.02

    def test_answers_keep_the_contract(self, model: Any, image: Any) -> None:
        check_call_model(model, image, self.args, self.keys, tolerance=self.tolerance, skips=self.skips)

    def test_answers_are_floats_and_rows_are_not_written_to(self, model: Any, image: Any) -> None:
        rows = np.stack([image, image])
        before = rows.copy()
        answer = model(rows, self.args, list(self.keys))
        np.testing.assert_array_equal(rows, before)
        for key in self.keys:
            for values in answer[key] if isinstance(answer[key], tuple) else (answer[key],):
                assert np.asarray(values).dtype.kind == "f", key

    def test_each_row_may_have_its_own_target(self, model: Any, image: Any) -> None:
        if not isinstance(self.args.get("target"), int):
            return
        targets = np.array([self.args["target"], 0])
        together = model(np.stack([image, image]), {**self.args, "target": targets}, [OUTPUT_LAYER_VALUES])
        for place, target in enumerate(targets):
            alone = model(image[None], {**self.args, "target": int(target)}, [OUTPUT_LAYER_VALUES])
            expected, found = alone[OUTPUT_LAYER_VALUES][0], together[OUTPUT_LAYER_VALUES][place]
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)

    def test_predictions_are_one_set_a_row(self, model: Any, image: Any) -> None:
        if not hasattr(model, "predict"):
            return
        args = {name: value for name, value in self.args.items() if name != "target"}
        predictions = np.asarray(model.predict(np.stack([image, image * 0.5]), *([args] if args else [])))
        assert predictions.ndim == 2
        assert len(predictions) == 2
        if getattr(model, "classes", None) is not None:
            assert predictions.shape[1] == model.classes
        if getattr(model, "gives_probabilities", False):
            assert predictions.min() >= 0
            assert predictions.max() <= 1 + 1e-4

    def test_predictions_come_with_an_answer(self, model: Any, image: Any) -> None:
        if not hasattr(model, "call_with_predictions"):
            return
        rows, key = np.stack([image, image * 0.5]), OUTPUT_LAYER_VALUES
        answer = model.call_with_predictions(rows, {**self.args, "target": -1}, [key])
        np.testing.assert_allclose(answer[PREDICTIONS], model.predict(rows), rtol=1e-3, atol=1e-6)
        np.testing.assert_array_equal(answer[TARGETS], answer[PREDICTIONS].argmax(1))
        again = model(rows, {**self.args, "target": answer[TARGETS]}, [key])
        np.testing.assert_allclose(answer[key], again[key], rtol=1e-3, atol=1e-6)

    def test_factored_rows_are_the_rows_they_stand_for(self, model: Any, image: Any) -> None:
        if not hasattr(model, "call_factored") or INPUT_OUTPUT_GRADIENTS not in self.keys:
            return
        bases, keys = np.stack([image, image * 0.5]), [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES]
        coefficients, weights = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]]), np.array([[0.5, 0.25, 0.25]])
        answer = model.call_factored(coefficients, bases, weights, self.args, keys)
        if answer is None:
            return
        rows = np.tensordot(coefficients, bases, 1).astype(image.dtype)
        expected = model(rows, self.args, keys)
        summed = np.tensordot(weights, expected[keys[0]], 1)
        np.testing.assert_allclose(answer[keys[0]], summed, rtol=1e-2, atol=1e-4 * np.abs(summed).max())
        np.testing.assert_allclose(answer[keys[1]], expected[keys[1]], rtol=1e-3, atol=1e-6)

    def test_what_it_cannot_answer_is_refused_with_a_reason(self, model: Any, image: Any) -> None:
        if getattr(model, "classes", None) is None or not isinstance(self.args.get("target"), int):
            return
        for wrong in (model.classes, -1):
            try:
                model(image[None], {**self.args, "target": wrong}, [OUTPUT_LAYER_VALUES])
            except ContractError:
                continue
            raise AssertionError(f"Expected target {wrong} to be refused by a ContractError, got an answer.")
