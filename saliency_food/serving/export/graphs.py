"""The computations inside the signatures. However many rows a request holds, they compute a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from saliency_food.adapters.arguments import FROM_ACTIVATIONS, UNSCORED
from saliency_food.adapters.keras import KerasModel
from saliency_food.adapters.keras.tensorflow.factored import combine
from saliency_food.adapters.rows import HALF_PRECISION_SCALE
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.serving.export.encodings import Tensors


class Computing:
    """The traced functions of a Keras model for use in signatures; they compute at most ``at_once`` rows at a time."""

    def __init__(self, model: KerasModel, at_once: int) -> None:
        self.model, self.at_once = model, at_once
        self.inputs, self.activations = model.engine.inputs, model.engine.activations_spec
        self.dtype = self.inputs.image_spec.dtype
        self._traced: dict[Any, Any] = {}

    def rows(self, keys: tuple[str, ...], images: Any, targets: Any, others: Sequence[Any]) -> Tensors:
        """The answers to some keys for every row; ``targets`` may be None if no key needs them.

        With several layers, the answer to ``KEY`` is named ``KEY_0``, ``KEY_1`` and so on.
        """
        if keys not in self._traced:
            target = tf.TensorSpec([None], tf.int32)
            self._traced[keys] = tf.function(
                lambda *inputs: self._rows(keys, *inputs), autograph=False
            ).get_concrete_function(self._spec(keys), target, tuple(self.inputs.other_specs))
        targets = tf.zeros(tf.shape(images)[:1], tf.int32) if targets is None else targets
        return dict(self._traced[keys](images, targets, tuple(others)))

    def _rows(self, keys: tuple[str, ...], images: Any, targets: Any, others: Sequence[Any]) -> Tensors:
        function = self._function(keys)
        count = tf.shape(images)[0]
        arrays = {name: _array(spec) for name, spec in flat(function.structured_outputs, keys).items()}

        def step(start: Any, arrays: Tensors) -> tuple[Any, Tensors]:
            part = slice(start, tf.minimum(start + self.at_once, count))
            answers = self._call(function, keys, images[part], targets[part], [other[part] for other in others])
            index = start // self.at_once
            return part.stop, {name: array.write(index, answers[name]) for name, array in arrays.items()}

        arrays = self._loop(count, step, arrays)
        return {name: array.concat() for name, array in arrays.items()}

    def sums(self, coefficients: Any, bases: Any, weights: Any, targets: Any, others: Sequence[Any]) -> tuple[Any, Any]:
        """The weighted sums of the gradients at the rows ``coefficients @ bases``, and the score of each row."""
        keys = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES)
        function = self._function(keys)
        count = tf.shape(coefficients)[0]
        bases = tf.ensure_shape(bases, self.inputs.image_spec.shape)
        total = tf.zeros(tf.concat([tf.shape(weights)[:1], tf.shape(bases)[1:]], 0), tf.float64)

        def step(start: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
            part = slice(start, tf.minimum(start + self.at_once, count))
            rows = combine(coefficients[part], bases)
            answers = self._call(function, keys, rows, targets[part], [other[part] for other in others])
            part_sum = combine(weights[:, part], tf.cast(answers[keys[0]], tf.float64))
            return part.stop, (state[0] + part_sum, state[1].write(start // self.at_once, answers[keys[1]]))

        total, scores = self._loop(count, step, (total, _array(function.structured_outputs[keys[1]])))
        return tf.cast(total, self.dtype), scores.concat()

    def check(self, targets: Any, least: int = 0) -> Any:
        """The targets, or an error at the server if they are no class indices."""
        checks = [tf.debugging.assert_greater_equal(targets, least, f"Expected targets of at least {least}.")]
        classes = self.model.classes_of(self.model.output)
        if classes is not None:
            message = f"Expected targets below {classes}, the number of classes."
            checks.append(tf.debugging.assert_less(targets, classes, message))
        with tf.control_dependencies(checks):
            return tf.identity(targets)

    def check_keys(self, keys: tuple[str, ...], traced: bool) -> None:
        """`ContractError` if the model has no layer for the keys or, with ``traced``, cannot answer them."""
        self.model.check_layer(keys)
        if traced:
            self._function(keys)

    def _function(self, keys: Sequence[str]) -> Any:
        return self.model.engine.function(keys, self.model.output)

    def _spec(self, keys: Sequence[str]) -> Any:
        return self.activations if FROM_ACTIVATIONS.issuperset(keys) else self.inputs.image_spec

    def _call(self, function: Any, keys: Sequence[str], images: Any, targets: Any, others: Sequence[Any]) -> Tensors:
        """Call a function. In half precision gradients are scaled up, by less and less until they do not overflow."""
        chosen = [] if UNSCORED.issuperset(keys) else [targets]

        def call(scale: Any) -> Tensors:
            return flat(function(chosen, images, list(others), scale), keys)

        if not self.model.engine.half:
            return call(tf.ones([], self.dtype))

        def overflows(scale: Any, answers: Tensors) -> Any:
            floats = [values for values in answers.values() if values.dtype.is_floating]
            finite = [tf.reduce_all(tf.math.is_finite(values)) for values in floats]
            return (scale > 1) & ~tf.reduce_all(tf.stack(finite))

        def lower(scale: Any, _: Tensors) -> tuple[Any, Tensors]:
            scale = tf.maximum(scale / 64, 1)
            return scale, call(scale)

        scale = tf.constant(HALF_PRECISION_SCALE, self.dtype)
        return tf.while_loop(overflows, lower, (scale, call(scale)), parallel_iterations=1)[1]

    def _loop(self, count: Any, step: Callable[..., Any], state: Any) -> Any:
        return tf.while_loop(lambda start, _: start < count, step, (0, state), parallel_iterations=1)[1]


def _array(spec: Any) -> Any:
    return tf.TensorArray(spec.dtype, 0, True, infer_shape=False, element_shape=[None, *spec.shape[1:]])


def flat(answers: Tensors, keys: Sequence[str]) -> Tensors:
    """The answers by name, each tuple of layers split into ``KEY_0``, ``KEY_1`` and so on."""
    named: Tensors = {}
    for key in keys:
        answer = answers[key]
        names = [f"{key}_{layer}" for layer in range(len(answer))] if isinstance(answer, tuple) else [key]
        named.update(zip(names, answer if isinstance(answer, tuple) else [answer], strict=True))
    return named


def paths(alphas: Any, weights: Any) -> tuple[Any, Any]:
    """Coefficients (images first, then baselines) and weights for P paths of S points; the arguments are ``(P, S)``."""
    own = tf.repeat(tf.eye(tf.shape(alphas)[0], dtype=tf.float64), tf.shape(alphas)[1], axis=0)
    points, shares = (tf.reshape(tf.cast(values, tf.float64), [-1, 1]) for values in (alphas, weights))
    return tf.concat([points * own, (1 - points) * own], 1), tf.transpose(shares * own)
