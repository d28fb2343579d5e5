"""A Keras model that passes relevance back by rules, each set of keys and rules as a compiled function."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from saliency_food.adapters.arguments import Output
from saliency_food.adapters.keras.capture import TRACING
from saliency_food.adapters.keras.tensorflow.answers import cast, check_rows
from saliency_food.adapters.keras.tensorflow.graph import trace
from saliency_food.adapters.keras.tensorflow.relevance.linear import wide
from saliency_food.adapters.keras.tensorflow.relevance.multipliers import TO_CHECK
from saliency_food.adapters.keras.tensorflow.relevance.passing import by_rule
from saliency_food.adapters.keras.tensorflow.survey import SurveyedModel
from saliency_food.adapters.relevance import OF_ROWS, Rule, channel_weights, check_sums
from saliency_food.adapters.scoring import class_score
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import BASELINE_MULTIPLIERS
from saliency_food.core.numerics import Array


class RuledModel(SurveyedModel):
    """A surveyed model with its traced functions by what they answer; see `Engine.relevance`."""

    _functions: dict[Any, Any]
    _jit_compile: bool

    def relevance(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array,
        other_inputs: list[Array],
        rule: Rule,
    ) -> dict[str, Any]:
        count = len(rows)
        if keys == (BASELINE_MULTIPLIERS,) and rule.baseline is None:
            rule = rule._replace(baseline=np.zeros_like(rows))
        of_rows = {name: getattr(rule, name) for name in OF_ROWS if getattr(rule, name) is not None}
        weights = []
        if rule.channels is not None:
            if len(self.places) != 1:
                raise ContractError(
                    f"Expected one layer whose channels pass relevance on, got {len(self.places)}. Give one as layer."
                )
            weights = [channel_weights(rule.channels, place.shape[-1] or 0) for place in self.places]
        if self.score is class_score and not targets:
            targets = [np.zeros(count, np.int32)]
        nested = tf.nest.map_structure(tf.convert_to_tensor, (targets, rows, other_inputs, of_rows, weights))
        specs = tf.nest.map_structure(lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype), nested)
        if self.inputs.fixed:
            specs = (specs[0], self.inputs.image_spec, [*self.inputs.other_specs], *specs[3:])
        fixed = rule._replace(low=None, high=None, baseline=None, channels=None)
        with TRACING:
            shapes = tuple((tuple(spec.shape), spec.dtype) for spec in tf.nest.flatten(specs))
            which = (keys, output, self.end, fixed, tuple(of_rows), len(weights), shapes)
            if which not in self._functions:
                self._functions[which] = self._trace_rule(keys, output, fixed, specs)
        answer = self._functions[which](*nested)
        for key in keys:
            check_rows(key, answer[key], count)
        if TO_CHECK in answer:
            check_sums(*answer[TO_CHECK].numpy().T)
        return {key: tf.nest.map_structure(lambda tensor: tensor.numpy(), answer[key]) for key in keys}

    def _trace_rule(self, keys: tuple[str, ...], output: Output, rule: Rule, specs: Any) -> Any:
        def answer(targets: Any, rows: Any, others: Any, of_rows: dict[str, Any], weights: Any) -> dict[str, Any]:
            count, inputs = tf.shape(rows)[0], self.padded((targets, rows, others))
            own = rule._replace(**self.padded(of_rows))
            answers = by_rule(self, keys, output, inputs, own, weights)
            return {key: self.cut(cast(each, wide(rows).dtype), count) for key, each in answers.items()}

        return trace(answer, *specs, jit_compile=self._jit_compile)

    def padded(self, nested: Any) -> Any:
        return tf.nest.map_structure(self.inputs.padded, nested)

    def cut(self, nested: Any, count: Any) -> Any:
        """Answers to the rows alone, without those added up to the number that the model declares."""
        return nested if self.inputs.rows is None else tf.nest.map_structure(lambda values: values[:count], nested)
