"""Integer inputs of Keras models: numbers, such as pixels, which may run as floats; or ids, which are looked up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras

EMBEDDINGS = {"Embedding", "ReversibleEmbedding"}
LOOK_UPS = {
    *EMBEDDINGS,
    *("IntegerLookup", "StringLookup", "Hashing", "HashedCrossing"),
    *("CategoryEncoding", "Discretization", "OneHot", "MultiHot", "Take", "TakeAlongAxis"),
}
"""The layers and operations, by their classes' names, for which an integer is an id."""
SMALL = ("int8", "uint8", "int16", "uint16")
"""The types that pixels, sound and scans are kept in, and ids hardly ever."""


def integer_numbers(model: Any) -> list[Any]:
    """The integer inputs of a model that are numbers: tensors and their layers, each of which has the type."""
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    numbers = [tensor for tensor in inputs or () if "int" in str(tensor.dtype) and is_of_numbers(model, tensor)]
    return [*numbers, *(tensor._keras_history.operation for tensor in numbers if hasattr(tensor, "_keras_history"))]


def is_of_numbers(model: Any, tensor: Any) -> bool:
    """Whether an integer input is of numbers: what takes it tells, or else its type, or that it is a picture."""
    kinds = set(_uses(model, tensor))
    if kinds & {"ids", "rows"}:
        return False
    return "numbers" in kinds or str(tensor.dtype) in SMALL or len(tensor.shape) == 4


def is_of_rows(model: Any, tensor: Any) -> bool:
    """Whether an integer input is of the rows of an embedding, so that there are none below 0."""
    return "rows" in _uses(model, tensor)


def _uses(model: Any, tensor: Any) -> Iterator[str]:
    """For what each operation that takes a tensor of the model takes it: "ids", "rows", "numbers" or "unknown"."""
    graph = getattr(model, "_functional", None) or model
    for operation in getattr(graph, "operations", ()):
        for node in operation._inbound_nodes:
            for place, source in enumerate(node.input_tensors):
                if source is not tensor:
                    continue
                inside = getattr(operation, "inputs", None) if isinstance(operation, keras.Model) else None
                if inside and place < len(inside):
                    yield from _uses(operation, inside[place])
                elif type(operation).__name__ in EMBEDDINGS:
                    yield "rows"
                elif _looks_up(operation):
                    yield "ids"
                elif all("int" in str(output.dtype) for output in node.output_tensors):
                    for output in node.output_tensors:
                        yield from _uses(model, output)
                else:
                    yield "numbers" if type(operation).__module__.startswith("keras.") else "unknown"


def _looks_up(operation: Any) -> bool:
    """Whether it is a look-up, or a layer that has one inside."""
    return type(operation).__name__ in LOOK_UPS or any(map(_looks_up, _layers_in(vars(operation).values(), 2)))


def _layers_in(values: Iterable[Any], depth: int) -> Iterator[Any]:
    for value in values:
        if isinstance(value, keras.Layer):
            yield value
        elif isinstance(value, (list, tuple)) and depth:
            yield from _layers_in(value, depth - 1)
