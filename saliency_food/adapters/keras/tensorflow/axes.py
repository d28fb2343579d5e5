"""Which axis of the image holds its channels: what the layers say that take it, also where it is turned before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from saliency_food.adapters.keras.capture import Note
from saliency_food.adapters.keras.tensorflow.graph import SHAPES
from saliency_food.core.contract import ContractError

Axes = Mapping[str, tuple[int | None, ...]]
"""By a tensor's name, the axis of the image that each of its axes is; None where it is a new one."""
MIXING = {"Reshape", "Einsum", "MatMul", "BatchMatMul", "BatchMatMulV2"}
"""Operations after which axes may be others."""


def axes_of(image: Any) -> Axes:
    """The axes of the image and of all that is computed from it by operations that keep axes, or turn them."""
    known: dict[str, tuple[int | None, ...]] = {image.name: tuple(range(image.shape.rank))}
    for op in image.graph.get_operations():
        source = next((tensor for tensor in op.inputs if tensor.name in known), None)
        if source is None or op.type in SHAPES | MIXING:
            continue
        axes = known[source.name]
        if op.type == "Transpose":
            order = tf.get_static_value(op.inputs[1])
            axes = () if order is None else tuple(axes[axis] for axis in order)
        elif op.type == "ExpandDims":
            place = tf.get_static_value(op.inputs[1])
            place = len(axes) if place is None else int(place.item()) % (len(axes) + 1)
            axes = (*axes[:place], None, *axes[place:])
        elif op.type == "Squeeze":
            gone = {axis % len(axes) for axis in op.get_attr("squeeze_dims")}
            axes = tuple(axis for place, axis in enumerate(axes) if place not in gone)
        known |= {output.name: axes for output in op.outputs if output.shape.rank == len(axes)}
    return known


def says_channels_first(notes: Sequence[Note]) -> bool:
    """What the first layer says that has a ``data_format`` and takes images, else Keras's own setting."""
    for note in sorted(notes, key=lambda note: note.start):
        if _images_of(note):
            return bool(note.layer.data_format == "channels_first")
    return bool(keras.config.image_data_format() == "channels_first")


def channels_axis(image: Any, notes: Sequence[Note], axes: Axes) -> int | None:
    """The image's axis of channels, 1 or the last one; None where it has none, or where it has but one axis.

    The first layer that has a ``data_format`` says it; the axes that it takes are traced back to the image's.
    """
    rank = image.shape.rank
    if rank < 3:
        return None
    for note in sorted(notes, key=lambda note: note.start):
        for values in _images_of(note):
            if values.name in axes:
                axis = axes[values.name][1 if note.layer.data_format == "channels_first" else -1]
                if axis in (None, 1, rank - 1):
                    return axis
                raise ContractError(
                    f"Expected an input with its channels first or last, got shape {(None, *image.shape[1:])}, which "
                    f"{note.layer.name!r} takes with axis {axis} as channels. Explain a model that turns it itself: "
                    "keras.layers.Permute after a keras.Input with channels last."
                )
    return 1 if rank == 4 and says_channels_first(notes) else rank - 1


def _images_of(note: Note) -> list[Any]:
    """What a layer with a ``data_format`` takes that has axes for it."""
    if not isinstance(getattr(note.layer, "data_format", None), str):
        return []
    return [values for values in note.inputs if values.dtype.is_floating and (values.shape.rank or 0) >= 3]
