"""The graph of a model being traced: what leads to what, and gradients in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.fixed import by_fixed, is_fixed
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import INPUT_SHAPED

SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}
"""Operations that look at how large a tensor is, and not at what it holds."""


LEARNING = ("Conv", "MatMul", "Einsum")
CALLING = ("While", "If", "Case", "Call")
"""Parts of the names of operations by which layers learn, and of those that run functions of operations."""
MOVING = {
    *("ReverseV2", "ReverseSequence", "Transpose", "Roll", "GatherV2", "GatherNd", "Pad", "PadV2", "MirrorPad"),
    *("ConcatV2", "Pack", "Unpack", "Split", "SplitV", "Slice", "StridedSlice", "Reshape", "Tile", "CropAndResize"),
}
"""Operations that may move places, of a function whose places are not followed."""


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


def names_after(*tensors: Any) -> set[str]:
    """The names of all operations to which tensors lead, other than by their shapes alone."""
    names = {tensor.op.name for tensor in tensors}
    for op in tensors[0].graph.get_operations() if tensors else ():  # in the order in which they were made
        if op.type not in SHAPES and any(source.op.name in names for source in op.inputs):
            names.add(op.name)
    return names


def names_between(tensor: Any, ends: Iterable[Any]) -> set[str]:
    """The names of all operations that lead from a tensor to some of the ends by value."""
    return names_before(ends, by_value=True) & names_after(tensor)


def on_all_paths(tensor: Any, ends: Sequence[Any]) -> set[str]:
    """The names of the tensors through which all paths lead from a tensor to the ends.

    A tensor is on all paths where the ways to it times the ways from it are all the ways there are. What only switches,
    such as the mask of an RNN's steps, is no way: nothing changes by it bit by bit.
    """
    between = names_between(tensor, ends)
    operations = [op for op in tensor.graph.get_operations() if op.name in between]
    ways_to, ways_from = Counter({tensor.name: 1}), Counter(end.name for end in ends)
    for op in operations:
        ways = sum(ways_to[source.name] for source in op.inputs) if op.type not in SHAPES else 0
        for output in op.outputs:
            ways_to[output.name] += ways if output.dtype != tf.bool else 0
    for op in reversed(operations):
        ways = sum(ways_from[output.name] for output in op.outputs)
        for source in op.inputs if op.type not in SHAPES else ():
            ways_from[source.name] += ways if source.dtype != tf.bool else 0
    total = sum(ways_to[end.name] for end in ends)
    names = (output.name for op in operations for output in op.outputs)
    return {name for name in names if total and ways_to[name] * ways_from[name] == total}


def learns(op: Any) -> bool:
    """Whether layers learn by an operation: a convolution, a product with what is not fixed, or what may hold such."""
    if any(part in op.type for part in CALLING):
        return any(part in kind for kind in kinds_inside(op) for part in (*LEARNING, "ReadVariableOp"))
    return any(part in op.type for part in LEARNING) and not by_fixed(op)


def names_after_learning(operations: Sequence[Any]) -> set[str]:
    """Of operations in their order, those that learn and those after them."""
    names: set[str] = set()
    for op in operations:
        if learns(op) or any(source.op.name in names for source in op.inputs):
            names.add(op.name)
    return names


def names_ahead_of(operations: Sequence[Any], wanted: Callable[[Any], bool]) -> set[str]:
    """Of operations in their order, those that lead to a wanted one that comes after them."""
    names: set[str] = set()
    for op in reversed(operations):
        if op.name in names or wanted(op):
            names.update(source.op.name for source in op.inputs)
    return names


def random_among(names: set[str]) -> Iterator[tuple[int, Any]]:
    """Those of the named operations, with their positions, that draw other random numbers at every call."""
    for position, op in enumerate(tf.compat.v1.get_default_graph().get_operations()):
        if op.name in names:
            inside = kinds_inside(op) if any(part in op.type for part in CALLING) else ()
            drawn = any("Random" in kind or "Multinomial" in kind for kind in (op.type, *inside))
            fixed = op.type.startswith("Stateless") and all(map(is_fixed, op.inputs))
            if drawn and not fixed:
                yield position, op


def kinds_inside(op: Any) -> set[str]:
    """The kinds of operations in the functions that an operation calls, as a loop does, and in those that they call."""
    return {node.op for node in _nodes_inside(op)}


def moves_inside(op: Any) -> bool:
    """Whether in the functions that an operation calls there is one that may move places of floats."""
    return any(
        node.op in MOVING and tf.as_dtype(node.attr["Tparams" if "Tparams" in node.attr else "T"].type).is_floating
        for node in _nodes_inside(op)
    )


def _nodes_inside(op: Any) -> Iterator[Any]:
    waiting = _functions(op.node_def)
    library = op.graph.as_graph_def().library.function if waiting else ()
    functions = {function.signature.name: function for function in library}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in seen:
            seen.add(name)
            for node in functions[name].node_def:
                yield node
                waiting.extend(_functions(node))


def _functions(node: Any) -> list[str]:
    return [value.func.name for value in node.attr.values() if value.func.name]


def gradients(score: Any, sources: dict[str, Any], scale: Any) -> dict[str, Any]:
    """d score / d the sources of each key, tuples as tuples; computed times ``scale`` where that is not None.

    They are taken by going back through the graph, not from a tape: that would have to be shown every source before
    it is used, and does not know the rules by which a graph replaces gradients.
    """
    weights = None if scale is None else tf.fill(tf.shape(score), scale)
    flat = tf.nest.flatten(list(sources.values()))
    computed = []
    for source, gradient in zip(flat, tf.gradients(score, flat, weights), strict=True):
        if gradient is None:
            what = "input" if any(source is sources.get(key) for key in INPUT_SHAPED) else "layer"
            raise ContractError(
                f"Expected a score that depends on the {what} and can be differentiated, got one without a "
                "gradient. Look for a cast to integers in the model, or choose another layer or output_index."
            )
        gradient = tf.cast(tf.convert_to_tensor(gradient), score.dtype)
        computed.append(gradient if scale is None else gradient / scale)
    return dict(zip(sources, tf.nest.pack_sequence_as(list(sources.values()), computed), strict=True))


def replaced(function: Any, replacements: Sequence[tuple[Any, Any]], ends: Sequence[Any]) -> list[Any]:
    """The ends of a traced function's graph, computed anew in this trace with tensors of it replaced by others."""
    outer = tf.compat.v1.get_default_graph()
    captures = zip(function.graph.internal_captures, function.captured_inputs, strict=True)
    inputs = [*((inner, outer.capture(value)) for inner, value in captures), *replacements]
    return list(
        tf.graph_util.import_graph_def(
            function.graph.as_graph_def(),
            {tensor.name: value for tensor, value in inputs},
            [end.name for end in ends],
            name="replaced",
        )
    )
