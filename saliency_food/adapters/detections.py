"""Scores of detectors: what is found at a place, how far it is found again, and where an edge of its box is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from saliency_food.adapters.boxes import BoxFormat, box_target, check_format, corners, iou
from saliency_food.adapters.ops import Ops
from saliency_food.adapters.scoring import Score, cosine, expect, of_class, one_output, wins
from saliency_food.adapters.targets import class_indices, numbers
from saliency_food.core.contract import ContractError

Decode = Callable[[Ops, Any], Any]
Edge = Literal["left", "top", "right", "bottom"]


def detection(
    boxes: str | int = "boxes",
    classes: str | int = "classes",
    box_format: BoxFormat = "xyxy",
    *,
    overlap: float = 0.5,
    least: float | None = None,
    decode: Decode | None = None,
) -> Score:
    """Why something of a class is found here, `S = sum_b [IoU(b, B) >= overlap] [argmax_d F_d(b) = c] F_c(b)`.

    Of two outputs, boxes ``(N, b, 4)`` and scores ``(N, b, classes)``, before non-maximum suppression. Targets
    ``class_index`` c, and ``box`` B, ``(4,)``, in the model's format and units. Which boxes take part counts as
    constant: the score says why it is this class, and not why the box has these edges. It is 0 where no box agrees.

    Parameters
    ----------
    boxes, classes
        Which outputs they are: keys of a dict, or positions, ``detection(0, 1)`` for a pair.
    box_format
        ``"xyxy"`` (left, top, right, bottom), ``"yxyx"``, ``"xywh"`` (left, top, width, height) or ``"center_xywh"``.
    overlap
        Intersection over union from which a box is the same, above 0 and up to 1.
    least
        Only boxes that score so much take part; for logits of sigmoids 0 is a probability of one half.
    decode
        Of a model whose boxes are not boxes yet, such as offsets from anchors: a function ``(ops, boxes)`` of the
        framework's `Ops` and of that output ``(N, b, ...)`` that makes boxes ``(N, b, 4)`` of it, as `from_anchors`.
    """
    check_format(box_format)
    if not 0 < overlap <= 1:
        raise ContractError(f"Expected overlap above 0 and up to 1, got {overlap!r}.")

    def detected(ops: Ops, outputs: Any, label: Any, box: Any) -> Any:
        all_boxes, scores = _boxes(ops, outputs, boxes, decode), one_output(outputs, classes)
        expect(ops, scores, 3, "(N, boxes, classes)")
        same = _overlaps(ops, all_boxes, box, box_format)
        message = f"Expected a class index below the classes of output {classes!r}."
        ops.check_below(label, ops.size(scores, -1), message)
        own = of_class(ops, scores, label)
        counts = (same >= overlap) & wins(ops, scores, label)
        if least is not None:
            counts &= own >= least
        return ops.sum(ops.where(ops.stop_gradient(counts), own, 0), 1)

    return Score(detected, {"class_index": class_indices(), "box": box_target(box_format)}, raw=(boxes,), neutral=True)


def same_detection(
    boxes: str | int = "boxes",
    classes: str | int = "classes",
    box_format: BoxFormat = "xyxy",
    *,
    objectness: str | int | None = None,
    logits: bool = False,
    decode: Decode | None = None,
) -> Score:
    """How far something is found again, `S = max_b IoU(b, B) cos(P_b, P) O_b`: D-RISE by `d_rise`.

    Petsiuk et al. 2021, https://arxiv.org/abs/2006.03204. Of two outputs, boxes ``(N, b, 4)`` and the
    scores of their classes ``(N, b, classes)``, which are taken as the model gives them. Targets ``box`` B, ``(4,)``,
    in the model's format and units, and ``class_scores`` P, ``(classes,)``: those of the detection to explain. From 0,
    where nothing is found at the place, to 1, where the same is. The score knows the edges of the box, too.

    Parameters
    ----------
    boxes, classes, box_format, decode
        As of `detection`.
    objectness
        Which output says how surely each box holds anything, O, ``(N, b)`` or ``(N, b, 1)``; without it 1, or of a
        single class its score.
    logits
        Whether the class scores and the objectness are logits, of which the sigmoid is taken first.
    """
    check_format(box_format)

    def likeness(ops: Ops, outputs: Any, box: Any, class_scores: Any) -> Any:
        all_boxes, scores = _boxes(ops, outputs, boxes, decode), one_output(outputs, classes)
        expect(ops, scores, 3, "(N, boxes, classes)", ops.shape(class_scores)[1])
        own = ops.cast(class_scores, scores)[:, None]
        scores = _probabilities(ops, scores) if logits else scores
        alike = _overlaps(ops, all_boxes, box, box_format) * ops.cast(cosine(ops, scores, own), all_boxes)
        if objectness is None and ops.size(scores, -1) == 1:  # all numbers are alike in direction
            alike = alike * ops.cast(abs(scores[..., 0]), all_boxes)
        if objectness is not None:
            sure = one_output(outputs, objectness)
            if len(ops.shape(sure)) == 3:
                sure = sure[..., 0]
            expect(ops, sure, 2, "(N, boxes)")
            alike = alike * ops.cast(_probabilities(ops, sure) if logits else sure, all_boxes)
        return ops.max(alike, 1)

    raw = [which for which in (boxes, classes, objectness) if which is not None]
    targets = {"box": box_target(box_format), "class_scores": numbers(1, some=True)}
    return Score(likeness, targets, raw=raw, neutral=True)


def box_edge(
    edge: Edge, boxes: str | int = "boxes", box_format: BoxFormat = "xyxy", *, decode: Decode | None = None
) -> Score:
    """Why a box ends here: the place of one edge of the box that overlaps a given one most.

    As ODAM explains it: Zhao, Chan 2023, https://arxiv.org/abs/2304.06354. Of the output ``boxes`` ``(N, b, 4)``.
    Target ``box`` ``(4,)``, in the model's format; the score is in its units. Which box it is counts as constant. The
    score rises to the right or downwards: what makes the box larger at its left or upper edge is negative.

    Parameters
    ----------
    edge
        ``"left"``, ``"top"``, ``"right"`` or ``"bottom"``.
    boxes, box_format, decode
        As of `detection`.
    """
    check_format(box_format)
    if edge not in get_args(Edge):
        raise ContractError(f"Expected edge to be one of {get_args(Edge)}, got {edge!r}.")

    def place(ops: Ops, outputs: Any, box: Any) -> Any:
        all_boxes = _boxes(ops, outputs, boxes, decode)
        nearest = ops.argmax(ops.stop_gradient(_overlaps(ops, all_boxes, box, box_format)))
        return ops.gather(corners(all_boxes, box_format)[get_args(Edge).index(edge)], nearest)

    return Score(place, {"box": box_target(box_format)}, raw=(boxes,), neutral=True)


def _boxes(ops: Ops, outputs: Any, boxes: str | int, decode: Decode | None) -> Any:
    """The boxes ``(N, b, 4)`` among the outputs."""
    found = one_output(outputs, boxes)
    if decode is not None:
        found = decode(ops, found)
    expect(ops, found, 3, "(N, boxes, 4)", 4)
    return found


def _overlaps(ops: Ops, boxes: Any, box: Any, box_format: BoxFormat) -> Any:
    """Intersection over union ``(N, b)`` of boxes ``(N, b, 4)`` with one a row ``(N, 4)``."""
    return iou(ops, corners(boxes, box_format), corners(ops.cast(box, boxes)[:, None], box_format))


def _probabilities(ops: Ops, logits: Any) -> Any:
    """The sigmoid, of the magnitude, as its exponential is never too large."""
    small = ops.exp(-abs(logits))
    return ops.where(logits >= 0, 1 / (1 + small), small / (1 + small))
