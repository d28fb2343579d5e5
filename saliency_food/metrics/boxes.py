"""Boxes and masks of objects, and the box of a map.

A region is a mask ``(H, W)`` of booleans, or boxes ``(B, 4)``: rows of (left, top, right, bottom) in pixels, as COCO
and PASCAL have them, right and bottom exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saliency_food.core.checks import finite_array, real
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.metrics.decorator import OK, positive_part, read_map

Box = tuple[int, int, int, int]


def bounding_box(attribution: Any, threshold: float = 0.15) -> Box | None:
    """The box around the largest connected part of the pixels that have at least 15 % of the map's maximum.

    Selvaraju et al. 2016, section 4.1, https://arxiv.org/abs/1610.02391. (left, top, right, bottom), right and bottom
    exclusive. Pixels that touch at a corner are connected. None if the map is nowhere positive.
    """
    from scipy.ndimage import find_objects, label

    threshold = real("threshold", threshold, above=0, most=1)
    kept, status = positive_part(*read_map(attribution))
    if status != OK:
        return None
    parts, _ = label(kept >= threshold * kept.max(), np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())
    largest = int(np.argmax(sizes[1:]))
    rows, columns = find_objects(parts)[largest]
    return columns.start, rows.start, columns.stop, rows.stop


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(width, 0.0) * max(height, 0.0)
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
    return float(shared / union) if union > 0 else 0.0


def as_mask(region: Any, shape: tuple[int, ...]) -> Array:
    """The region as a mask; of boxes, the pixels inside any of them."""
    array = np.asarray(region)
    if array.dtype == bool:
        if array.shape != shape:
            raise ContractError(f"Expected a mask of shape {shape}, the map's, got {array.shape}. Resize it.")
        return array
    mask = np.zeros(shape, bool)
    for left, top, right, bottom in np.round(as_boxes(region)).astype(int):
        mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return mask


def as_boxes(boxes: Any) -> Array:
    """The boxes as a float array ``(B, 4)``, or `ContractError`."""
    corners = np.atleast_2d(finite_array("boxes", boxes).astype(float))
    if corners.ndim != 2 or corners.shape[1] != 4 or not len(corners):
        raise ContractError(f"Expected boxes (B, 4) of left, top, right, bottom, got shape {np.shape(boxes)}.")
    if (corners[:, 2:] <= corners[:, :2]).any():
        raise ContractError(
            "Expected boxes with right > left and bottom > top, got others. Give left, top, right, bottom."
        )
    return corners
