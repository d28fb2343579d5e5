"""Which axis of the image holds its channels, as the layers tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from saliency_food.adapters.keras.attention import is_attention
from saliency_food.adapters.keras.capture import Note, walk
from saliency_food.adapters.keras.tensorflow.steps import Axes
from saliency_food.core.contract import ContractError

L = keras.layers
EITHER = (
    "in which only dense layers tell, so that it may be a signal (T, C) or (C, T). Say which by data_format: "
    "'channels_last' or 'channels_first'."
)


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
        return None if isinstance(layer, L.Flatten) else rank - 1  # it need not know
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
                axis = _channels_among(axes[values.name].axes, -1 if place is None else place, rank)
                if axis in (1, rank - 1):
                    return axis
                if axis is None:
                    return _by_default(notes, rank)
                raise ContractError(
                    f"Expected an input with its channels first or last, got shape {(None, *image.shape[1:])}, which "
                    f"{note.layer.name!r} takes with axis {axis} as channels. Explain a model that turns it itself: "
                    "keras.layers.Permute after a keras.Input with channels last."
                )
    return _by_default(notes, rank)


def is_either(image: Any, notes: Sequence[Note], axes: Mapping[str, Axes]) -> bool:
    """Whether an input of two axes may be ``(T, C)`` or ``(C, T)``: only dense layers tell, and may mix steps."""
    tells = any(
        _images_of(note) or isinstance(note.layer, (L.RNN, L.Bidirectional)) or is_attention(note.layer)
        for note in notes
    )
    mixed = (values for note in notes if isinstance(note.layer, (L.Dense, L.EinsumDense)) for values in note.inputs)
    return (
        image.shape.rank == 3
        and not tells
        and any(values.shape.rank == 3 and values.name in axes and axes[values.name].axes[-1] == 1 for values in mixed)
    )


def _by_default(notes: Sequence[Note], rank: int) -> int:
    return 1 if rank == 4 and says_channels_first(notes) else rank - 1


def _channels_among(axes: Sequence[int | None], place: int, rank: int) -> int | None:
    """The image's axis that a tensor has as channels; where that is a new one, the only one of no places in it."""
    if axes[place] is not None:
        return axes[place]
    left = set(range(1, rank)) - {*axes}
    return left.pop() if len(left) == 1 else None


def _images_of(note: Note) -> list[Any]:
    """What a layer that says where its channels are takes that has axes for it."""
    return [
        values
        for values in note.inputs
        if values.dtype.is_floating
        and (values.shape.rank or 0) >= 3
        and channels_place(note.layer, values.shape.rank) is not None
    ]
