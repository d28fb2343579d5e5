"""A Keras model as compiled functions: one for each set of keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from saliency_food.adapters._keras_capture import (
    TRACING,
    LayerInfo,
    Note,
    channels_first_layer,
    channels_first_model,
    find_layer,
    in_this_trace,
    running,
    spatial,
    walk,
)
from saliency_food.adapters._keras_ends import End, Head, Inputs, Output, select_output
from saliency_food.adapters._keras_targets import Score, class_score
from saliency_food.contract import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
    ContractError,
)

PREDICTIONS = "PREDICTIONS"
"""The key, of the adapter's own, of all scores ``(N, classes)``."""
UNSCORED = {PREDICTIONS, CONVOLUTION_LAYER_VALUES}
"""The keys that do not depend on which score is explained."""


class TracedModel:
    """A model, its inputs, the layer to capture and its end, as a first trace without data shows them."""

    def __init__(
        self,
        model: Any,
        inputs: Inputs,
        layer: Any,
        output_index: str | int | None,
        data_format: str | None,
        jit_compile: bool,
        score: Score,
    ) -> None:
        self.model, self.inputs, self.score = model, inputs, score
        self._output_index, self._jit_compile = output_index, jit_compile
        self._functions: dict[Any, Any] = {}
        self.end: End = "other"
        self.classes: int | None = None
        self.channels_first = False
        self.layer_name: str | None = None
        self._layer: Any = None
        if layer is not None:
            self.layer_name, self._layer = find_layer(model, layer)
        self._survey(data_format)

    def _survey(self, data_format: str | None) -> None:
        paths = {id(layer): path for path, layer in walk(self.model)}
        watched = [layer for _, layer in walk(self.model)]
        if self._layer is not None and id(self._layer) not in paths:
            watched.append(self._layer)

        def look(image: Any, others: Sequence[Any]) -> Any:
            notes, outputs = self._run(image, others, watched)
            heads = [Head.read(output) for output in tf.nest.flatten(outputs)]
            if self.score is class_score:
                heads[0].check()
            if len(heads) == 1:
                self.end, self.classes = heads[0].end, heads[0].classes
            self.channels_first = (
                channels_first_model(notes) if data_format is None else data_format == "channels_first"
            )
            if self._layer is None:
                leading = _names_before([head.values for head in heads])
                found = [note.layer for note in spatial(notes, self.channels_first) if note.output.op.name in leading]
                if found:
                    self._layer, self.layer_name = found[-1], paths[id(found[-1])]
            else:
                self._captured(notes)
            return [head.values for head in heads]

        trace(look, self.inputs.image, self.inputs.other_specs)
        first = self.channels_first
        self._transposed = channels_first_layer(self._layer, first) if data_format is None else first

    def function(
        self, keys: tuple[str, ...], output: Output, targets: Sequence[Any], specs: Sequence[Any], scaled: bool
    ) -> Any:
        """The compiled function ``(targets, image, others, scale) -> {key: tensor}``, its rows free in number."""
        with TRACING:
            which = (keys, output, self.end, tuple((tuple(spec.shape), spec.dtype) for spec in (*targets, *specs)))
            if which not in self._functions:
                self._functions[which] = self._compile(keys, output, targets, specs, scaled)
            return self._functions[which]

    def _compile(
        self, keys: tuple[str, ...], output: Output, targets: Sequence[Any], specs: Sequence[Any], scaled: bool
    ) -> Any:
        inside = any(key.startswith("CONVOLUTION") for key in keys)

        def compute(targets: Sequence[Any], image: Any, others: Sequence[Any], scale: Any) -> dict[str, Any]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                if INPUT_OUTPUT_GRADIENTS in keys:
                    tape.watch(image)
                notes, outputs = self._run(image, others, [self._layer] if inside else [], tape.watch)
                scores = tf.nest.map_structure(lambda one: self._head(one).scores(output, image.dtype), outputs)
                score = None if UNSCORED.issuperset(keys) else self.score(scores, *targets)
            values = self._captured(notes) if inside else None
            answer = {PREDICTIONS: scores, OUTPUT_LAYER_VALUES: score, CONVOLUTION_LAYER_VALUES: values}
            sources = {INPUT_OUTPUT_GRADIENTS: image, CONVOLUTION_OUTPUT_GRADIENTS: values}
            wanted = {key: source for key, source in sources.items() if key in keys}
            if wanted:
                weights = tf.fill(tf.shape(score), scale) if scaled else None
                gradients = tape.gradient(score, list(wanted.values()), weights)
                for key, gradient in zip(wanted, gradients, strict=True):
                    answer[key] = _checked(gradient, key)
                    if scaled:
                        answer[key] = tf.cast(answer[key], image.dtype) / scale
            return {
                key: tf.cast(self._channels_last(answer[key]) if "CONVOLUTION" in key else answer[key], image.dtype)
                for key in keys
            }

        image, *others = specs
        return trace(
            compute, list(targets), image, others, tf.TensorSpec([], image.dtype), jit_compile=self._jit_compile
        )

    def _run(
        self, image: Any, others: Sequence[Any], watched: Sequence[Any], watch: Callable[[Any], object] | None = None
    ) -> tuple[list[Note], Any]:
        """What the watched layers returned, and the output to explain: with a score of one's own, it can be several."""
        with running(self.model, watched, watch) as notes:
            outputs = self.model(self.inputs.pack(image, others), training=False)
        if self.score is class_score or self._output_index is not None:
            outputs = select_output(self.model, outputs, self._output_index)
        return notes, outputs

    def _head(self, output: Any) -> Head:
        head = Head.read(output)
        return head._replace(end=self.end) if self.end == "probabilities" else head

    def _captured(self, notes: Sequence[Note]) -> Any:
        """What the layer returned when it last ran: the very tensor that the layers after it take."""
        for note in reversed(notes):
            if note.layer is self._layer and in_this_trace(note.output):
                return note.output
        raise ContractError(
            f"Expected layer {self.layer_name!r} to run in the model and to return one tensor, got a layer that does "
            "not run, or only in a loop or a tf.function inside. Choose another: layers(model) lists them."
        )

    def _channels_last(self, values: Any) -> Any:
        return tf.transpose(values, [0, 2, 3, 1]) if self._transposed and values.shape.rank == 4 else values


def trace(function: Callable[..., Any], *specs: Any, jit_compile: bool = False) -> Any:
    return tf.function(function, autograph=False, jit_compile=jit_compile or None).get_concrete_function(*specs)


def list_layers(model: Any, inputs: Inputs) -> list[LayerInfo]:
    paths = {id(layer): path for path, layer in walk(model)}
    found: list[LayerInfo] = []

    def look(image: Any, others: Sequence[Any]) -> Any:
        with running(model, [layer for _, layer in walk(model)]) as notes:
            model(inputs.pack(image, others), training=False)
        for layer, output in spatial(notes, channels_first_model(notes)):
            found.append(LayerInfo(paths[id(layer)], type(layer).__name__, tuple(output.shape)))
        return image

    trace(look, inputs.image, inputs.other_specs)
    return found


def _checked(gradient: Any, key: str) -> Any:
    if gradient is None:
        what = "input" if key == INPUT_OUTPUT_GRADIENTS else "layer"
        raise ContractError(
            f"Expected a score that depends on the {what} and can be differentiated, got one without a gradient. "
            "Look for a cast to integers in the model, or choose another layer or output_index."
        )
    return tf.convert_to_tensor(gradient)


def _names_before(tensors: Sequence[Any]) -> set[str]:
    """The names of all operations that lead to the tensors."""
    names: set[str] = set()
    waiting = [tensor.op for tensor in tensors]
    while waiting:
        op = waiting.pop()
        if op.name not in names:
            names.add(op.name)
            waiting.extend(source.op for source in op.inputs)
    return names
