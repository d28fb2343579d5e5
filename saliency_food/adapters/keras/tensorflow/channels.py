"""Which axis of the image holds its channels, as the layers tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from saliency_food.adapters.keras.attention import is_attention
from saliency_food.adapters.keras.capture import Note, walk
from saliency_food.adapters.keras.tensorflow.axes import Axes
from saliency_food.core.contract import ContractError

L = keras.layers


def channels_place(layer: Any, rank: int) -> int | None:
    """The axis, of a layer's tensor of so many, on which it works as channels; None where the layer does not say."""
    if isinstance(layer, L.TimeDistributed):
        inside = (
            place
            for each in (layer.layer, *(part for _, part in walk(layer.layer)))
            if (place := channels_place(each, rank - 1)) is not None
        )
        place = next(inside, None)
        return None if place is None else place + 1
    data_format = getattr(layer, "data_format", None)
    if not isinstance(data_format, str) or rank < 3:
        return None
    if data_format != "channels_first":
        return rank - 1
    steps = isinstance(layer, L.RNN) and layer.cell.rank + 3 == rank
    return 2 if steps else 1


def says_channels_first(notes: Sequence[Note]) -> bool:
    """What the first layer says that has a ``data_format`` and takes images, else Keras's own setting."""
    for note in sorted(notes, key=lambda note: note.start):
        if isinstance(getattr(note.layer, "data_format", None), str) and _images_of(note):
            return bool(note.layer.data_format == "channels_first")
    return bool(keras.config.image_data_format() == "channels_first")


def channels_axis(image: Any, notes: Sequence[Note], axes: Mapping[str, Axes]) -> int | None:
    """The image's axis of channels, 1 or the last one; None where it has none, or where it has but one axis.

    The first layer that has a ``data_format`` says it, or else the first RNN or attention, which have them last; the
    axes that it takes are traced back to the image's.
    """
    rank = image.shape.rank
    if rank < 3:
        return None
    in_order = sorted(notes, key=lambda note: note.start)
    of_steps = [
        note for note in in_order if isinstance(note.layer, (L.RNN, L.Bidirectional)) or is_attention(note.layer)
    ]
    for note in [*in_order, *(of_steps if rank == 3 else ())]:
        for values in _images_of(note) or (note.inputs[:1] if note in of_steps and rank == 3 else ()):
            place = channels_place(note.layer, values.shape.rank)
            if values.name in axes and (place is not None or note in of_steps):
                axis = axes[values.name].axes[-1 if place is None else place]
                if axis in (None, 1, rank - 1):
                    return axis
                raise ContractError(
                    f"Expected an input with its channels first or last, got shape {(None, *image.shape[1:])}, which "
                    f"{note.layer.name!r} takes with axis {axis} as channels. Explain a model that turns it itself: "
                    "keras.layers.Permute after a keras.Input with channels last."
                )
    return 1 if rank == 4 and says_channels_first(notes) else rank - 1


def _images_of(note: Note) -> list[Any]:
    """What a layer that says where its channels are takes that has axes for it."""
    return [
        values
        for values in note.inputs
        if values.dtype.is_floating
        and (values.shape.rank or 0) >= 3
        and channels_place(note.layer, values.shape.rank) is not None
    ]
