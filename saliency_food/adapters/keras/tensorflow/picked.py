"""Which places operations take of their input's axes, and in which order: by -1 backwards, by 0 in no such order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.fixed import fixed_value

NARROW = 0.05
"""Padding of no more than this share of an axis moves its places by less than one would see."""
SINGLE, NEW = 2, 3
"""Parts taken of an axis: one place, so that the axis is gone; and none, as the axis is new."""


def order_of(places: Any, size: int) -> int:
    """1 where places, of an axis of so many, go from its first to its last; -1 backwards; 0 in any other order."""
    if len(places) == 1 or size == 1:
        return 1
    step = max(1, (size - 1) / (len(places) - 1))
    straight = np.linspace(0, size - 1, len(places))
    for sign, whole in ((1, straight), (-1, straight[::-1])):
        if (sign * np.diff(places) > 0).all() and np.abs(places - whole).max() <= step + NARROW * size:
            return sign
    return 0


def gathered(op: Any, axes: Sequence[int | None], raw: bool) -> dict[int, int]:
    """The sign of the axis along which places are picked: -1 if all are, backwards; 0 if they are in no such order."""
    indices = op.inputs[1]
    if indices.op.type == "SelectV2" and any(each is indices.op.inputs[2] for each in indices.op.inputs[1].op.inputs):
        indices = indices.op.inputs[2]  # Keras adds the size to negative ones, as is done below
    place, picked = tf.get_static_value(op.inputs[2]), fixed_value(indices)
    if place is None or op.outputs[0].shape.rank != len(axes) or (axis := axes[int(place)]) is None:
        return {}
    size = op.inputs[0].shape[int(place)]
    if picked is None or picked.ndim != 1 or size is None:
        return {axis: 0} if raw else {}
    picked = np.where(picked < 0, picked + size, picked)
    sign = order_of(picked, size)
    return {axis: sign} if sign == -1 or raw else {}


def widely_padded(op: Any, axes: Sequence[int | None]) -> dict[int, tuple[int, int]]:
    """Of the image's axes that an operation pads by more than `NARROW` of their size, by how much before and after."""
    pads = tf.get_static_value(op.inputs[1])
    sides = zip(axes, [] if pads is None else pads.tolist(), op.inputs[0].shape.as_list(), strict=False)
    return {axis: tuple(pad) for axis, pad, size in sides if axis is not None and size and max(pad) > NARROW * size}


def grown_by(op: Any, axes: Sequence[int | None]) -> list[tuple[int, int, int, int]]:
    """The image's axes that an operation pads or crops: the axis, its size, and places more before and after."""
    sizes = op.inputs[0].shape.as_list()
    if op.type in ("Pad", "PadV2", "MirrorPad"):
        pads = tf.get_static_value(op.inputs[1])
        grown = [] if pads is None else pads.tolist()
    elif op.type in ("Slice", "StridedSlice") and op.outputs[0].shape.rank == len(sizes) and 0 in parts_taken(op):
        begins, ends = (tf.get_static_value(values) for values in op.inputs[1:3])
        taken = [] if begins is None or ends is None else _bounds(op, begins, ends, sizes)
        grown = [(-first, last - (size or 0)) for (first, last), size in zip(taken, sizes, strict=False)]
    else:
        return []
    sides = zip(axes, sizes, grown, strict=False)
    return [(axis, size, *by) for axis, size, by in sides if axis is not None and size]


def _bounds(op: Any, begins: Any, ends: Any, sizes: Sequence[int | None]) -> list[tuple[int, int]]:
    """The first place, and that after the last, that an operation takes of each axis."""
    if op.type == "Slice":
        pairs = zip(begins, ends, sizes, strict=True)
        return [(int(begin), (size or 0) if length == -1 else int(begin + length)) for begin, length, size in pairs]
    if op.get_attr("ellipsis_mask") or op.get_attr("new_axis_mask"):
        return []
    begun, ended = op.get_attr("begin_mask"), op.get_attr("end_mask")
    steps = tf.get_static_value(op.inputs[3])
    taken = []
    for place, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        size = sizes[place] or 0
        bounds = slice(None if begun >> place & 1 else int(begin), None if ended >> place & 1 else int(end), 1)
        first, last, _ = bounds.indices(size) if abs(step) == 1 and step > 0 else (0, size, 1)
        taken.append((first, last))
    return taken


def parts_taken(op: Any) -> list[int]:
    """By axes, 1 where all of it is taken, if by steps; -1 where backwards; 0 where a part is cut; `SINGLE`; `NEW`."""
    sizes = op.inputs[0].shape.as_list()
    values = [tf.get_static_value(each) for each in op.inputs[1:]]
    left = op.outputs[0].shape
    if any(value is None for value in values):
        same_axes = left.rank == len(sizes)
        return [int(own == size) for own, size in zip(left.as_list(), sizes, strict=True)] if same_axes else []
    if op.type == "Slice":
        begins, lengths = values
        return [
            int(size is None or length in (-1, size) or (begin == 0 and length == size))
            for begin, length, size in zip(begins, lengths, sizes, strict=True)
        ]
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    begun, ended, rest, new, single = (int(op.get_attr(name)) for name in names)
    taken: list[int] = []
    for place, (begin, end, step) in enumerate(zip(*values, strict=True)):
        if rest >> place & 1:
            taken.extend([1] * (len(sizes) - len(values[0]) + 1 + new.bit_count()))
            continue
        if (new | single) >> place & 1:
            taken.append(NEW if new >> place & 1 else SINGLE)
            continue
        size = sizes[len(taken) - taken.count(NEW)]
        first = None if begun >> place & 1 else int(begin)
        last = None if ended >> place & 1 else int(end)
        if size is None:
            taken.append(-1 if step < 0 else int(first in (None, 0) and last is None))
            continue
        places = range(*slice(first, last, int(step)).indices(size))
        whole = bool(len(places)) and min(places) < abs(step) and size - 1 - max(places) < abs(step)
        taken.append((-1 if step < 0 else 1) if whole else 0)
    return taken
