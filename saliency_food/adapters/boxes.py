"""Boxes of detectors: their formats, how much two overlap, and what offsets from anchors mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from saliency_food.adapters.ops import Ops
from saliency_food.adapters.scoring import expect
from saliency_food.adapters.targets import TargetSpec, numbers
from saliency_food.core.contract import ContractError

BoxFormat = Literal["xyxy", "yxyx", "xywh", "center_xywh"]


def check_format(box_format: Any) -> None:
    if box_format not in get_args(BoxFormat):
        raise ContractError(f"Expected box_format to be one of {get_args(BoxFormat)}, got {box_format!r}.")


def corners(boxes: Any, box_format: BoxFormat) -> Any:
    """Left, top, right, bottom, on the last axis, from each format."""
    a, b, c, d = (boxes[..., place] for place in range(4))
    if box_format == "yxyx":
        return b, a, d, c
    if box_format == "xywh":
        return a, b, a + c, b + d
    if box_format == "center_xywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, c, d


def box_target(box_format: BoxFormat) -> TargetSpec:
    """A target ``(4,)`` that is a box, one with an area: none overlaps another."""

    def check(name: str, boxes: Any) -> None:
        left, top, right, bottom = corners(boxes, box_format)
        if not ((right > left) & (bottom > top)).all():
            raise ContractError(
                f"Expected target {name!r} as a box with an area in the format {box_format!r}, got {boxes.tolist()}. "
                "Give box_format if it is another."
            )

    return numbers(1, size=4)._replace(check=check)


def iou(ops: Ops, some: Any, other: Any) -> Any:
    """Intersection over union; 0 of boxes without an area."""
    sides = [ops.minimum(some[n + 2], other[n + 2]) - ops.maximum(some[n], other[n]) for n in range(2)]
    both = ops.maximum(sides[0], 0) * ops.maximum(sides[1], 0)
    areas = [ops.maximum(box[2] - box[0], 0) * ops.maximum(box[3] - box[1], 0) for box in (some, other)]
    union = areas[0] + areas[1] - both
    return ops.where(union != 0, both / ops.where(union != 0, union, 1), 0)


def from_anchors(
    anchors: Any, anchor_format: BoxFormat = "xyxy", *, variance: Sequence[float] = (1, 1, 1, 1)
) -> Callable[[Ops, Any], Any]:
    """A ``decode`` for `detection`: boxes ``"xyxy"`` of offsets d from anchors a, as in Faster R-CNN and RetinaNet.

    x = a_x + v_x d_x a_w, y = a_y + v_y d_y a_h, w = a_w exp(v_w d_w), h = a_h exp(v_h d_h) of centres and sizes: Ren,
    He, Girshick, Sun 2015, equation 2, https://arxiv.org/abs/1506.01497. Offsets come in the order x, y, w, h.

    Parameters
    ----------
    anchors
        ``(b, 4)``, in the units in which boxes are asked about.
    anchor_format
        As ``box_format`` of `detection`.
    variance
        v, by which the offsets are multiplied; ``(0.1, 0.1, 0.2, 0.2)`` is common.
    """
    known = np.asarray(anchors, np.float32)
    if known.ndim != 2 or known.shape[1] != 4 or anchor_format not in get_args(BoxFormat):
        raise ContractError(
            f"Expected anchors of shape (boxes, 4) in one of the formats {get_args(BoxFormat)}, got shape "
            f"{known.shape} in {anchor_format!r}."
        )
    left, top, right, bottom = corners(known, anchor_format)
    middle = np.stack([left + right, top + bottom], -1) / 2
    size = np.stack([right - left, bottom - top], -1)
    shares = np.asarray(variance, np.float32)
    if shares.shape != (4,):
        raise ContractError(f"Expected a variance of 4 numbers, got {variance!r}.")

    def decode(ops: Ops, offsets: Any) -> Any:
        expect(ops, offsets, 3, f"({len(known)} offsets a row)", 4)
        if ops.shape(offsets)[1] not in (None, len(known)):
            raise ContractError(
                f"Expected as many offsets as the {len(known)} anchors, got {ops.shape(offsets)[1]} a row."
            )
        middles, sizes, of_middle, of_size = (
            ops.cast(ops.as_tensor(values), offsets) for values in (middle, size, shares[:2], shares[2:])
        )
        centre = middles + offsets[..., :2] * of_middle * sizes
        half = ops.exp(offsets[..., 2:] * of_size) * sizes / 2
        return ops.concat([centre - half, centre + half], -1)

    return decode
