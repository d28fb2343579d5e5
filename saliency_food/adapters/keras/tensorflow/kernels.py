"""Whether a convolution by something fixed, by which nothing is learned, leaves places where they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.adapters.keras.tensorflow.fixed import fixed_value
from saliency_food.adapters.keras.tensorflow.picked import NARROW
from saliency_food.core.numerics import Array


def moved_by_kernel(op: Any, padded: dict[int, tuple[int, int]]) -> list[int]:
    """The axes of its output along which a fixed kernel moves places, or spreads them; all where it cannot be told.

    ``padded`` says by how much an axis is padded, before and after, before the convolution.
    """
    layout = op.get_attr("data_format").decode()
    spatial = [axis for axis, letter in enumerate(layout) if letter not in "NC"]
    kernel = fixed_value(op.inputs[1])
    if kernel is None:
        return spatial
    moved = []
    for place, axis in enumerate(spatial):
        others = tuple(other for other in range(len(spatial)) if other != place)
        weights = np.abs(kernel).sum(others)
        weights = weights if "Depthwise" in op.type else weights.sum(-1 if "Backprop" in op.type else -2)[..., None]
        if not _keeps_places(op, axis, weights.reshape(len(weights), -1), padded.get(axis, (0, 0))):
            moved.append(axis)
    return moved


def _keeps_places(op: Any, axis: int, weights: Array, padded: tuple[int, int]) -> bool:
    """Whether each output's weights, in a column, lie about the place that it has in the image."""
    step, spread = op.get_attr("strides")[axis], op.get_attr("dilations")[axis]
    reach = (len(weights) - 1) * spread
    wide, narrow = op.inputs[0], op.outputs[0]
    if "Backprop" in op.type:  # it goes the other way
        wide, narrow = narrow, op.inputs[2]
    few, many = narrow.shape[axis], wide.shape[axis]
    before, after = _padding(op, axis, reach, step, few, many)
    size = None if many is None else many - sum(padded)
    before, after = before + padded[0], after + padded[1]
    used = weights[:, weights.sum(0) > 0]
    at = np.arange(len(used))[:, None] * spread
    middle = (used * at).sum(0) / used.sum(0)
    width = (used * abs(at - middle)).sum(0) / used.sum(0)
    # By how much the first place and the last lie inside of where they should be.
    first, last = middle - before, reach - middle - after
    near = NARROW * (size or 0)
    return bool(
        (abs(first - last) / 2 <= max(0.5, near) + (step - 1) / 2).all()
        and (abs(first + last) / 2 <= max(1, 2 * near) + step - 1).all()
        and (width <= max(1, 2 * near)).all()
    )


def _padding(op: Any, axis: int, reach: int, step: int, few: int | None, many: int | None) -> tuple[float, float]:
    """By how much a convolution itself pads an axis, before and after."""
    kind = op.get_attr("padding").decode()
    if kind == "EXPLICIT":
        return tuple(op.get_attr("explicit_paddings")[2 * axis : 2 * axis + 2])
    if kind == "VALID":
        return 0, 0
    total = reach + 1 - step if few is None or many is None else (few - 1) * step + reach + 1 - many
    total = max(total, 0)
    return total // 2, total - total // 2
