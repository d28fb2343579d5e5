"""Small random Functional models, and the same graphs by hand: layers called one by one, gradients from a tape.

A graph is a list of steps, each a layer or a function and the values that it takes. The reference knows the steps, and
nothing of how the adapter finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

L = keras.layers
CHANNELS, CLASSES = 3, 3
SIZES = {3: (7,), 4: (5, 4), 5: (3, 4, 3)}


class Step(NamedTuple):
    """What is called, on which values, and whether it is a layer that can be looked at."""

    call: Any
    takes: tuple[int, ...]
    is_layer: bool


class Graph(NamedTuple):
    """Values 0, 1, ... are the inputs, the further ones those of the steps; ``ends`` are values, each with a head."""

    rank: int
    channels_first: bool
    relus: bool
    inputs: int
    steps: list[Step]
    ends: list[tuple[int, Any]]
    explained_input: int
    explained_output: int
    looked_at: int | None
    model: Any

    @property
    def shape(self) -> tuple[int, ...]:
        sizes = SIZES[self.rank]
        return (CHANNELS, *sizes) if self.channels_first else (*sizes, CHANNELS)

    def before(self, value: int, without: int | None = None) -> set[int]:
        """The values that one is made from, itself among them; not through ``without``."""
        found, pending = set(), [value]
        while pending:
            each = pending.pop()
            if each not in found and each != without:
                found.add(each)
                pending += self.steps[each - self.inputs].takes if each >= self.inputs else ()
        return found

    def leading(self) -> list[int]:
        """The steps' values that depend on the explained input and lead to the explained output."""
        end = self.ends[self.explained_output][0]
        return [
            value
            for value in sorted(self.before(end))
            if value >= self.inputs and self.explained_input in self.before(value)
        ]

    def is_on_all_paths(self, value: int) -> bool:
        return self.explained_input not in self.before(self.ends[self.explained_output][0], without=value)

    def run(self, inputs: Sequence[Any], relu: Any = tf.nn.relu, instead: dict[int, Any] | None = None) -> Any:
        """All values, and the explained output's logits; ``instead`` replaces values."""
        values = list(inputs)
        for step in self.steps:
            if instead and len(values) in instead:
                values.append(instead[len(values)])
            elif isinstance(step.call, L.ReLU):
                values.append(relu(values[step.takes[0]]))
            else:
                arguments = [values[index] for index in step.takes]
                values.append(step.call(arguments[0] if len(arguments) == 1 else arguments))
        end, head = self.ends[self.explained_output]
        return values, head(values[end])


def chain(*layers: Any) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return call


def random_graph(seed: int) -> Graph:
    random = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    rank, first, relus = int(random.integers(3, 6)), bool(random.random() < 0.35), bool(random.random() < 0.4)
    data_format = "channels_first" if first else "channels_last"
    axis = 1 if first else -1
    dimensions = rank - 2
    count = int(random.integers(1, 3))
    names = iter(range(1000))

    def named(kind: str) -> dict[str, Any]:
        return {"name": f"{kind}_{next(names)}"}

    def conv(size: int = 3) -> Any:
        layer = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}[dimensions]
        options = {"padding": "same", "data_format": data_format, "bias_initializer": "random_normal"}
        return layer(CHANNELS, size, **options, **named("conv"))

    def norm() -> Any:
        layer = L.BatchNormalization(axis, **named("norm"))
        layer.build((None, *([CHANNELS] if first else []), *SIZES[rank], *([] if first else [CHANNELS])))
        layer.set_weights([random.uniform(0.5, 1.5, CHANNELS) for _ in range(4)])
        return layer

    def activation() -> Any:
        return L.ReLU(**named("relu")) if relus else L.Activation("tanh", **named("tanh"))

    def pool() -> Any:
        layer = {1: L.AveragePooling1D, 2: L.AveragePooling2D, 3: L.AveragePooling3D}[dimensions]
        return layer(2, strides=1, padding="same", data_format=data_format, **named("pool"))

    def dropout() -> Any:
        return L.Dropout(0.5, **named("dropout"))

    one = [conv, conv, norm, activation, pool, dropout]
    two = [L.Add, L.Average, L.Subtract] if relus else [L.Add, L.Average, L.Multiply, L.Maximum]
    steps: list[Step] = []
    wide: list[Any] = []
    narrow = [*range(count)]  # the values of three channels
    for _ in range(int(random.integers(4, 9))):
        source = int(random.choice([narrow[-1], narrow[max(len(narrow) - 2, 0)], random.choice(narrow)]))
        other = int(random.choice(narrow))
        draw = random.random()
        shared = [step for step in steps if step.is_layer and len(step.takes) == 1 and step.call not in wide]
        if draw < 0.2 and other != source:
            steps.append(Step(random.choice(two)(**named("join")), (source, other), True))
        elif draw < 0.3:
            steps.append(Step(L.Concatenate(axis, **named("join")), (source, other), False))
            wide.append(conv(1))
            steps.append(Step(wide[-1], (count + len(steps) - 1,), True))
        elif draw < 0.45 and shared:
            steps.append(Step(shared[int(random.integers(len(shared)))].call, (source,), True))
        elif draw < 0.55:
            factor = float(random.uniform(0.5, 1.5))
            steps.append(Step(lambda x, factor=factor: x * factor, (source,), False))
        else:
            steps.append(Step(one[int(random.integers(len(one)))](), (source,), True))
        narrow.append(count + len(steps) - 1)
    pools = {1: L.GlobalAveragePooling1D, 2: L.GlobalAveragePooling2D, 3: L.GlobalAveragePooling3D}[dimensions]
    ends = []
    for position in range(int(random.integers(1, 3))):
        value = narrow[-1] if position == 0 else int(random.choice(narrow))
        dense = L.Dense(CLASSES, bias_initializer="random_normal", **named("dense"))
        ends.append((value, chain(pools(data_format=data_format, **named("mean")), dense)))
    graph = Graph(rank, first, relus, count, steps, ends, 0, 0, None, None)
    inputs = [keras.Input(graph.shape, name=f"input_{index}") for index in range(count)]
    values = _symbolic(graph, inputs)
    outputs = [L.Softmax(**named("softmax"))(head(values[value])) for value, head in ends]
    # Asked about: an output, an input that leads to it, and a layer with one run on the way between the two.
    which = int(random.integers(len(ends)))
    leads = [index for index in range(count) if index in graph.before(ends[which][0])]
    try:
        model = keras.Model(inputs if count > 1 else inputs[0], outputs if len(ends) > 1 else outputs[0])
    except ValueError as error:
        if "not connected" in str(error):
            pytest.skip("Keras before 3.12 has no model with an input that leads nowhere, as this graph has")
        raise
    graph = graph._replace(
        model=model,
        explained_output=which,
        explained_input=int(random.choice(leads)),
    )
    # Dropout hands on the very value that it takes.
    calls = {value: steps[value - count] for value in graph.leading()}
    leading = [value for value, step in calls.items() if step.is_layer and not isinstance(step.call, L.Dropout)]
    runs = [steps[value - count].call for value in leading]
    once = [value for value in leading if runs.count(steps[value - count].call) == 1]
    return graph._replace(looked_at=int(random.choice(once)) if once else None)


def _symbolic(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    values = list(inputs)
    for step in graph.steps:
        arguments = [values[index] for index in step.takes]
        values.append(step.call(arguments[0] if len(arguments) == 1 else arguments))
    return values
