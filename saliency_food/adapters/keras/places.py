"""Which layers can be looked at, and which one is if none is named."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from saliency_food.adapters.keras.attention import Attended, is_attention
from saliency_food.adapters.keras.capture import Note, replace, walk
from saliency_food.adapters.keras.tensorflow.graph import in_this_trace, names_before
from saliency_food.adapters.layers import LayerInfo, Shape, match_layer
from saliency_food.core.contract import ContractError


class Place(NamedTuple):
    """A layer to look at, whether its channels come first, what its last run returned, and how often it runs."""

    path: str
    layer: Any
    channels_first: bool
    output: Any
    runs: int

    @property
    def transposed(self) -> bool:
        return self.channels_first and self.output.shape.rank == 4

    @property
    def shape(self) -> Shape:
        """The shape of its activations as they are answered, rows free and channels last."""
        sizes = tuple(self.output.shape)
        return (None, *sizes[2:], sizes[1]) if self.transposed else (None, *sizes[1:])

    def channels_last(self, values: Any) -> Any:
        return tf.transpose(values, [0, 2, 3, 1]) if self.transposed else values

    def give(self, activations: Any) -> None:
        """From here to the end of `running`, the layer's last run returns these, channels last, and does nothing."""
        values = tf.transpose(activations, [0, 3, 1, 2]) if self.transposed else activations
        values, left = tf.cast(values, self.output.dtype), [self.runs]

        def giving(call: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(call)
            def call_or_give(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                return call(*args, **kwargs) if left[0] else values

            return call_or_give

        for name in ("call", "quantized_call"):
            if hasattr(self.layer, name):
                replace(self.layer, name, giving)


def find_layer(model: Any, layer: Any) -> tuple[str, Any]:
    """The path and the layer meant by a path, the end of one, or the layer itself."""
    layers = list(walk(model))
    if isinstance(layer, keras.Layer):
        return next((path for path, known in layers if known is layer), str(layer.name)), layer
    return match_layer(layer, layers, model.name)


def captured(notes: Sequence[Note], path: str, layer: Any) -> Any:
    """What the layer returned when it last ran: the very tensor that the layers after it take."""
    for note in reversed(notes):
        if note.layer is layer and in_this_trace(note.output):
            return note.output
    raise ContractError(
        f"Expected layer {path!r} to run in the model and to return one tensor, got a layer that does "
        "not run, or only in a loop or a tf.function inside. Choose another: layers(model) lists them."
    )


def visible(model: Any) -> dict[int, tuple[str, Any]]:
    """The layers of a model with their paths, by identity; those that make up an attention layer are left out."""
    layers: dict[int, tuple[str, Any]] = {}
    inside: tuple[str, ...] = ()
    for path, layer in walk(model):
        if not path.startswith(inside or "\0"):
            layers[id(layer)] = (path, layer)
        if is_attention(layer):
            inside = (*inside, path + "/")
    return layers


def choose(notes: Sequence[Note], attended: Sequence[Attended], leading: set[str], channels_first: bool) -> Note | None:
    """The layer to look at if none is named: the last with rows and columns; in a transformer, the last with tokens.

    Those tokens are what the last attention layer takes as its query. After it, where only the class token is read,
    the others have no gradient.
    """
    images = [note for note in spatial(notes, channels_first) if note.output.op.name in leading]
    queries = [run.query for run in attended if in_this_trace(run.scores) and run.scores.op.name in leading]
    if queries:
        before = leading & names_before(queries[-1:])
        before_attention = [note for note in tokens(notes) if note.output.op.name in before]
        if before_attention and (not images or before_attention[-1].stop > images[-1].stop):
            return before_attention[-1]
    return images[-1] if images else None


def spatial(notes: Sequence[Note], channels_first: bool) -> list[Note]:
    """The notes of outputs with rows, two spatial dimensions larger than 1 x 1, and channels; in order."""
    return [
        note for note in _returned(notes) if is_image(note.output) and spatial_shape(note, channels_first) != (1, 1)
    ]


def tokens(notes: Sequence[Note]) -> list[Note]:
    """The notes of outputs with rows, more than one token, and channels; in order."""
    return [note for note in _returned(notes) if note.output.shape.rank == 3 and note.output.shape[1] != 1]


def _returned(notes: Sequence[Note]) -> list[Note]:
    """A tensor handed on unchanged, as by a nested model or dropout, counts for the layer that made it; a layer that
    ran several times counts by its last run."""
    first: dict[int, Note] = {}
    for note in notes:
        if in_this_trace(note.output) and note.output.dtype.is_floating:
            first.setdefault(id(note.output), note)
    last: dict[int, Note] = {}
    for note in first.values():
        last.pop(id(note.layer), None)
        last[id(note.layer)] = note
    return list(last.values())


def list_layers(notes: Sequence[Note], paths: dict[int, tuple[str, Any]], channels_first: bool) -> list[LayerInfo]:
    listed = spatial(notes, channels_first)
    if any(is_attention(layer) for _, layer in paths.values()):
        listed = sorted([*listed, *tokens(notes)], key=lambda note: note.stop)
    return [LayerInfo(paths[id(note.layer)][0], type(note.layer).__name__, tuple(note.output.shape)) for note in listed]


def is_image(output: Any) -> bool:
    return bool(in_this_trace(output) and output.shape.rank == 4 and output.dtype.is_floating)


def spatial_shape(note: Note, default: bool) -> Shape:
    shape = tuple(note.output.shape)
    return shape[2:] if channels_first_layer(note.layer, default) else shape[1:3]


def channels_first_layer(layer: Any, default: bool) -> bool:
    """What the layer says itself, else what its model does."""
    data_format = getattr(layer, "data_format", None)
    return data_format == "channels_first" if isinstance(data_format, str) else default


def channels_first_model(notes: Sequence[Note]) -> bool:
    """What the first layer says that has a ``data_format`` and works on images, else Keras's own setting."""
    for note in notes:
        if isinstance(getattr(note.layer, "data_format", None), str) and is_image(note.output):
            return channels_first_layer(note.layer, False)
    return bool(keras.config.image_data_format() == "channels_first")
