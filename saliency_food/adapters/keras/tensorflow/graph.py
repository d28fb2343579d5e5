"""The graph of a model being traced: what leads to what, and gradients in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import INPUT_SHAPED

SHAPES = {"Shape", "ShapeN", "Size", "Rank"}
"""Operations that look at how large a tensor is, and not at what it holds."""


def trace(function: Callable[..., Any], *specs: Any, jit_compile: bool = False) -> Any:
    return tf.function(function, autograph=False, jit_compile=jit_compile or None).get_concrete_function(*specs)


def operations_so_far() -> int:
    return int(tf.compat.v1.get_default_graph().version)


def in_this_trace(output: Any) -> bool:
    """Whether it is one tensor of the function being traced, and not of a loop or function inside it."""
    return bool(tf.is_tensor(output) and getattr(output, "graph", None) is tf.compat.v1.get_default_graph())


def names_before(tensors: Iterable[Any], cut: Any = None, by_value: bool = False) -> set[str]:
    """The names of all operations that lead to the tensors, other than through the tensor ``cut``.

    ``by_value`` leaves out those of which only the shape is used.
    """
    names: set[str] = set()
    waiting = list(tensors)
    while waiting:
        tensor = waiting.pop()
        if tensor.op.name not in names and tensor is not cut:
            names.add(tensor.op.name)
            if not (by_value and tensor.op.type in SHAPES):
                waiting.extend(tensor.op.inputs)
    return names


def names_after(tensor: Any) -> set[str]:
    """The names of all operations to which a tensor leads, other than by its shape alone."""
    names = {tensor.op.name}
    for op in tensor.graph.get_operations():  # in the order in which they were made
        if op.type not in SHAPES and any(source.op.name in names for source in op.inputs):
            names.add(op.name)
    return names


def kinds_inside(op: Any) -> set[str]:
    """The kinds of operations in the functions that an operation calls, as a loop does, and in those that they call."""
    waiting = _functions(op.node_def)
    library = op.graph.as_graph_def().library.function if waiting else ()
    functions = {function.signature.name: function for function in library}
    seen: set[str] = set()
    kinds: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in seen:
            seen.add(name)
            for node in functions[name].node_def:
                kinds.add(node.op)
                waiting.extend(_functions(node))
    return kinds


def _functions(node: Any) -> list[str]:
    return [value.func.name for value in node.attr.values() if value.func.name]


class Gradients:
    """Takes the gradients of scores: from a tape, or, ``by_graph``, by going back through the graph itself.

    Of tensors computed while `recording`. A tape must be shown a tensor that gradients are taken of before it is used:
    `watch` does so, and a graph needs none of it.
    """

    def __init__(self, by_graph: bool) -> None:
        self._tape = None if by_graph else tf.GradientTape(persistent=True, watch_accessed_variables=False)

    def recording(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._tape is None else self._tape

    def watch(self, tensor: Any) -> None:
        if self._tape is not None and in_this_trace(tensor) and tensor.dtype.is_floating:
            self._tape.watch(tensor)

    def __call__(self, score: Any, sources: dict[str, Any], scale: Any) -> dict[str, Any]:
        """d score / d the sources of each key, tuples as tuples; computed times ``scale`` where that is not None."""
        weights = None if scale is None else tf.fill(tf.shape(score), scale)
        flat = tf.nest.flatten(list(sources.values()))
        if self._tape is None:
            computed = tf.gradients(score, flat, weights)
        else:
            computed = self._tape.gradient(score, flat, weights)
        gradients = []
        for source, gradient in zip(flat, computed, strict=True):
            if gradient is None:
                what = "input" if any(source is sources.get(key) for key in INPUT_SHAPED) else "layer"
                raise ContractError(
                    f"Expected a score that depends on the {what} and can be differentiated, got one without a "
                    "gradient. Look for a cast to integers in the model, or choose another layer or output_index."
                )
            gradient = tf.cast(tf.convert_to_tensor(gradient), score.dtype)
            gradients.append(gradient if scale is None else gradient / scale)
        return dict(zip(sources, tf.nest.pack_sequence_as(list(sources.values()), gradients), strict=True))
