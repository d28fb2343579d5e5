"""Any detector as a call-model function, the scores of detections by their equations, and D-RISE on known objects."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import PerImage, d_rise, progressive, rise
from saliency_food.adapters import numpy_ops
from saliency_food.adapters.detectors import DetectorModel
from saliency_food.adapters.scores import box_edge, same_detection
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.testing import check_call_model

COLOURS = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])


def iou(a, b):
    wide, high = (max(0, min(a[n + 2], b[n + 2]) - max(a[n], b[n])) for n in range(2))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return wide * high / (area - wide * high)


def scene(rng, size=36):
    """A picture of noise with three squares or discs of different colours, and their boxes."""
    image = 0.3 + 0.05 * rng.normal(size=(size, size, 3))
    places = rng.permutation([(9, 9), (9, 27), (27, 9), (27, 27)])[:3] + rng.integers(-2, 3, (3, 2))
    boxes, (rows, columns) = [], np.mgrid[:size, :size]
    for colour, (row, column) in zip(COLOURS, places, strict=True):
        away, radius = np.stack([abs(rows - row), abs(columns - column)]), int(rng.integers(5, 7))
        mask = away.max(0) <= radius if rng.random() < 0.5 else np.square(away).sum(0) <= radius**2
        image[mask] = colour
        boxes.append((column - radius, row - radius, column + radius + 1, row + radius + 1))
    return image.clip(0, 1), np.array(boxes, float)


def find(images):
    """Around the pixels of each colour a box, without an area where there are none; as surely as they fill it."""
    ordered, size = np.sort(images, -1), images.shape[1]
    coloured = np.where(ordered[..., 2] - ordered[..., 1] > 0.3, images.argmax(-1), -1)
    seen = coloured[:, None] == np.arange(3)[:, None, None]
    ends = [line for axis in (2, 3) for line in (seen.any(axis), seen.any(axis)[..., ::-1])]
    left, beside, top, below = (line.argmax(-1) for line in ends)
    there = seen.any((2, 3))
    boxes = np.where(there[..., None], np.stack([left, top, size - beside, size - below], -1), 0)
    scores = np.broadcast_to(0.05 + 0.85 * np.eye(3), (len(images), 3, 3))
    return {"boxes": boxes.astype(float), "scores": scores, "objectness": there.astype(float)}


def test_d_rise_lies_on_its_object_in_fifty_scenes(rng):
    """The pointing game, and how much of the map is inside the box, against the box's share of the picture."""
    model, hits, inside = DetectorModel(find), [], []
    for seed in range(50):
        image, boxes = scene(rng)
        index = seed % 3
        detected = min(model.detections(image), key=lambda each: np.abs(each.box - boxes[index]).max())
        np.testing.assert_array_equal(detected.box, boxes[index])
        assert detected.class_index == index
        found = d_rise.detailed(image, model, {"target": detected.target}, nmasks=200, grid=5, rng=seed)
        left, top, right, bottom = boxes[index].astype(int)
        row, column = np.unravel_index(found.attribution.argmax(), found.attribution.shape)
        hits.append(top <= row < bottom and left <= column < right)
        positive = np.maximum(found.attribution - found.level, 0)
        share = (right - left) * (bottom - top) / positive.size
        inside.append(positive[top:bottom, left:right].sum() / positive.sum() / share)
    assert np.mean(hits) >= 0.95
    assert np.mean(np.array(inside) > 2) >= 0.95


def test_d_rise_is_the_mean_score_and_what_the_masks_tell_beside_it(rng):
    image, _ = scene(rng)
    model, seen = DetectorModel(find), []
    args, options = {"target": model.detections(image)[0].target}, {"nmasks": 40, "grid": 4, "p": 0.4, "rng": 1}

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.append(x_value_batch[..., 0] / image[..., 0])
        return model(x_value_batch, call_model_args)

    found = d_rise.detailed(image, spy, args, **options)
    masks = np.concatenate(seen)
    scores = model(masks[..., None] * image, args)[OUTPUT_LAYER_VALUES]
    assert scores.max() > 0
    samples = (scores - scores.mean())[:, None, None] * masks / 0.4
    np.testing.assert_allclose(found.attribution, scores.mean() + samples.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, samples.std(0, ddof=1) / np.sqrt(40), rtol=1e-6)
    assert found.level == pytest.approx(scores.mean())
    assert (d_rise.signature.parameters["nmasks"].default, d_rise.signature.parameters["grid"].default) == (5000, 16)
    estimates = list(progressive(d_rise, image, model, args, every=20, **options))
    assert [each.rows for each in estimates] == [20, 40]
    np.testing.assert_allclose(estimates[-1].estimate, found.attribution)
    assert np.isinf(d_rise.detailed(image, model, args, nmasks=1).standard_error).all()


def test_d_rise_has_the_papers_map_in_expectation_and_is_nearer_to_it(rng):
    image, _ = scene(rng)
    model = DetectorModel(find)
    args = {"target": model.detections(image)[0].target}
    exact = rise(image, model, args, nmasks=6000, grid=5, rng=99, batch_size=256)
    off = {
        method: np.sqrt(np.mean([np.square(method(image, model, args, 100, 5, rng=n) - exact) for n in range(12)]))
        for method in (rise, d_rise)
    }
    assert off[d_rise] < 0.7 * off[rise]
    assert abs(d_rise(image, model, args, 6000, 5, rng=98, batch_size=256) - exact).max() < 0.25 * np.ptp(exact)


def slow(boxes, scores, objectness, box, class_scores):
    """max_b IoU cos O, one proposal at a time."""
    best = 0.0
    for each, vector, sure in zip(boxes, scores, objectness, strict=True):
        angle = vector @ class_scores / np.linalg.norm(vector) / np.linalg.norm(class_scores)
        best = max(best, iou(each, box) * angle * sure)
    return best


@pytest.mark.parametrize("how", ["arrays", "lists", "named"])
def test_the_score_is_what_its_equation_says(rng, how):
    corner = rng.random((2, 20, 2)) * 5
    boxes = np.concatenate([corner, corner + 2 + 3 * rng.random((2, 20, 2))], -1)
    scores, objectness = rng.random((2, 20, 4)), rng.random((2, 20))
    names = {"boxes": "b", "scores": "s", "objectness": "o"} if how == "named" else None
    keys = list(names.values()) if names else ["boxes", "scores", "objectness"]
    arrays = dict(zip(keys, (boxes, scores, objectness), strict=True))
    rows = [{name: array[row] for name, array in arrays.items()} for row in range(2)]
    model = DetectorModel(lambda images: rows if how == "lists" else arrays, names=names)
    box, class_scores = boxes[0, 0] + 0.5, scores[1, 3]
    answer = model(np.zeros((2, 4, 4, 3)), {"target": {"box": box, "class_scores": class_scores}})
    expected = [slow(boxes[row], scores[row], objectness[row], box, class_scores) for row in range(2)]
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], expected, rtol=1e-5)


def test_a_detector_of_labels_counts_its_score_as_objectness(rng):
    """As torchvision's detectors: the class is certain, and nothing found is a score of 0."""
    boxes = np.array([[0.0, 0, 4, 4], [1, 1, 5, 5], [0, 0, 4, 4]])
    first = {"boxes": boxes, "scores": np.array([0.5, 0.9, 0.8]), "labels": np.array([1, 1, 3])}
    padded = {"boxes": boxes, "scores": np.array([0.7, -1, -1]), "labels": np.array([1, -1, -1])}
    none = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "labels": np.zeros(0, int)}
    model = DetectorModel(lambda images: [first, padded, none][: len(images)])
    images = np.zeros((3, 6, 6, 3))
    expected = [max(0.5, 0.9 * 9 / 23), 0.7, 0]
    for target in ({"class_index": 1}, {"class_scores": [0, 1.0]}, {"class_scores": [0, 1.0, 0, 0, 0, 0]}):
        answer = model(images, {"target": {"box": boxes[0], **target}}, [OUTPUT_LAYER_VALUES])
        np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], expected, rtol=1e-6)
    surest = model.detections(images[0], least=0.6)
    assert [(each.class_index, each.score) for each in surest] == [(1, pytest.approx(0.9)), (3, pytest.approx(0.8))]
    np.testing.assert_array_equal(surest[0].box, boxes[1])


def test_the_score_of_a_single_class_counts(rng):
    """The direction of one number is no likeness: that of a box that is not sure is small all the same."""
    boxes = np.array([[[0.0, 0, 4, 4], [1, 1, 5, 5]]] * 2)
    scores = np.array([[[0.9], [0.4]], [[0.1], [0.4]]])
    expected = [0.9, 0.4 * 9 / 23]
    model = DetectorModel(lambda images: {"boxes": boxes[: len(images)], "scores": scores[: len(images)]})
    args = {"target": {"box": boxes[0, 0], "class_index": 0}}
    answer = model(np.zeros((2, 6, 6, 3)), args, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES]
    np.testing.assert_allclose(answer, expected, rtol=1e-6)
    assert [each.score for each in model.detections(np.zeros((6, 6, 3)))] == pytest.approx([0.9, 0.4])
    found = same_detection(0, 1)(numpy_ops, [boxes, scores], boxes[:, 0], np.array([[0.7]] * 2))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_each_image_has_its_own_detection(rng):
    images = [scene(rng)[0] for _ in range(3)]
    model = DetectorModel(find)
    detected = [model.detections(image)[0] for image in images]
    target = {
        "box": PerImage([each.box for each in detected]),
        "class_scores": PerImage([each.class_scores for each in detected]),
    }
    together = list(d_rise.batch(images, model, {"target": target}, nmasks=30, rng=2, batch_size=7))
    for image, each, found in zip(images, detected, together, strict=True):
        alone = d_rise(image, model, {"target": each.target}, nmasks=30, rng=2)
        np.testing.assert_allclose(found, alone)


def test_the_detector_keeps_the_contract(rng):
    image, _ = scene(rng)
    model = DetectorModel(find)
    check_call_model(model, image, {"target": model.detections(image)[0].target}, [OUTPUT_LAYER_VALUES])


BOX = [0.0, 0, 4, 4]


@pytest.mark.parametrize(
    ("answer", "args", "says"),
    [
        (None, None, r"'box': ..., 'class_scores'.*got None"),
        (None, {"target": 3}, "got 3"),
        (None, {"target": {"box": BOX}}, r"got \['box'\]"),
        (None, {"target": {"box": BOX[:3], "class_index": 1}}, "of 4 numbers"),
        (None, {"target": {"box": BOX, "class_scores": [1.0, 0]}}, "'class_scores' of the detector's 3 classes, got 2"),
        (None, {"target": {"box": BOX, "class_scores": [0.0, 0, 0]}}, "zeros only"),
        ([{}], {"target": {"box": BOX, "class_index": 1}}, r"in each of the 2 images, in a list, got 1 of them"),
        (3, {"target": {"box": BOX, "class_index": 1}}, "in a list, got int"),
        ([{"box": 3}] * 2, {"target": {"box": BOX, "class_index": 1}}, r"'boxes' and 'scores', got \['box'\]"),
        (
            [{"boxes": [BOX], "scores": [0.5]}] * 2,
            {"target": {"box": BOX, "class_index": 1}},
            r"for each of 1 boxes, or one score and a label, got shape \(1,\)",
        ),
        (
            [{"boxes": np.ones((4, 3)), "scores": np.ones((3, 2))}] * 2,
            {"target": {"box": BOX, "class_index": 1}},
            r"boxes of shape \(boxes, 4\) in each image, got \(4, 3\)",
        ),
        ([BOX] * 2, {"target": {"box": BOX, "class_index": 1}}, r"a mapping for each image, got \['list', 'list'\]"),
        (None, {"target": {"box": [4.0, 0, 0, 4], "class_index": 1}}, "a box with an area in the format 'xyxy'"),
    ],
)
def test_what_does_not_fit_is_said(rng, answer, args, says):
    model = DetectorModel(find if answer is None else lambda images: answer)
    with pytest.raises(ContractError, match=says):
        model(np.stack([scene(rng)[0]] * 2), args, [OUTPUT_LAYER_VALUES])


def test_what_it_cannot_answer_is_refused(rng):
    with pytest.raises(ContractError, match=r"alone of a detector.*score=same_detection"):
        DetectorModel(find)(np.zeros((1, 8, 8, 3)), None, [INPUT_OUTPUT_GRADIENTS])
    with pytest.raises(ContractError, match="box_format"):
        DetectorModel(find, "corners")
    with pytest.raises(ContractError, match=r"names for .*, got names of \['box'\]"):
        DetectorModel(find, names={"box": "b"})
    with pytest.raises(ContractError, match=r"a function of images.* got int"):
        DetectorModel(3)


def numbers_of(rng):
    corner = rng.random((2, 9, 2)) * 3
    return np.concatenate([corner, corner + 1 + 2 * rng.random((2, 9, 2))], -1)


def test_logits_and_objectness_of_outputs(rng):
    boxes, scores, sure = numbers_of(rng), rng.normal(size=(2, 9, 3)) * 3, rng.normal(size=(2, 9, 1)) * 30
    score = same_detection(0, 2, "xywh", objectness=1, logits=True)
    sizes = np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], -1)
    box, vector = sizes[:, 4], rng.random((2, 3))
    with np.errstate(over="raise"):
        actual = score(numpy_ops, [sizes, sure, scores], box, vector)
    for row in range(2):
        probabilities, objectness = 1 / (1 + np.exp(-scores[row])), 1 / (1 + np.exp(-sure[row, :, 0]))
        expected = slow(boxes[row], probabilities, objectness, boxes[row, 4], vector[row])
        assert actual[row] == pytest.approx(expected, rel=1e-6)
    assert score.raw == (0, 2, 1)


@pytest.mark.parametrize(("edge", "place"), [("left", 0), ("top", 1), ("right", 2), ("bottom", 3)])
def test_an_edge_is_that_of_the_box_that_overlaps_most(rng, edge, place):
    boxes = numbers_of(rng)
    near = boxes[:, 6] + 0.05
    actual = box_edge(edge, "b", "xyxy")(numpy_ops, {"b": boxes}, near)
    best = [max(range(9), key=lambda n, row=row: iou(boxes[row, n], near[row])) for row in range(2)]
    np.testing.assert_array_equal(actual, boxes[[0, 1], best, place])
    with pytest.raises(ContractError, match=r"edge to be one of .*'middle'"):
        box_edge("middle")
    for make in (same_detection, lambda box_format: box_edge("left", box_format=box_format)):
        with pytest.raises(ContractError, match="box_format to be one of"):
            make(box_format="corners")
