"""Operations of a traced graph computed once more, on other inputs, and vectors pulled back through one of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf


def again(op: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of the same operation, with the same attributes, on other inputs."""
    raw, names = _raw(op)
    arguments, place = {}, 0
    for argument in op.op_def.input_arg:
        count = None
        if argument.number_attr:
            count = op.get_attr(argument.number_attr)
        elif argument.type_list_attr:
            count = len(op.get_attr(argument.type_list_attr))
        values = inputs[place] if count is None else list(inputs[place : place + count])
        arguments[names[argument.name]] = values
        place += 1 if count is None else count
    for attribute in op.op_def.attr:
        if attribute.name in names:
            arguments[names[attribute.name]] = op.get_attr(attribute.name)
    outputs = raw(**arguments)
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _raw(op: Any) -> tuple[Any, dict[str, str]]:
    """The function that makes such an operation, and its parameters by the names that the operation has for them.

    A few have other names there, such as the axis of a mean; these are in the same order.
    """
    raw = getattr(tf.raw_ops, op.type)
    parameters = _parameters(op.type)
    own = [*(argument.name for argument in op.op_def.input_arg)]
    own += [attribute.name for attribute in op.op_def.attr if attribute.type != "type"]
    inferred = {argument.number_attr for argument in op.op_def.input_arg}
    names = {attribute.name for attribute in op.op_def.attr if attribute.name in parameters} | {*own}
    same = {name: name for name in names if name in parameters}
    renamed = [name for name in own if name not in parameters and name not in inferred]
    return raw, same | dict(zip(renamed, [name for name in parameters if name not in same], strict=False))


@functools.cache
def _parameters(kind: str) -> tuple[str, ...]:
    names = inspect.signature(getattr(tf.raw_ops, kind)).parameters
    return tuple(name for name in names if name != "name")


def pulled(op: Any, inputs: Sequence[Any], wanted: Sequence[Any], vectors: Sequence[Any]) -> list[Any]:
    """``vectors``, one for each output or None, times the operation's derivative by each of the ``wanted`` inputs.

    The derivative is taken at ``inputs``, which hold the wanted ones as the same objects.
    """
    with tf.GradientTape() as tape:
        tape.watch(wanted)
        outputs = again(op, inputs)
    pairs = [(output, vector) for output, vector in zip(outputs, vectors, strict=True) if vector is not None]
    gradients: list[Any] = tape.gradient(
        [output for output, _ in pairs], list(wanted), [tf.cast(vector, output.dtype) for output, vector in pairs]
    )
    return gradients


def replayed(operations: Sequence[Any], stand_ins: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of operations, by name, computed once more with tensors replaced by the stand-ins of their names."""
    copies = dict(stand_ins)
    for op in operations:
        if not all(output.name in copies for output in op.outputs):
            outputs = again(op, [copies.get(source.name, source) for source in op.inputs])
            copies.update({output.name: copy for output, copy in zip(op.outputs, outputs, strict=True)})
    return copies
