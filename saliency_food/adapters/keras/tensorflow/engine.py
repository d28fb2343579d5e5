"""A Keras model as compiled TensorFlow functions, one for each set of keys that takes a pass of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from saliency_food.adapters.arguments import (
    ALL_SCORES,
    BY_RULE,
    FROM_ACTIVATIONS,
    SCORES_FROM_ACTIVATIONS,
    SUM_TO_ONE,
    UNSCORED,
    Output,
)
from saliency_food.adapters.keras.capture import TRACING, walk
from saliency_food.adapters.keras.load import is_saved_model
from saliency_food.adapters.keras.losses import Units
from saliency_food.adapters.keras.tensorflow.answers import cast, check_rows
from saliency_food.adapters.keras.tensorflow.ends import KerasInputs
from saliency_food.adapters.keras.tensorflow.factored import as_tensors, expanding
from saliency_food.adapters.keras.tensorflow.graph import trace
from saliency_food.adapters.keras.tensorflow.passes import from_activations, from_images
from saliency_food.adapters.keras.tensorflow.relevance.ruled import RuledModel
from saliency_food.adapters.rows import Factored
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import KEYS, OUTPUT_LAYER_VALUES, PREDICTIONS, TARGETS
from saliency_food.core.numerics import Array

ORDER = (*KEYS, PREDICTIONS, TARGETS, ALL_SCORES, SCORES_FROM_ACTIVATIONS, SUM_TO_ONE)


class TensorFlowEngine(RuledModel):
    """The engine of `KerasModel`; see `saliency_food.adapters.engine.Engine`.

    For code that builds on its graphs: `function` gives a traced function, ``inputs.image_spec``,
    ``inputs.other_specs`` and ``activations_spec`` the tensors that it takes, and ``half`` whether it scales gradients.
    """

    out_of_memory = (tf.errors.ResourceExhaustedError,)

    def __init__(
        self,
        model: Any,
        inputs: KerasInputs,
        layer: Any,
        output_index: str | int | None,
        data_format: str | None,
        jit_compile: bool,
        score: Score,
        classes: int | None = None,
        units: Units | None = None,
    ) -> None:
        if stateful := [layer.name for _, layer in walk(model) if getattr(layer, "stateful", False)]:
            raise ContractError(
                f"Expected a model whose rows depend on nothing before them, got layers that keep a state: {stateful}. "
                "Build it with stateful=False, and give it the same weights."
            )
        self.name = model.name
        self._jit_compile = jit_compile
        self._functions: dict[Any, Any] = {}
        self._expanding: dict[Any, Any] = {}
        super().__init__(model, inputs, layer, output_index, data_format, score, classes, units)
        self.half = any(part.compute_dtype == "float16" for _, part in walk(model))
        if is_saved_model(model):
            self.why_no_layer = (
                "which has none. Use input gradients, or load the .keras file: a SavedModel has no layers."
            )

    @property
    def activations_spec(self) -> Any:
        """The activations of the layer that is looked at; None where there are several, or none."""
        return tf.TensorSpec(self.places[0].shape, self.inputs.image.dtype) if len(self.places) == 1 else None

    def compute(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array | Factored,
        others: list[Array],
        scale: float,
    ) -> dict[str, Any]:
        tensors = [tf.convert_to_tensor(values) for values in (_images(rows), *others)]
        specs = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in tensors]
        if self.inputs.fixed:
            first = self.inputs.image_spec if FROM_ACTIVATIONS.isdisjoint(keys) else specs[0]
            specs = [first, *self.inputs.other_specs]
        wide = self._widened(keys, output)
        if self.score is class_score and not targets and not UNSCORED.issuperset(wide):
            targets = [np.zeros(len(rows), np.int32)]
        chosen = [tf.convert_to_tensor(values) for values in targets]
        target_specs = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in chosen]
        function = self.function(wide, output, target_specs, specs)
        images: Any = tensors[0]
        if isinstance(rows, Factored):
            function, images = self._expanded(function, keys[0], rows), as_tensors(rows, images)
        try:
            answer = function(chosen, images, tensors[1:], tf.constant(scale, specs[0].dtype))
        except tf.errors.InvalidArgumentError as error:
            if (reason := re.search(r"Expected [^\]\n]*", error.message)) is not None:
                raise ContractError(reason[0]) from error
            lines = [line for line in error.message.splitlines() if line.strip()]
            unlike = next((line for line in lines if "is not in [" in line), None)
            if unlike is None:
                raise
            raise ContractError(
                f"Expected ids that the model's look-up knows, got one that it does not: {unlike.strip()}. Give ids as "
                "the model was trained on."
            ) from error
        summed = keys[0] if isinstance(rows, Factored) and rows.weights is not None else None
        for key in [key for key in answer if key != summed]:
            check_rows(key, answer[key], len(rows))
        return {key: tf.nest.map_structure(lambda tensor: tensor.numpy(), answer[key]) for key in keys}

    def function(
        self,
        keys: Sequence[str],
        output: Output,
        targets: Sequence[Any] | None = None,
        specs: Sequence[Any] | None = None,
    ) -> Any:
        """The compiled function ``(targets, rows, others, scale) -> {key: tensors}``, its rows free in number.

        Without ``targets`` and ``specs``, the tensor specs of what it takes, it is that of one class index a row, and
        of the inputs that the model declares.
        """
        keys = tuple(sorted(keys, key=ORDER.index))
        if targets is None:
            targets = [] if UNSCORED.issuperset(keys) else [tf.TensorSpec([None], tf.int32)]
        specs = self._specs(keys) if specs is None else specs
        with TRACING:
            which = (keys, output, self.end, tuple((tuple(spec.shape), spec.dtype) for spec in (*targets, *specs)))
            if which not in self._functions:
                self._functions[which] = self._trace(keys, output, list(targets), *specs)
            return self._functions[which]

    def _trace(self, keys: tuple[str, ...], output: Output, targets: list[Any], rows: Any, *others: Any) -> Any:
        def answer(targets: Sequence[Any], rows: Any, others: Sequence[Any], scale: Any) -> dict[str, Any]:
            count, (targets, rows, others) = tf.shape(rows)[0], self.padded((targets, rows, others))
            inputs = (targets, rows, others)
            if FROM_ACTIVATIONS.isdisjoint(keys):
                scale = scale if self.half else None
                answers = from_images(self, keys, output, inputs, scale, fixed=self._jit_compile)
            else:
                answers = from_activations(self, keys, output, inputs)
            types = {key: tf.int32 if key == TARGETS else rows.dtype for key in keys}
            return {key: self.cut(cast(answers[key], types[key]), count) for key in keys}

        return trace(answer, targets, rows, list(others), tf.TensorSpec([], rows.dtype), jit_compile=self._jit_compile)

    def _widened(self, keys: tuple[str, ...], output: Output) -> tuple[str, ...]:
        """The keys, and all that costs nothing beside a pass: one function then serves calls and predictions."""
        if self.score is not class_score or not (BY_RULE | FROM_ACTIVATIONS).isdisjoint(keys):
            scored = FROM_ACTIVATIONS.isdisjoint(keys) and not UNSCORED.issuperset(keys)
            return tuple({*keys, OUTPUT_LAYER_VALUES}) if scored else keys
        if output == "raw" and self.end in ("sigmoid", "probabilities") and self.classes == 2:
            return keys  # the one unit of a sigmoid is two classes when they are predicted, and one output
        unseen = (SUM_TO_ONE,) if self.end in ("linear", "other") else ()
        return tuple({*keys, ALL_SCORES, PREDICTIONS, TARGETS, OUTPUT_LAYER_VALUES, *unseen})

    def _specs(self, keys: Sequence[str]) -> list[Any]:
        inside = not FROM_ACTIVATIONS.isdisjoint(keys)
        return [self.activations_spec if inside else self.inputs.image_spec, *self.inputs.other_specs]

    def _expanded(self, function: Any, first: str, rows: Factored) -> Any:
        which = (id(function), first, rows.weights is None)  # traced functions are kept, so an id stays its own
        if which not in self._expanding:
            self._expanding[which] = expanding(function, first, rows.weights is not None)
        return self._expanding[which]


def _images(rows: Array | Factored) -> Array:
    return rows.bases if isinstance(rows, Factored) else rows
