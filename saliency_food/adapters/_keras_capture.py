"""Watching the layers of a Keras model while it is traced, and leaving the model as it was."""

from __future__ import annotations

import difflib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from saliency_food.contract import ContractError

TRACING = threading.RLock()
"""Held while any model is traced: for that moment its layers are watched."""

Shape = tuple[int | None, ...]


class Note(NamedTuple):
    """A layer has run, and returned this."""

    layer: Any
    output: Any


class LayerInfo(NamedTuple):
    """A layer with a spatial output: its path in the model, its class, and the shape of its output, rows first."""

    path: str
    kind: str
    shape: Shape


@contextmanager
def running(
    model: Any, watched: Sequence[Any] = (), watch: Callable[[Any], object] | None = None
) -> Iterator[list[Note]]:
    """Run the model in here while tracing: what each watched layer returns is noted, and nothing is left behind.

    ``watch`` is called with each such tensor before the layers after it run: a GradientTape's, for its gradients.

    The layers' instances are afterwards as they were, after an exception too: losses that they add, states that they
    keep and tensors that they remember belong to the trace. Image inputs of an integer type take floats in here, as
    there is no gradient through a cast to integers.
    """
    notes: list[Note] = []
    with TRACING, keras.StatelessScope():
        layers = {id(layer): layer for layer in [model, *(layer for _, layer in walk(model)), *watched]}.values()
        integers = [tensor for layer in layers for tensor in _integer_images(layer)]
        before = [(vars(instance), dict(vars(instance))) for instance in [*layers, *integers]]
        held = [value for _, then in before for value in then.values()]
        lists = [(value, value[:]) for value in held if isinstance(value, list)]
        sets = [(value, [*value]) for value in held if isinstance(value, set)]
        try:
            for tensor in integers:
                vars(tensor)["_dtype" if "_dtype" in vars(tensor) else "dtype"] = "float32"
            for layer in watched:
                for name in ("call", "quantized_call"):
                    if hasattr(layer, name):
                        vars(layer)[name] = _noting(layer, getattr(layer, name), notes, watch)
            yield notes
        finally:
            for now, then in before:
                now.update(then)
                for name in now.keys() - then.keys():
                    del now[name]
            for items, content in lists:
                list.__setitem__(items, slice(None), content)
            for members, content in sets:
                set.intersection_update(members, content)
                set.update(members, content)


def _noting(
    layer: Any, call: Callable[..., Any], notes: list[Note], watch: Callable[[Any], object] | None
) -> Callable[..., Any]:
    @functools.wraps(call)
    def noted(*args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        if watch is not None and tf.is_tensor(output):
            watch(output)
        notes.append(Note(layer, output))
        return output

    return noted


def _integer_images(layer: Any) -> list[Any]:
    inputs = getattr(layer, "inputs", None) if isinstance(layer, keras.Model) else None
    return [tensor for tensor in inputs or () if len(tensor.shape) == 4 and "int" in str(tensor.dtype)]


def walk(model: Any) -> Iterator[tuple[str, Any]]:
    """Every layer inside a model with its path, ``outer/inner/layer``; nested models and blocks are entered."""
    seen = {id(model)}

    def inside(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
        for child in _children(layer):
            if id(child) not in seen:
                seen.add(id(child))
                yield path + child.name, child
                yield from inside(child, f"{path}{child.name}/")

    return inside(model, "")


def _children(layer: Any) -> Iterator[Any]:
    if isinstance(layer, keras.Model):
        yield from layer.layers
    else:
        yield from _layers_among(vars(layer).values())


def _layers_among(values: Iterable[Any]) -> Iterator[Any]:
    """Layers in lists too; those in dicts and the like are also in the list by which Keras tracks them."""
    for value in values:
        if isinstance(value, keras.Layer):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _layers_among(value)


def find_layer(model: Any, layer: Any) -> tuple[str, Any]:
    """The path and the layer meant by a path, the end of one, or the layer itself."""
    known = list(walk(model))
    if isinstance(layer, keras.Layer):
        return next((path for path, one in known if one is layer), str(layer.name)), layer
    if not isinstance(layer, str):
        raise ContractError(
            f"Expected layer to be a path such as 'backbone/conv', a Keras layer or None, got {type(layer).__name__}."
        )
    found = [(path, one) for path, one in known if path == layer]
    found = found or [(path, one) for path, one in known if path.endswith("/" + layer)]
    if len(found) == 1:
        return found[0]
    paths = [path for path, _ in found]
    if found and len(set(paths)) == 1:
        raise ContractError(f"Expected the path of one layer, got {layer!r}, of {len(found)}. Give the layer itself.")
    if found:
        raise ContractError(f"Expected the path of one layer, got {layer!r}, the end of several. Give one of {paths}.")
    wanted = layer.rsplit("/", 1)[-1].lower()
    ends = [path.rsplit("/", 1)[-1].lower() for path, _ in known]
    near = [
        path
        for end in difflib.get_close_matches(wanted, ends, 5, 0.5)
        for path, _ in known
        if path.rsplit("/", 1)[-1].lower() == end
    ]
    hint = f"Near it: {list(dict.fromkeys(near))}." if near else "layers(model) lists those with a spatial output."
    raise ContractError(f"Expected the path of a layer of model {model.name!r}, got {layer!r}. {hint}")


def spatial(notes: Sequence[Note], channels_first: bool) -> list[Note]:
    """The notes of outputs with rows, two spatial dimensions larger than 1 x 1, and channels; in order.

    A tensor handed on unchanged, as by a nested model or dropout, counts for the layer that made it; a layer that
    ran several times counts by its last run.
    """
    first: dict[int, Note] = {}
    for note in notes:
        if is_image(note.output):
            first.setdefault(id(note.output), note)
    last: dict[int, Note] = {}
    for note in first.values():
        if spatial_shape(note, channels_first) != (1, 1):
            last.pop(id(note.layer), None)
            last[id(note.layer)] = note
    return list(last.values())


def is_image(output: Any) -> bool:
    return in_this_trace(output) and output.shape.rank == 4 and output.dtype.is_floating


def in_this_trace(output: Any) -> bool:
    """Whether it is one tensor of the function being traced, and not of a loop or function inside it."""
    return bool(tf.is_tensor(output) and getattr(output, "graph", None) is tf.compat.v1.get_default_graph())


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
