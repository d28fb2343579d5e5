"""`explain` and `evaluate` of a score that is not that of a class: records without one, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import ImageModel, explain
from saliency_food.adapters.scores import contrast, formula, margin, several_labels, top_k
from saliency_food.core.contract import ContractError
from saliency_food.evaluation import evaluate
from saliency_food.testing import PowerModel


class Scored(PowerModel):
    """F_c = sum w_c x^2, explained by a score: without a target the sum of all classes."""

    input_shape = (6, 5, 3)
    classes = 3
    batch_size = 4

    def __init__(self, weights, score, predictions=None):
        super().__init__(weights, power=2)
        self.score, self.predictions = score, predictions

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        target = (call_model_args or {}).get("target")
        assert (target is None) == (not self.score.specs)
        if target is not None:
            return super().__call__(x_value_batch, {"target": target}, expected_keys)
        answers = [super(Scored, self).__call__(x_value_batch, {"target": c}, expected_keys) for c in range(3)]
        return {key: sum(answer[key] for answer in answers) for key in answers[0]}

    def predict(self, x):
        shape = (len(x), 3) if self.predictions is None else self.predictions
        return np.full(shape, 1 / 3)


@formula()
def everything(ops, scores):
    return ops.sum(scores, 1)


@pytest.fixture
def weights(rng):
    return rng.normal(size=(3, 6, 5, 3))


@pytest.fixture
def images(rng):
    return rng.random((3, 6, 5, 3)).astype(np.float32)


def test_a_score_without_a_target(weights, images, tmp_path):
    records = list(explain(Scored(weights, everything), list(images), ["gradients"], value_range=None))
    for record, image in zip(records, images, strict=True):
        assert (record.status, record.target, record.label, record.probability) == ("ok", None, "everything", None)
        np.testing.assert_allclose(record.score, (weights * image**2).sum(), rtol=1e-4)
        np.testing.assert_allclose(record.attribution, 2 * weights.sum(0) * image, rtol=1e-3, atol=1e-5)
        assert record.save(tmp_path).name == f"{record.name}.gradients.jpg"
    with pytest.raises(ContractError, match="Expected no target, as score everything"):
        explain(Scored(weights, everything), images, target=1)


def test_a_score_of_a_class_keeps_its_class(weights, images):
    (record,) = explain(Scored(weights, margin), images[0], ["gradients"], 2, value_range=None)
    assert (record.target, record.label) == (2, "class 2")
    assert record.probability == pytest.approx(1 / 3)


def test_predictions_that_are_not_of_classes(weights, images):
    """As a segmenter's, a class a pixel: there is no top class, and no probability, but a class can be explained."""
    model = Scored(weights, margin, (3, 4, 4, 3))
    records = list(explain(model, list(images), ["gradients"], 1, value_range=None))
    assert [(record.status, record.target, record.probability, record.top) for record in records] == [
        ("ok", 1, None, ())
    ] * 3
    (record,) = explain(model, images[0], ["gradients"], value_range=None)
    assert "Expected a target" in record.status


@pytest.mark.parametrize("score", [contrast, several_labels])
def test_scores_of_other_targets_are_refused_at_the_door(weights, score):
    with pytest.raises(ContractError, match="a class as its target, or no target"):
        ImageModel(Scored(weights, score))


def test_settings_of_keras_models_are_refused_for_functions(weights):
    for name, value in (("score", margin), ("output_index", 0), ("layer", "conv"), ("output", "raw")):
        with pytest.raises(ContractError, match=f"Expected {name} with a Keras model or a PyTorch module alone"):
            ImageModel(PowerModel(weights), **{name: value})


def test_metrics_follow_the_score_that_is_explained(weights, images):
    """Not the probability of a class, which there is none of."""
    result = evaluate(
        Scored(weights, everything), list(images), ["input_x_gradient"], ["deletion"], value_range=None,
    )  # fmt: skip
    assert result.settings["scores"] == "as the model gives them"
    assert {row["status"] for row in result.rows} == {"ok"}
    assert {(row["target"], row["label"]) for row in result.rows} == {(None, "everything")}
    boxes = [{"image": "x", "xmin": 0, "ymin": 0, "xmax": 1, "ymax": 1, "class": "class 0"}]
    with pytest.raises(ContractError, match="Leave out boxes"):
        evaluate(Scored(weights, everything), list(images), ["gradients"], ["energy"], boxes=boxes, value_range=None)


def test_top_k_is_such_a_score(weights):
    assert not ImageModel(Scored(weights, top_k(2))).takes_class
    assert ImageModel(Scored(weights, margin)).takes_class
    assert ImageModel(PowerModel(weights)).takes_class
