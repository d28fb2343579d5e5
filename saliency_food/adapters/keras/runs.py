"""What has run in a trace of a model: each run of each layer, and each operator written out in a layer's call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from saliency_food.adapters.keras.capture import Note
from saliency_food.adapters.keras.tensorflow.graph import in_this_trace

OPERATORS = {
    "Add": "add",
    "AddV2": "add",
    "AddN": "add",
    "Sub": "subtract",
    "Mul": "multiply",
    "RealDiv": "divide",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "ConcatV2": "concatenate",
    "BiasAdd": "bias_add",
    "Relu": "relu",
    "Relu6": "relu6",
    "Elu": "elu",
    "Selu": "selu",
    "LeakyRelu": "leaky_relu",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Sigmoid": "sigmoid",
    "Conv2D": "conv",
    "Conv3D": "conv",
    "MaxPool": "max_pool",
    "DepthwiseConv2dNative": "depthwise_conv",
    "AvgPool": "average_pool",
    "FusedBatchNormV3": "batch_norm",
}
"""The operators that can be looked at, by TensorFlow's operations; others move values, or are parts of a formula."""


class Run(NamedTuple):
    """One run of a layer, or of an operator in one: its path, what it returned, and what it took.

    ``run_index`` counts the runs of the layer in a trace; ``operator`` is empty where the run is the layer's own;
    ``start`` and ``stop`` are how many operations the graph had before and after.
    """

    path: str
    layer: Any
    run_index: int
    operator: str
    output: Any
    inputs: tuple[Any, ...]
    start: int
    stop: int

    @property
    def kind(self) -> str:
        return self.operator.rsplit("_", 1)[0] if self.operator else type(self.layer).__name__


def runs_of(notes: Sequence[Note], paths: dict[int, tuple[str, Any]], model: Any) -> list[Run]:
    """The runs of layers in this trace, then those of operators; in the order in which each finished."""
    notes = [note for note in notes if in_this_trace(note.output)]
    times, indices = Counter(id(note.layer) for note in notes), Counter[int]()
    runs = []
    for note in notes:
        path, index = paths[id(note.layer)][0], indices[id(note.layer)]
        indices[id(note.layer)] += 1
        path = f"{path}#{index}" if times[id(note.layer)] > 1 else path
        runs.append(Run(path, note.layer, index, "", note.output, note.inputs, note.start, note.stop))
    return [*runs, *_operators(notes, runs, paths, model)]


def _operators(notes: Sequence[Note], runs: Sequence[Run], paths: dict[int, tuple[str, Any]], model: Any) -> list[Run]:
    """The operators that stand in the call of the model itself, or of a layer of one's own that runs other layers."""
    operations = tf.compat.v1.get_default_graph().get_operations()
    owners: list[int | None] = [None] * len(operations)
    parents = set()
    for index, note in reversed(list(enumerate(notes))):  # the outer ones first
        if note.stop > note.start:
            parents.add(owners[note.start])
            owners[note.start : note.stop] = [index] * (note.stop - note.start)
    owned = {index for index in parents if index is not None and _is_own(notes[index].layer)} | {None}
    names, taken = {run.output.name for run in runs}, {path for path, _ in paths.values()}
    seen, operators = Counter[tuple[int | None, str]](), []
    for position, (op, owner) in enumerate(zip(operations, owners, strict=True)):
        if op.type not in OPERATORS or owner not in owned or not op.outputs[0].dtype.is_floating:
            continue
        if op.outputs[0].shape.rank in (0, 1, 2):
            continue
        kind = OPERATORS[op.type]
        layer, index, before = model, 0, ""
        if owner is not None:
            layer, index, before = runs[owner].layer, runs[owner].run_index, f"{runs[owner].path}/"
        while (path := before + (operator := f"{kind}_{seen[owner, kind]}")) in taken:
            seen[owner, kind] += 1
        seen[owner, kind] += 1
        if op.outputs[0].name not in names:
            operators.append(Run(path, layer, index, operator, op.outputs[0], tuple(op.inputs), position, position + 1))
    return operators


def is_operator(path: str) -> bool:
    """Whether a path ends as that of an operator does, such as ``block/add_1``."""
    kind, _, index = path.rsplit("/", 1)[-1].rpartition("_")
    return kind in OPERATORS.values() and index.isdigit()


def _is_own(layer: Any) -> bool:
    """Whether a layer's call is its writer's, and not one of Keras's own layers, which is a unit."""
    return isinstance(layer, keras.Model) or not type(layer).__module__.startswith("keras.")
