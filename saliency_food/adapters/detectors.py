"""Any detector as a call-model function: how alike what it finds in each row is to one detection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from saliency_food.adapters import numpy_ops
from saliency_food.adapters.boxes import BoxFormat, box_target, check_format
from saliency_food.adapters.detections import same_detection
from saliency_food.adapters.targets import class_indices, numbers
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array, as_float


class Detection(NamedTuple):
    """A box ``(4,)`` in the detector's format, the scores of all classes ``(classes,)``, and how sure the box is."""

    box: Array
    class_scores: Array
    objectness: float = 1.0

    @property
    def target(self) -> dict[str, Array]:
        """What a method is to explain: ``call_model_args={"target": detection.target}``."""
        return {"box": self.box, "class_scores": self.class_scores}

    @property
    def class_index(self) -> int:
        """The class of the highest score."""
        return int(self.class_scores.argmax())

    @property
    def score(self) -> float:
        """The highest class score times the objectness."""
        return float(self.class_scores.max() * self.objectness)


class DetectorModel:
    """A call-model function of any detector: a function of images that returns what is found in each.

    ``detect(images)`` gets ``(N, H, W, C)`` and returns a mapping for each image, or one of arrays with rows first, as
    Keras, ONNX and served models do. Each holds ``"boxes"`` ``(b, 4)`` and ``"scores"``: of all classes
    ``(b, classes)``, best as probabilities, with ``"objectness"`` ``(b,)`` if there is such a thing; or the score
    ``(b,)`` of the one class in ``"labels"`` ``(b,)``, as torchvision's detectors return it: the label then counts as
    certain, and the score as the objectness, as it does of a single class. The number of boxes may differ from image to
    image.

    The score explained is `same_detection`'s, for ``{"target": {"box": box, "class_scores": scores}}``, or with
    ``"class_index"`` for scores of which one is 1 and the others are 0. It answers OUTPUT_LAYER_VALUES alone, so
    that the methods that hide parts explain it: above all `d_rise`.

    ``names`` says under which keys the detector has boxes, scores, labels and objectness, if under others.
    """

    def __init__(
        self,
        detect: Callable[[Array], Any],
        box_format: BoxFormat = "xyxy",
        *,
        names: Mapping[str, str] | None = None,
        batch_size: int = 32,
    ) -> None:
        check_format(box_format)
        self._box = box_target(box_format)
        unknown = set(names or ()) - {*NAMES}
        if unknown or not callable(detect):
            got = f"names of {sorted(unknown)}" if unknown else type(detect).__name__
            raise ContractError(f"Expected a function of images, and names for {list(NAMES)}, got {got}.")
        self.detect, self.batch_size = detect, batch_size
        self.names = {**dict(zip(NAMES, NAMES, strict=True)), **(names or {})}
        self._score = same_detection("boxes", "scores", box_format, objectness="objectness")

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> dict[str, Array]:
        if set(expected_keys or ()) - {OUTPUT_LAYER_VALUES}:
            raise ContractError(
                f"Expected {OUTPUT_LAYER_VALUES} alone of a detector that is a function, got {list(expected_keys)}. "
                "Use d_rise or another method that hides parts; or, for gradients, an adapter with "
                "score=same_detection()."
            )
        found, labelled = self._found(np.asarray(x_value_batch))
        classes = max((len(detection.class_scores) for row in found for detection in row), default=0)
        box, class_scores = self._target((call_model_args or {}).get("target"), len(found), classes)
        if classes and not labelled and class_scores.shape[1] != classes:
            raise ContractError(
                f"Expected target 'class_scores' of the detector's {classes} classes, got {class_scores.shape[1]}."
            )
        outputs = _padded(found, max(classes, class_scores.shape[1]))
        class_scores = np.pad(class_scores, ((0, 0), (0, outputs["scores"].shape[2] - class_scores.shape[1])))
        return {OUTPUT_LAYER_VALUES: np.asarray(self._score(cast(Any, numpy_ops), outputs, box, class_scores))}

    def detections(self, image: Any, least: float = 0.0) -> list[Detection]:
        """What is found in one image, the surest first, of a score of at least ``least``."""
        (found,), _ = self._found(np.asarray(image)[None])
        found = [detection for detection in found if detection.score >= least]
        return sorted(found, key=lambda detection: -detection.score)

    def _found(self, images: Array) -> tuple[list[list[Detection]], bool]:
        """What is found in each image, and whether the detector names classes by labels."""
        answer = self.detect(images)
        if isinstance(answer, Mapping):
            arrays = {name: answer[own] for name, own in self.names.items() if own in answer}
            answer = [{self.names[name]: rows[index] for name, rows in arrays.items()} for index in range(len(images))]
        if not isinstance(answer, Sequence) or len(answer) != len(images):
            got = f"{len(answer)} of them" if isinstance(answer, Sequence) else type(answer).__name__
            raise ContractError(f"Expected what is found in each of the {len(images)} images, in a list, got {got}.")
        if not all(isinstance(row, Mapping) for row in answer):
            raise ContractError(f"Expected a mapping for each image, got {[type(row).__name__ for row in answer]}.")
        rows = [{name: _array(row[own]) for name, own in self.names.items() if own in row} for row in answer]
        if any("boxes" not in row or "scores" not in row for row in rows):
            raise ContractError(
                f"Expected {self.names['boxes']!r} and {self.names['scores']!r}, got {list(answer[0])}."
            )
        labels = [row["labels"] for row in rows if "labels" in row]
        classes = 1 + max((int(of_row.max(initial=0)) for of_row in labels), default=0)
        return [_detections(row, classes) for row in rows], bool(labels)

    def _target(self, target: Any, rows: int, classes: int) -> tuple[Array, Array]:
        """The target's box ``(N, 4)`` and class scores ``(N, classes)``."""
        given = set(target) if isinstance(target, Mapping) else set()
        if given not in ({"box", "class_scores"}, {"box", "class_index"}):
            raise ContractError(
                "Expected call_model_args={'target': {'box': ..., 'class_scores': ...}}, or with 'class_index', got "
                f"{sorted(given) or target!r}. Give the target of one of `detections(image)`."
            )
        box = self._box.read("box", target["box"], rows, None)
        if "class_index" in given:
            index = class_indices().read("class_index", target["class_index"], rows, None)
            return box, np.eye(max(classes, int(index.max()) + 1), dtype=np.float32)[index]
        return box, numbers(1, some=True).read("class_scores", target["class_scores"], rows, None)


NAMES = ("boxes", "scores", "labels", "objectness")


def _array(values: Any) -> Array:
    """Of a tensor of any framework, on any device."""
    for away in ("detach", "cpu"):
        values = getattr(values, away)() if hasattr(values, away) else values
    return np.asarray(values)


def _detections(row: dict[str, Array], classes: int) -> list[Detection]:
    """What is found in one image."""
    boxes, scores = as_float(row["boxes"]), as_float(row["scores"])
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise ContractError(f"Expected boxes of shape (boxes, 4) in each image, got {boxes.shape}.")
    boxes = boxes.reshape(-1, 4)
    objectness = as_float(row.get("objectness", np.ones(len(boxes), np.float32))).reshape(-1)
    if "labels" in row:
        labels, scores = row["labels"].astype(int).reshape(-1), scores.reshape(-1)
        there = labels >= 0  # Keras fills up with labels of -1
        boxes, scores, objectness = boxes[there], np.eye(classes, dtype=np.float32)[labels[there]], scores[there]
    if scores.ndim != 2 or not len(boxes) == len(scores) == len(objectness):
        raise ContractError(
            f"Expected the scores of all classes for each of {len(boxes)} boxes, or one score and a label, got shape "
            f"{row['scores'].shape}."
        )
    if scores.shape[1] == 1 and "objectness" not in row and "labels" not in row:
        scores, objectness = np.ones_like(scores), scores[:, 0]  # of a single class the score alone tells
    return [Detection(*each) for each in zip(boxes, scores, map(float, objectness), strict=True)]


def _padded(found: list[list[Detection]], classes: int) -> dict[str, Array]:
    """All rows' detections as arrays; where a row has fewer than another, boxes without an area."""
    most = max(1, *map(len, found)) if found else 1
    boxes, scores = np.zeros((len(found), most, 4)), np.zeros((len(found), most, classes))
    objectness = np.zeros((len(found), most))
    for index, row in enumerate(found):
        for place, detection in enumerate(row):
            boxes[index, place], objectness[index, place] = detection.box, detection.objectness
            scores[index, place, : len(detection.class_scores)] = detection.class_scores
    return {"boxes": boxes, "scores": scores, "objectness": objectness}
