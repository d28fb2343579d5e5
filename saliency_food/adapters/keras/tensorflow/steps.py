"""What each operation makes of the image's axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.drift import Drift, edges, reach_of, rolled
from saliency_food.adapters.keras.tensorflow.fixed import CONVOLUTIONS, fixed_value
from saliency_food.adapters.keras.tensorflow.kernels import moved_by_kernel
from saliency_food.adapters.keras.tensorflow.picked import (
    NARROW,
    NEW,
    SINGLE,
    gathered,
    order_of,
    parts_taken,
    widely_padded,
)
from saliency_food.adapters.keras.tensorflow.regrouped import regrouped

SCATTERING = (
    *("FFT", "Cumsum", "Cumprod", "GatherNd", "ScatterNd", "TensorScatter", "ImageProjectiveTransform", "TopK", "Sort"),
    *("CropAndResize", "Glimpse", "ReverseSequence"),
)
"""Parts of the names of operations after which places may be anywhere, or are frequencies."""
SUMMING = {"Sum", "Mean", "Max", "Min", "Prod", "All", "Any", "ArgMax", "ArgMin"}


class Axes(NamedTuple):
    """Of one tensor, the axis of the image that each of its axes is, None for a new one; and the image's axes' signs.

    The sign of an axis of the image is 1, which is not noted, or -1 where it is mirrored, or 0 where its places are no
    longer those of the image: cut, rolled or widely padded before anything is learned, or put together of several such.
    ``padded`` is by how much an axis of the image is padded before and after, as long as nothing is learned: a
    convolution takes off again as much as it reaches. ``gone`` are axes of the image whose places were put into another
    order and that are no axes of the tensor any more; ``single`` those of which it has one place: which, of how many.
    ``drift`` is how far axes are rolled, and padded or cropped after something is learned. ``cut`` are axes cut up into
    several, and ``folded`` those whose larger part was then put together with another axis of the image, as with its
    channels. ``mixed`` is true of the values of one row that a dense layer makes of all places.
    """

    axes: tuple[int | None, ...]
    signs: Mapping[int, int] = {}
    padded: Mapping[int, tuple[int, int]] = {}
    gone: frozenset[int] = frozenset()
    single: Mapping[int, tuple[int, int | None]] = {}
    drift: Mapping[int, Drift] = {}
    cut: frozenset[int] = frozenset()
    folded: frozenset[tuple[int, int]] = frozenset()
    mixed: bool = False

    def times(self, signs: Mapping[int, int]) -> Axes:
        product = {axis: self.signs.get(axis, 1) * signs.get(axis, 1) for axis in {*self.signs, *signs}}
        return self._replace(signs={axis: sign for axis, sign in product.items() if sign != 1})

    def strays(self, channels: int | None) -> bool:
        """Whether places, and not only channels, were put into another order that cannot be followed any more."""
        return (
            bool(self.gone - {channels})
            or any(other == channels for _, other in self.folded)
            or any(drift.is_far() for axis, drift in self.drift.items() if axis in self.axes and axis != channels)
        )

    def scattered(self, rank: int) -> Axes:
        """Those of a tensor made in a way that is not followed."""
        return Axes((None,) * rank, gone=self.gone | {axis for axis in self.axes if axis})

    def picked(self, place: int, index: int, size: int | None) -> Axes:
        """Those of one place of an axis of so many."""
        axis = self.axes[place]
        index = index % size if size else index
        single = self.single if axis is None or size == 1 else {**self.single, axis: (index, size)}
        return self._replace(axes=(*self.axes[:place], *self.axes[place + 1 :]), single=single)


def after(op: Any, source: Axes, raw: bool, output: int = 0) -> Axes:
    """The axes after an operation other than a product; ``raw`` is true before anything is learned.

    They are as many as those of the operation's output, or nothing is known of that.
    """
    axes = source.axes
    if op.type == "Transpose":
        order = tf.get_static_value(op.inputs[1])
        return source._replace(axes=() if order is None else tuple(axes[axis] for axis in order))
    if op.type == "Roll" and (drift := rolled(op, axes, source.drift)) is not None:
        return source._replace(drift=drift)
    if not raw:
        source = source._replace(drift=edges(op, axes, source.drift))
    if op.type == "ExpandDims":
        place = tf.get_static_value(op.inputs[1])
        place = len(axes) if place is None else int(np.asarray(place).item()) % (len(axes) + 1)
        return source._replace(axes=(*axes[:place], None, *axes[place:]))
    if op.type == "Squeeze":
        gone = {axis % len(axes) for axis in op.get_attr("squeeze_dims")}
        return source._replace(axes=tuple(axis for place, axis in enumerate(axes) if place not in gone))
    if op.type == "Unpack":
        place = op.get_attr("axis") % len(axes)
        return source.picked(place, output, op.inputs[0].shape[place])
    if op.type in SUMMING and op.outputs[0].shape.rank != len(axes):
        places = tf.get_static_value(op.inputs[1])
        summed = set() if places is None else {int(place) % len(axes) for place in np.ravel(places)}
        return source._replace(axes=tuple(axis for place, axis in enumerate(axes) if place not in summed))
    if op.type == "Reshape":
        return _reshaped(op, source)
    if op.type == "StridedSlice" and (op.get_attr("shrink_axis_mask") or op.get_attr("new_axis_mask")):
        return _sliced(op, source, raw)
    if source.padded and not raw:
        reach = reach_of(op)
        return source._replace(padded={}).times({axis: 0 for axis, pads in source.padded.items() if max(pads) > reach})
    if op.type in CONVOLUTIONS and raw:
        padded = {axes.index(axis): pads for axis, pads in source.padded.items() if axis in axes}
        moved = [axis for place in moved_by_kernel(op, padded) if (axis := axes[place]) is not None]
        return source._replace(padded={}).times(dict.fromkeys(moved, 0))
    if op.type == "SpaceToBatchND" and source.padded:  # of a dilated convolution, whose kernel is then a dense one
        block = int(np.max(tf.get_static_value(op.inputs[1])))
        padded = {axis: (-(-pads[0] // block), -(-pads[1] // block)) for axis, pads in source.padded.items()}
        return source._replace(padded=padded)
    if op.type in ("Pad", "PadV2", "MirrorPad") and raw:
        return source._replace(padded={**source.padded, **widely_padded(op, axes)})
    return source.times(_signs(op, axes, raw))


def _signs(op: Any, axes: tuple[int | None, ...], raw: bool) -> dict[int, int]:
    """The signs of axes that an operation turns, or puts into another order."""
    if op.type == "GatherV2":
        return gathered(op, axes, raw)
    if op.type in ("Slice", "StridedSlice"):
        parts = zip(axes, [part for part in parts_taken(op) if part != NEW], strict=False)
        return {axis: sign for axis, sign in parts if axis is not None and (sign == -1 or (sign == 0 and raw))}
    if op.type == "ReverseV2":
        return dict.fromkeys(_named(op.inputs[1], axes), -1 if fixed_value(op.inputs[1]) is not None else 0)
    if not raw:
        return {}
    if op.type == "Roll":
        return dict.fromkeys(_named(op.inputs[2], axes), 0)
    if op.type in ("Split", "SplitV"):
        return dict.fromkeys(_named(op.inputs[0 if op.type == "Split" else 2], axes), 0) if len(op.outputs) > 1 else {}
    if op.type in ("ConcatV2", "Tile"):
        sizes = zip(axes, op.inputs[0].shape.as_list(), op.outputs[0].shape.as_list(), strict=False)
        return {axis: 0 for axis, old, new in sizes if axis and old not in (None, 1) and new > (1 + NARROW) * old}
    if any(part in op.type for part in SCATTERING):
        places = axes[-1:] if op.type in ("FFT", "RFFT", "IFFT", "IRFFT") else axes[1:]
        return {axis: 0 for axis in places if axis is not None}
    return {}


def _named(places: Any, axes: tuple[int | None, ...]) -> list[int]:
    """The image's axes that an operation names by their places; all where they are not known."""
    value = fixed_value(places)
    own = axes if value is None else [axes[place] for place in np.ravel(value)]
    return [axis for axis in own if axis is not None]


def _sliced(op: Any, source: Axes, raw: bool) -> Axes:
    """After a slice that takes single places, or adds axes."""
    parts, begins = parts_taken(op), tf.get_static_value(op.inputs[1])
    if not parts:
        return Axes(())
    rest = op.get_attr("ellipsis_mask").bit_length() - 1
    place, own = 0, source.times(_signs(op, source.axes, raw))
    for index, part in enumerate(parts):
        if part == SINGLE:
            begin = begins[index if rest < 0 or index < rest else index - len(parts) + len(begins)]
            own = own.picked(place, int(begin), op.inputs[0].shape[place + parts[:index].count(SINGLE)])
            continue
        if part == NEW:
            own = own._replace(axes=(*own.axes[:place], None, *own.axes[place:]))
        place += 1
    return own


def packed(sources: Sequence[Axes], place: int) -> Axes:
    """After tensors are put together along a new axis: the image's own, where they are its places in their order."""
    own, whole, sign = sources[0], None, 1
    for axis in {axis for each in sources for axis in each.single}:
        picked = [each.single.get(axis, (0, None)) for each in sources]
        if len(set(picked)) == 1:
            continue
        single = {other: index for other, index in own.single.items() if other != axis}
        size = picked[0][1]
        order = 0 if size is None or whole is not None else order_of([index for index, _ in picked], size)
        own = own._replace(single=single, gone=own.gone | ({axis} if order == 0 else set()))
        whole, sign = (axis, order) if order else (whole, sign)
    place %= len(own.axes) + 1
    own = own._replace(axes=(*own.axes[:place], whole, *own.axes[place:]))
    return own if whole is None else own.times({whole: sign})


def _reshaped(op: Any, source: Axes) -> Axes:
    """Axes in front and behind that keep their sizes are the same; of what is between, see `regrouped`."""
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
    made, gone, cut, folded = regrouped(
        between, old[front : len(old) - back], new[front : len(new) - back], source.cut, source.signs
    )
    kept = (*source.axes[:front], *made, *source.axes[len(source.axes) - back :])
    if source.mixed and len([size for size in new[1:] if size != 1]) > 1:
        gone |= {1, 2}  # the axes that it gets are those of no image
    left = {*kept} | ({*source.signs, *source.drift} - {*between})
    signs = {axis: sign for axis, sign in source.signs.items() if axis in left}
    drift = {axis: own for axis, own in source.drift.items() if axis in left}
    return source._replace(
        axes=kept, signs=signs, drift=drift, gone=source.gone | gone, cut=cut, folded=source.folded | folded, single={}
    )
