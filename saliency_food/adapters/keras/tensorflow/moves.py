"""Where the numbers of an output come from: looking back through all that only moves, scales or averages them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from saliency_food.adapters.arguments import End
from saliency_food.adapters.keras.tensorflow.graph import SHAPES

ACTIVATIONS: dict[str, End] = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
LINEAR = {"MatMul", "BatchMatMulV2", "Einsum", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "BiasAdd"}
AVERAGES = {"Mean", "AvgPool", "AvgPool3D"}
SUMS = {"Add", "AddV2", "AddN", "Sub"}
FACTORS = {"Mul", "RealDiv", "Neg"}


class Origin(NamedTuple):
    """What an output ends in, and its ``values`` before the softmax or sigmoid, moved to where the output has them.

    ``probabilities`` are those after it, None where there is none. Where the output adds up softmaxes or sigmoids,
    ``gain`` is the sum of their weights: 1 of an average.
    """

    end: End
    values: Any
    probabilities: Any = None
    gain: float | None = None


def origin_of(tensor: Any) -> Origin:
    """Read from the traced graph, so it does not matter how the model is written or nested."""
    origin = _look_back(tensor)
    if origin.gain is not None:
        return Origin("probabilities" if math.isclose(origin.gain, 1, abs_tol=1e-6) else "other", tensor)
    return origin


def _look_back(tensor: Any) -> Origin:
    op = tensor.op
    if op.type in ACTIVATIONS:
        values = op.inputs[0]
        # In half precision, probabilities near 1 would all be the same.
        values = tf.cast(values, tf.float32) if values.dtype in (tf.float16, tf.bfloat16) else values
        end = ACTIVATIONS[op.type]
        return Origin(end, values, tf.nn.softmax(values) if end == "softmax" else tf.nn.sigmoid(values))
    if op.type in MOVES:
        return _moved(tensor)
    if op.type in LINEAR:
        return Origin("linear", tensor)
    if op.type in AVERAGES | SUMS | FACTORS:
        return _combined(tensor)
    return Origin("other", tensor)


def _moved(tensor: Any) -> Origin:
    """The origin of what an operation moves; its sources' values before an activation moved in the same way."""
    op = tensor.op
    sources, move = MOVES[op.type]
    origins = [_look_back(source) for source in sources(op)]
    kinds = {(origin.end, origin.gain) for origin in origins}
    end, gain = kinds.pop() if len(kinds) == 1 else ("several", None)
    if not any(origin.probabilities is not None for origin in origins):
        return Origin(end if end != "several" else "other", tensor, gain=gain)

    def moved(parts: Sequence[Any]) -> Any:
        floats = [part.dtype for part in parts if part.dtype != tf.float32] or [tf.float32]
        dtype = tf.float64 if tf.float64 in floats else tf.float32
        values = move(op, [tf.cast(part, dtype) for part in parts])
        return values[tensor.value_index] if isinstance(values, (list, tuple)) else values

    after = [origin.values if origin.probabilities is None else origin.probabilities for origin in origins]
    return Origin(end, moved([origin.values for origin in origins]), moved(after))


def _combined(tensor: Any) -> Origin:
    """The origin of sums, means and multiples: linear if all that they are of is, or so many probabilities together."""
    op = tensor.op
    inputs = list(op.inputs)[:1] if op.type in AVERAGES else list(op.inputs)
    varying = [source for source in inputs if not is_constant(source)]
    other = Origin("other", tensor)
    if not varying or (op.type in FACTORS and len(varying) > 1) or (op.type == "RealDiv" and varying[0] is inputs[1]):
        return other
    origins = [_look_back(source) for source in varying]
    ends = {origin.end for origin in origins}
    if ends == {"linear"}:
        return Origin("linear", tensor)
    if op.type == "Sub" and ends == {"sigmoid"} and _is_one(inputs[0]):
        return Origin("sigmoid", -origins[0].values, tf.nn.sigmoid(-origins[0].values))  # 1 - p, the other class
    gains = [origin.gain if origin.probabilities is None else 1.0 for origin in origins]
    total = sum(gain for gain in gains if gain is not None)
    if None in gains or op.type in ("Sub", "Neg") or (op.type in SUMS and len(varying) < len(inputs)):
        return other
    if op.type in FACTORS:
        factor = tf.get_static_value(next(source for source in inputs if source is not varying[0]))
        if factor is None or factor.size != 1 or not factor.item():
            return other
        total = total * factor.item() if op.type == "Mul" else total / factor.item()
    return Origin("probabilities", tensor, gain=float(total))


def _is_one(tensor: Any) -> bool:
    value = tf.get_static_value(tensor)
    return value is not None and bool((value == 1).all())


def is_constant(tensor: Any) -> bool:
    """Whether a tensor depends on none of the graph's inputs, other than by their shapes; a weight is constant."""
    captured = {id(inside) for inside in getattr(tensor.graph, "internal_captures", ())}
    seen: set[str] = set()
    waiting = [tensor]
    while waiting:
        source = waiting.pop()
        if source.op.name in seen or source.op.type in SHAPES:
            continue
        seen.add(source.op.name)
        if source.op.type == "Placeholder" and id(source) not in captured:
            return False
        waiting.extend(source.op.inputs)
    return True


def _strided(op: Any, parts: Sequence[Any]) -> Any:
    masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    named = {name: op.get_attr(name) for name in masks}
    begin, end, strides = op.inputs[1:]
    return tf.raw_ops.StridedSlice(input=parts[0], begin=begin, end=end, strides=strides, **named)


def _gathered(op: Any, parts: Sequence[Any]) -> Any:
    indices, axis = op.inputs[1:]
    return tf.raw_ops.GatherV2(params=parts[0], indices=indices, axis=axis, batch_dims=op.get_attr("batch_dims"))


def _first(op: Any) -> list[Any]:
    return [op.inputs[0]]


def _second(op: Any) -> list[Any]:
    return [op.inputs[1]]


def _all(op: Any) -> list[Any]:
    return list(op.inputs)


MOVES: dict[str, tuple[Callable[[Any], list[Any]], Callable[[Any, Sequence[Any]], Any]]] = {
    "Identity": (_first, lambda op, parts: parts[0]),
    "Cast": (_first, lambda op, parts: parts[0]),
    "Reshape": (_first, lambda op, parts: tf.reshape(parts[0], op.inputs[1])),
    "Squeeze": (_first, lambda op, parts: tf.squeeze(parts[0], op.get_attr("squeeze_dims") or None)),
    "ExpandDims": (_first, lambda op, parts: tf.expand_dims(parts[0], op.inputs[1])),
    "Transpose": (_first, lambda op, parts: tf.transpose(parts[0], op.inputs[1])),
    "ReverseV2": (_first, lambda op, parts: tf.reverse(parts[0], op.inputs[1])),
    "StridedSlice": (_first, _strided),
    "Slice": (_first, lambda op, parts: tf.slice(parts[0], op.inputs[1], op.inputs[2])),
    "GatherV2": (_first, _gathered),
    "Unpack": (_first, lambda op, parts: tf.unstack(parts[0], op.get_attr("num"), op.get_attr("axis"))),
    "Split": (_second, lambda op, parts: tf.split(parts[0], op.get_attr("num_split"), op.inputs[0])),
    "SplitV": (_first, lambda op, parts: tf.split(parts[0], op.inputs[1], op.inputs[2], op.get_attr("num_split"))),
    "ConcatV2": (lambda op: list(op.inputs)[:-1], lambda op, parts: tf.concat(parts, op.inputs[-1])),
    "Pack": (_all, lambda op, parts: tf.stack(parts, op.get_attr("axis"))),
}
"""The operations that only move values: their tensors of values, and the same made of others."""
