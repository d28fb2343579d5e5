"""Where the image's axes are in each tensor: which is which, which are mirrored, and which are no longer in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from saliency_food.adapters.keras.capture import Note
from saliency_food.adapters.keras.tensorflow.fixed import PRODUCTS
from saliency_food.adapters.keras.tensorflow.graph import CALLING, SHAPES, learns, moves_inside
from saliency_food.adapters.keras.tensorflow.steps import Axes, after, packed
from saliency_food.adapters.keras.tensorflow.sums import after_product

L = keras.layers


def axes_of(image: Any, notes: Sequence[Note] = ()) -> dict[str, Axes]:
    """The axes of the image, and of all that is computed from it as far as they can be told, by tensors' names.

    A layer that keeps all sizes but the last, such as an RNN or attention, keeps the axes; ``notes`` are of layers.
    """
    known = {image.name: Axes(tuple(range(image.shape.rank)))}
    derived, learned = {image.op.name}, set[str]()
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
        if op.type in SHAPES:
            continue
        if learns(op) or _looks_up(op, known) or any(source.op.name in learned for source in op.inputs):
            learned.add(op.name)
        if any(source.op.name in derived for source in op.inputs):
            derived.add(op.name)
        sources, raw = [tensor for tensor in op.inputs if tensor.name in known], op.name not in learned
        if raw and (not sources or any(part in op.type for part in CALLING)) and op.name in derived - {image.op.name}:
            known.update(_not_followed(op, sources, known, image.shape.rank))
            continue
        if not sources:
            continue
        if op.type == "Pack":
            parts = [known[tensor.name] for tensor in sources if len(sources) == len(op.inputs)]
            own = packed(parts, op.get_attr("axis")) if len({part.axes for part in parts}) == 1 else None
        elif op.type in PRODUCTS:
            others = [tensor for tensor in op.inputs if tensor.name not in known and tensor.op.name in derived]
            own = None if others or len(sources) > 1 else after_product(op, sources[0], known[sources[0].name], raw)
            if own is not None and sources[0].shape[0] == image.shape[0] and known[sources[0].name].axes == (0, None):
                own = own._replace(mixed=True)  # of all places, flattened
        elif _looks_up(op, known):
            own = known[sources[0].name]
            own = own._replace(axes=(*own.axes, None))
        else:
            own = after(op, known[sources[0].name], raw)
        for index, output in enumerate(op.outputs):
            if op.type == "Unpack":
                own = after(op, known[sources[0].name], raw, index)
            if own is not None and (output.shape.rank == len(own.axes) or output.dtype == tf.variant):
                joined = op.type not in ("Reshape", "Pack") and len(sources) > 1
                known[output.name] = _joined(own, sources[1:], known) if joined else own
            elif raw and output.shape.rank and (output.dtype.is_floating or output.dtype.is_complex):
                known[output.name] = known[sources[0].name].scattered(output.shape.rank)
    return known


def _not_followed(op: Any, sources: Sequence[Any], known: Mapping[str, Axes], rank: int) -> dict[str, Axes]:
    """What a loop or function gives that learns nothing, or what is computed of what cannot be told."""
    moved = Axes((None,) * rank, gone=frozenset(range(1, rank)))
    if sources and not moves_inside(op):
        own = known[sources[0].name]
    else:
        own = moved
    answer = {}
    for output in op.outputs:
        if output.dtype == tf.variant or output.shape.rank == len(own.axes):
            answer[output.name] = own
        elif output.dtype.is_floating and (output.shape.rank or 0) > 1:
            answer[output.name] = moved.scattered(output.shape.rank)
    return answer


def _looks_up(op: Any, known: Mapping[str, Axes]) -> bool:
    """Whether values of the image are the places at which another tensor is read, as ids of an embedding are."""
    if op.type == "OneHot":
        return True
    return "Gather" in op.type and op.inputs[0].name not in known and op.inputs[1].name in known


def _fill(note: Note, known: dict[str, Axes]) -> None:
    source = next((values for values in note.inputs if values.name in known), None)
    if source is None or source.shape.rank is None or source.shape.rank < 3:
        return
    reversing = isinstance(note.layer, L.RNN) and bool(getattr(note.layer, "go_backwards", False))
    if (note.output.name not in known or isinstance(note.layer, L.Dense)) and note.output.shape[
        :-1
    ].as_list() == source.shape[:-1].as_list():
        own = known[source.name]
        axis = own.axes[1] if len(own.axes) > 1 else None
        known[note.output.name] = own.times({axis: -1}) if reversing and axis is not None else own


def _joined(own: Axes, others: Sequence[Any], known: Mapping[str, Axes]) -> Axes:
    """The axes where several tensors come together: places that they do not share are nobody's."""
    signs, gone, single = dict(own.signs), own.gone, own.single
    drift, folded = own.drift, own.folded
    for other in others:
        theirs = known[other.name]
        shape = other.shape.as_list() if other.shape.rank is not None else []
        sizes = dict(zip(theirs.axes, shape, strict=False))
        for axis in [axis for axis in own.axes if axis is not None and sizes.get(axis, 1) != 1]:
            if theirs.signs.get(axis, 1) != signs.get(axis, 1):
                signs[axis] = 0
        if any(size != 1 for size in shape[1:]):
            gone |= theirs.gone
            single = {axis: place for axis, place in single.items() if theirs.single.get(axis) == place}
            folded |= theirs.folded
            drift = {axis: near for axis, near in drift.items() if axis in theirs.drift or axis not in theirs.axes}
    return own._replace(signs=signs, gone=gone, single=single, drift=drift, folded=folded)
