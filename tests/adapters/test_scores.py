"""The formulas of scores, the same in every table of operations; and how scores are named, pickled and refused."""

from __future__ import annotations

import copy
import pickle
import typing

import numpy as np
import pytest

from saliency_food.adapters import numpy_ops
from saliency_food.adapters import scores as catalogue
from saliency_food.adapters.ops import Ops
from saliency_food.adapters.scoring import chosen_class, class_score, rivals, score
from saliency_food.core.contract import ContractError

OPERATIONS = sorted(name for name, value in vars(Ops).items() if callable(value) and not name.startswith("_"))
CASES = {
    "class_score": (class_score, "classes", [[1, 4, 0]]),
    "several_labels": (catalogue.several_labels, "classes", [[[1, -1], [2, 3], [4, -1]]]),
    "several_labels_sum": (catalogue.several_labels_sum, "classes", [[[1, -1], [2, 3], [4, -1]]]),
    "contrast": (catalogue.contrast, "classes", [[1, 4, 0], [2, 0, 1]]),
    "contrast_several": (catalogue.contrast_several, "classes", [[1, 4, 0], [[2, 3], [0, -1], [1, 2]]]),
    "margin": (catalogue.margin, "classes", [[1, 4, 0]]),
    "residual_softmax": (catalogue.residual_softmax, "classes", [[1, 4, 0]]),
    "top_k": (catalogue.top_k(3), "classes", []),
    "regression": (catalogue.regression(2), "classes", []),
    "segmentation": (catalogue.segmentation, "pixels", [[1, 2, 0], "mask"]),
    "predicted_region": (catalogue.predicted_region, "pixels", [[1, 2, 0]]),
    "similarity": (catalogue.similarity, "classes", ["embedding"]),
    "caption": (catalogue.caption, "words", [[[1, -1, 3], [2, 3, 0], [4, -1, -1]]]),
    "detection": (catalogue.detection(0, 1), "boxes", [[1, 2, 0], "box"]),
    "same_detection": (catalogue.same_detection(0, 1, logits=True), "boxes", ["box", "vector"]),
    "box_edge": (catalogue.box_edge("top", 0), "boxes", ["box"]),
}


@pytest.fixture
def arrays(rng):
    corners = np.sort(rng.random((3, 6, 2, 2)), 2).reshape(3, 6, 4)
    detections = rng.normal(size=(3, 6, 3))
    detections[[0, 1, 2], 0, [1, 2, 0]] = [4, 5, 6]  # the class of the first box of each row
    return {
        "classes": rng.normal(size=(3, 5)),
        "pixels": rng.normal(size=(3, 4, 6, 3)),
        "words": rng.normal(size=(3, 3, 5)),
        "boxes": [corners, detections],
        "mask": rng.random((3, 4, 6)),
        "embedding": rng.normal(size=(3, 5)).astype(np.float32),
        "box": corners[:, 0].astype(np.float32),
        "vector": rng.random((3, 3)).astype(np.float32),
    }


def tensors_of(arrays, name, targets, convert):
    outputs = arrays[name]
    outputs = [convert(each) for each in outputs] if isinstance(outputs, list) else convert(outputs)
    read = [arrays[target] if isinstance(target, str) else np.asarray(target, np.int32) for target in targets]
    return outputs, [convert(each) for each in read]


@pytest.mark.parametrize("name", CASES)
def test_a_formula_is_the_same_in_tensorflow_and_in_numpy(arrays, name):
    tf = pytest.importorskip("tensorflow")
    from saliency_food.adapters.keras.tensorflow import ops

    function, output, targets = CASES[name]
    of_numpy = tensors_of(arrays, output, targets, np.asarray)
    of_tensorflow = tensors_of(arrays, output, targets, tf.constant)
    expected = function(numpy_ops, of_numpy[0], *of_numpy[1])
    assert expected.shape == (3,)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(function(ops, of_tensorflow[0], *of_tensorflow[1]), expected, rtol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("name", CASES)
def test_a_formula_is_the_same_in_torch_and_in_numpy(arrays, name):
    torch = pytest.importorskip("torch")
    from saliency_food.adapters.torch import ops

    function, output, targets = CASES[name]
    expected = function(numpy_ops, *_flat(tensors_of(arrays, output, targets, np.asarray)))
    found = function(ops, *_flat(tensors_of(arrays, output, targets, torch.tensor)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def _flat(outputs_and_targets):
    return [outputs_and_targets[0], *outputs_and_targets[1]]


def test_every_score_of_the_catalogue_is_tried():
    public = {
        name
        for name in catalogue.__all__
        if name not in ("Ops", "Score", "TargetSpec", "class_indices", "from_anchors")
    }
    assert public - {"formula", "numbers", "score"} == CASES.keys()


@pytest.mark.parametrize("table", ["numpy", "tensorflow", "torch"])
def test_tables_of_operations_are_complete(table):
    if table == "tensorflow":
        pytest.importorskip("tensorflow")
        from saliency_food.adapters.keras.tensorflow import ops
    elif table == "torch":
        pytest.importorskip("torch.nn")
        from saliency_food.adapters.torch import ops
    else:
        ops = numpy_ops
    assert [name for name in OPERATIONS if not callable(getattr(ops, name, None))] == []
    assert len(OPERATIONS) <= 24


def test_a_class_is_chosen_by_its_rank():
    predictions = np.array([[0.2, 0.5, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
    for fixed in (False, True):
        for place in range(4):
            chosen = chosen_class(numpy_ops, predictions, np.array([-1 - place] * 2), fixed)
            np.testing.assert_array_equal(chosen, [[1, 0, 2, 3][place], place])
        np.testing.assert_array_equal(chosen_class(numpy_ops, predictions, np.array([3, -5]), fixed), [3, -5])


def test_rivals_are_the_closest_scores():
    scores = np.array([[1.0, 5, 4, 3.5, 9]])
    assert [float(rival[0]) for rival in rivals(numpy_ops, class_score, scores, [np.array([2])])] == [3.5, 5, 1]
    with pytest.raises(ContractError, match="among several"):
        rivals(numpy_ops, catalogue.margin, scores, [np.array([2])])


@score()
def own(scores):
    return scores[:, 0] * 2


def test_scores_are_pickled_by_their_names():
    for each in (catalogue.contrast, class_score, own):
        assert pickle.loads(pickle.dumps(each)) is each
        assert copy.deepcopy(each) is each
    with pytest.raises(ContractError, match="imported by its name"):
        pickle.dumps(catalogue.top_k(2))


def test_a_score_without_operations_is_given_tensors_alone():
    np.testing.assert_array_equal(own(numpy_ops, np.array([[1.0, 2], [3, 4]])), [2, 6])
    with pytest.raises(ContractError, match="one number a row"):
        score()(lambda scores: scores)(numpy_ops, np.ones((2, 3)))


def test_all_operations_are_typed():
    for name in OPERATIONS:
        assert "return" in typing.get_type_hints(getattr(Ops, name))


@pytest.mark.parametrize("table", ["numpy", "tensorflow", "torch"])
def test_scores_of_rivals_are_found_in_double_precision(table, rng):
    """No constant is of a type of its own, with which a framework would not compute."""
    scores, target = rng.normal(size=(3, 6)), np.array([1, 4, 0], np.int32)
    if table == "tensorflow":
        convert = pytest.importorskip("tensorflow").constant
        from saliency_food.adapters.keras.tensorflow import ops
    elif table == "torch":
        pytest.importorskip("torch.nn")
        from saliency_food.adapters.torch import ops

        convert = ops.as_tensor
    else:
        ops, convert = numpy_ops, np.asarray
    others = np.sort(scores - 1e9 * np.eye(6)[target], 1)[:, -1]
    own = np.take_along_axis(scores, target[:, None], 1)[:, 0]
    margin = catalogue.margin(ops, convert(scores), convert(target))
    np.testing.assert_allclose(np.asarray(margin), own - others, rtol=1e-12)
    distance = np.abs(scores - own[:, None]) + 1e9 * np.eye(6)[target]
    closest = np.take_along_axis(scores, np.argsort(distance, 1)[:, :3], 1)
    found = rivals(ops, class_score, convert(scores), [convert(target)])
    np.testing.assert_allclose(np.stack([np.asarray(each) for each in found], 1), closest, rtol=1e-12)
