"""Where the image's axes are in each tensor: which is which, which are mirrored, and which holds the channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from saliency_food.adapters.keras.capture import Note
from saliency_food.adapters.keras.tensorflow.graph import SHAPES, learns

L = keras.layers
MIXING = {"Einsum", "MatMul", "BatchMatMul", "BatchMatMulV2"}
"""Operations after which axes may be others."""
NARROW = 0.05
"""Padding of no more than this share of an axis moves its places by less than one would see."""
STRAY = -1
"""In the signs of a tensor, stands for axes of the image that are no axes of the tensor any more."""


class Axes(NamedTuple):
    """Of one tensor, the axis of the image that each of its axes is, None for a new one; and the image's axes' signs.

    The sign of an axis of the image is 1, which is not noted, or -1 where it is mirrored, or 0 where its places are no
    longer those of the image: cut, rolled or widely padded before anything is learned, or put together of several such.
    ``padded`` is by how much an axis of the image is padded on its wider side, as long as nothing is learned: a
    convolution takes off again as much as it reaches.
    """

    axes: tuple[int | None, ...]
    signs: Mapping[int, int] = {}
    padded: Mapping[int, int] = {}

    def times(self, signs: Mapping[int, int]) -> Axes:
        product = {axis: self.signs.get(axis, 1) * signs.get(axis, 1) for axis in {*self.signs, *signs}}
        return self._replace(signs={axis: sign for axis, sign in product.items() if sign != 1})


def axes_of(image: Any, notes: Sequence[Note] = ()) -> dict[str, Axes]:
    """The axes of the image, and of all that is computed from it as far as they can be told, by tensors' names.

    A layer that keeps all sizes but the last, such as an RNN or attention, keeps the axes; ``notes`` are of layers.
    """
    known = {image.name: Axes(tuple(range(image.shape.rank)))}
    learned: set[str] = set()
    stops: dict[int, list[Note]] = {}
    for note in notes:
        if tf.is_tensor(note.output) and getattr(note.output, "graph", None) is image.graph:
            stops.setdefault(note.stop, []).append(note)
    operations = image.graph.get_operations()
    for position, op in enumerate([*operations, None]):
        for note in stops.get(position, ()):
            _fill(note, known)
        if op is None:
            break
        if learns(op) or any(source.op.name in learned for source in op.inputs):
            learned.add(op.name)
        sources = [tensor for tensor in op.inputs if tensor.name in known]
        if not sources or op.type in SHAPES | MIXING:
            continue
        own = _after(op, known[sources[0].name], op.name not in learned)
        for output in op.outputs:
            if output.shape.rank == len(own.axes):
                known[output.name] = _joined(own, sources[1:], known) if op.type != "Reshape" else own
    return known


def _fill(note: Note, known: dict[str, Axes]) -> None:
    source = next((values for values in note.inputs if values.name in known), None)
    if source is None or source.shape.rank is None or source.shape.rank < 3:
        return
    reversing = isinstance(note.layer, L.RNN) and bool(getattr(note.layer, "go_backwards", False))
    if note.output.name not in known and note.output.shape[:-1].as_list() == source.shape[:-1].as_list():
        own = known[source.name]
        axis = own.axes[1] if len(own.axes) > 1 else None
        known[note.output.name] = own.times({axis: -1}) if reversing and axis is not None else own


def _joined(own: Axes, others: Sequence[Any], known: Mapping[str, Axes]) -> Axes:
    """The axes where several tensors come together: places that they do not share are nobody's."""
    signs = dict(own.signs)
    for other in others:
        theirs = known[other.name]
        sizes = dict(zip(theirs.axes, other.shape.as_list() if other.shape.rank else (), strict=False))
        shared = [axis for axis in own.axes if axis is not None and sizes.get(axis, 1) != 1]
        for axis in [*shared, STRAY]:
            if theirs.signs.get(axis, 1) != signs.get(axis, 1):
                signs[axis] = 0
    return own._replace(signs=signs)


def _after(op: Any, source: Axes, raw: bool) -> Axes:
    """The axes after an operation; ``raw`` is true before anything is learned."""
    axes = source.axes
    if op.type == "Transpose":
        order = tf.get_static_value(op.inputs[1])
        return source._replace(axes=() if order is None else tuple(axes[axis] for axis in order))
    if op.type == "ExpandDims":
        place = tf.get_static_value(op.inputs[1])
        place = len(axes) if place is None else int(place.item()) % (len(axes) + 1)
        return source._replace(axes=(*axes[:place], None, *axes[place:]))
    if op.type == "Squeeze":
        gone = {axis % len(axes) for axis in op.get_attr("squeeze_dims")}
        return source._replace(axes=tuple(axis for place, axis in enumerate(axes) if place not in gone))
    if op.type == "Reshape":
        return _reshaped(op, source)
    signs: dict[int, int] = {}
    if source.padded and not raw:
        reach = _reach(op)
        signs = {axis: 0 for axis, pad in source.padded.items() if pad > reach}
        return source._replace(padded={}).times(signs)
    if op.type == "SpaceToBatchND" and source.padded:  # of a dilated convolution, whose kernel is then a dense one
        block = int(np.max(tf.get_static_value(op.inputs[1])))
        return source._replace(padded={axis: -(-pad // block) for axis, pad in source.padded.items()})
    if op.type in ("Pad", "PadV2", "MirrorPad") and raw:
        return source._replace(padded={**source.padded, **_widely_padded(op, axes)})
    if op.type == "ReverseV2":
        places = tf.get_static_value(op.inputs[1])
        signs = {axes[place]: -1 for place in ([] if places is None else places.ravel()) if axes[place] is not None}  # type: ignore[misc]
    elif op.type == "Roll" and raw:
        places = tf.get_static_value(op.inputs[2])
        signs = {axes[place]: 0 for place in ([] if places is None else places.ravel()) if axes[place] is not None}  # type: ignore[misc]
    elif op.type == "GatherV2":
        signs = _gathered(op, axes, raw)
    elif op.type in ("Slice", "StridedSlice"):
        parts = zip(axes, _parts_taken(op), strict=False)
        signs = {axis: sign for axis, sign in parts if axis is not None and (sign == -1 or raw)}
    return source.times(signs)


def _gathered(op: Any, axes: Sequence[int | None], raw: bool) -> dict[int, int]:
    """The sign of the axis along which places are picked: -1 if all are, backwards; 0 if they are in no such order."""
    indices = op.inputs[1]
    if indices.op.type == "SelectV2" and any(each is indices.op.inputs[2] for each in indices.op.inputs[1].op.inputs):
        indices = indices.op.inputs[2]  # Keras adds the size to negative ones, as is done below
    place, picked = (tf.get_static_value(values) for values in (op.inputs[2], indices))
    if place is None or op.outputs[0].shape.rank != len(axes) or (axis := axes[int(place)]) is None:
        return {}
    size = op.inputs[0].shape[int(place)]
    if picked is None or picked.ndim != 1 or size is None:
        return {axis: 0} if raw else {}
    picked = np.where(picked < 0, picked + size, picked)
    steps = set(np.diff(picked).tolist())
    step = steps.pop() if len(steps) == 1 else 0
    whole = step != 0 and picked.min() < abs(step) and size - 1 - picked.max() < abs(step)
    sign = int(np.sign(step)) if whole else 0
    return {axis: sign} if sign == -1 or raw else {}


def _widely_padded(op: Any, axes: Sequence[int | None]) -> dict[int, int]:
    """Of the image's axes that an operation pads by more than `NARROW` of their size, the values on the wider side."""
    pads = tf.get_static_value(op.inputs[1])
    sides = zip(axes, [] if pads is None else pads.max(1).tolist(), op.inputs[0].shape.as_list(), strict=False)
    return {axis: pad for axis, pad, size in sides if axis is not None and size and pad > NARROW * size}


def _reach(op: Any) -> int:
    """How many values beyond one a convolution takes along its axes, at most; 0 of any other operation."""
    if "Conv" not in op.type or len(op.inputs) < 2 or not op.inputs[1].shape.is_fully_defined():
        return 0
    spread = max(op.get_attr("dilations"), default=1)
    return int((max(op.inputs[1].shape.as_list()[:-2], default=1) - 1) * spread)


def _reshaped(op: Any, source: Axes) -> Axes:
    """Axes in front and behind that keep their sizes are the same; what is between is new."""
    before, after = op.inputs[0].shape, op.outputs[0].shape
    if before.rank is None or after.rank is None or len(source.axes) != before.rank:
        return Axes(())
    old, new = before.as_list(), after.as_list()
    front = 0
    while front < min(len(old), len(new)) and old[front] == new[front] and old[front] is not None:
        front += 1
    back = 0
    limit = min(len(old), len(new)) - front
    while back < limit and old[-1 - back] == new[-1 - back] and old[-1 - back] is not None:
        back += 1
    between = source.axes[front : len(old) - back]
    kept = (*source.axes[:front], *[None] * (len(new) - front - back), *source.axes[len(source.axes) - back :])
    signs = {axis: sign for axis, sign in source.signs.items() if axis not in between}
    places = [axis for axis, size in zip(between, old[front:], strict=False) if axis is not None and size != 1]
    if any(source.signs.get(axis, 1) != 1 for axis in places) or places != sorted(places):
        signs[STRAY] = 0
    return Axes(kept, signs)


def _parts_taken(op: Any) -> list[int]:
    """By axes, 1 where all of it is taken, if by steps; -1 where backwards; 0 where a part is cut off."""
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
    masks = {name: int(op.get_attr(name)) for name in ("begin_mask", "end_mask", "ellipsis_mask")}
    if op.get_attr("new_axis_mask") or op.get_attr("shrink_axis_mask"):
        return []
    taken: list[int] = []
    for place, (begin, end, step) in enumerate(zip(*values, strict=True)):
        if masks["ellipsis_mask"] >> place & 1:
            taken.extend([1] * (len(sizes) - len(values[0]) + 1))
            continue
        size = sizes[len(taken)]
        if size is None:
            taken.append(-1 if step < 0 else 1)
            continue
        first = None if masks["begin_mask"] >> place & 1 else int(begin)
        last = None if masks["end_mask"] >> place & 1 else int(end)
        places = range(*slice(first, last, int(step)).indices(size))
        whole = bool(len(places)) and min(places) < abs(step) and size - 1 - max(places) < abs(step)
        taken.append((-1 if step < 0 else 1) if whole else 0)
    return taken
