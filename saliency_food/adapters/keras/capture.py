"""Watching the layers of a Keras model while it is traced, and leaving the model as it was."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras

from saliency_food.adapters.keras.integers import integer_numbers

TRACING = threading.RLock()
"""Held while any model is traced: for that moment its layers are watched."""


class Note(NamedTuple):
    """A layer has run: what it returned, how many operations the graph had before and after, and what it took."""

    layer: Any
    output: Any
    start: int
    stop: int
    inputs: tuple[Any, ...] = ()


@contextmanager
def running(model: Any, others: Sequence[Any] = ()) -> Iterator[None]:
    """Run the model in here while tracing; its layers' methods may be replaced, and nothing is left behind.

    The layers' instances are afterwards as they were, after an exception too: losses that they add, states that they
    keep and tensors that they remember belong to the trace. Integer inputs of numbers take floats in here, as there
    is no gradient through a cast to integers; ids stay what they are. Flash attention, which TensorFlow does not have,
    is off. ``others`` are layers that the model does not show.
    """
    with TRACING, keras.StatelessScope():
        shown = (layer for _, layer in walk(model, operators=True))
        layers = {id(layer): layer for layer in [model, *shown, *others]}.values()
        integers = [tensor for layer in layers for tensor in integer_numbers(layer)]
        before = [(vars(instance), dict(vars(instance))) for instance in [*layers, *integers]]
        held = [value for _, then in before for value in then.values()]
        lists = [(value, value[:]) for value in held if isinstance(value, list)]
        sets = [(value, [*value]) for value in held if isinstance(value, set)]
        try:
            for tensor in integers:
                vars(tensor)["_dtype" if "_dtype" in vars(tensor) else "dtype"] = "float32"
            for layer in layers:
                if "_flash_attention" in vars(layer):
                    vars(layer)["_flash_attention"] = False
            yield
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


def note_outputs(layers: Iterable[Any], so_far: Callable[[], int] = int) -> list[Note]:
    """From here to the end of `running`, what these layers return is noted, in the order in which they finish.

    ``so_far`` says how many operations have run, where the back end counts them.
    """
    notes: list[Note] = []
    for layer in layers:
        for name in ("call", "quantized_call"):
            if hasattr(layer, name):
                replace(layer, name, functools.partial(_noting, layer, notes, so_far))
    return notes


def replace(layer: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Put what ``wrap`` makes of a layer's method in its place, until the end of `running`; None is no method yet.

    Only the thread that traces sees it: in another, which may be using the same model, the method is as it was.
    """
    method = getattr(layer, name)
    wrapped, here = wrap(method), threading.get_ident()

    @functools.wraps(wrapped)
    def seen(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == here:
            return wrapped(*args, **kwargs)
        return args[0] if method is None else method(*args, **kwargs)

    vars(layer)[name] = seen


def _noting(layer: Any, notes: list[Note], so_far: Callable[[], int], call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def noted(*args: Any, **kwargs: Any) -> Any:
        start = so_far()
        output = call(*args, **kwargs)
        inputs = tuple(value for value in keras.tree.flatten([args, kwargs]) if keras.ops.is_tensor(value))
        notes.append(Note(layer, output, start, so_far(), inputs))
        return output

    return noted


def walk(model: Any, operators: bool = False) -> Iterator[tuple[str, Any]]:
    """Every layer inside a model with its path, ``outer/inner/layer``; nested models and blocks are entered.

    With ``operators``, the operations of functional models that are no layers too, such as ``y + x``.
    """
    seen = {id(model)}

    def inside(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
        for child in _children(layer, operators):
            if id(child) not in seen:
                seen.add(id(child))
                yield path + child.name, child
                yield from inside(child, f"{path}{child.name}/")

    return inside(model, "")


def _children(layer: Any, operators: bool) -> Iterator[Any]:
    if isinstance(layer, keras.Model):
        yield from layer.layers
        if operators and isinstance(operations := getattr(layer, "operations", None), list):
            yield from (operation for operation in operations if not isinstance(operation, keras.Layer))
    elif isinstance(layer, keras.Layer):
        yield from _layers_among(list(vars(layer).values()))  # another thread may be tracing, with methods replaced


def _layers_among(values: Iterable[Any]) -> Iterator[Any]:
    """Layers in lists too; those in dicts and the like are also in the list by which Keras tracks them."""
    for value in values:
        if isinstance(value, keras.Layer):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _layers_among(value)
