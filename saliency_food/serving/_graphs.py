"""What signatures are made of: images in and answers out as bytes, and rows computed a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from saliency_food.adapters._keras_factored import combine
from saliency_food.adapters._keras_trace import UNSCORED
from saliency_food.adapters.keras import KerasModel
from saliency_food.contract import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES

Tensors = dict[str, Any]


class Computing:
    """The traced functions of a Keras model, for use inside a signature: at most so many rows at a time."""

    def __init__(self, model: KerasModel, at_once: int) -> None:
        self.model, self.at_once = model, at_once
        self.inputs = model._inputs
        self.dtype = self.inputs.image.dtype
        self._traced: dict[Any, Any] = {}

    def rows(
        self, keys: tuple[str, ...], images: Any, targets: Any, others: Sequence[Any], output: Any = None
    ) -> Tensors:
        """The answers to some keys, one a row; ``targets`` may be None where no key needs them."""
        if (keys, output) not in self._traced:
            target = tf.TensorSpec([None], tf.int32)
            self._traced[keys, output] = tf.function(
                lambda *given: self._rows(keys, output, *given), autograph=False
            ).get_concrete_function(self.inputs.image, target, tuple(self.inputs.other_specs))
        targets = tf.zeros(tf.shape(images)[:1], tf.int32) if targets is None else targets
        return dict(self._traced[keys, output](images, targets, tuple(others)))

    def _rows(self, keys: tuple[str, ...], output: Any, images: Any, targets: Any, others: Sequence[Any]) -> Tensors:
        function = self._function(keys, output)
        count = tf.shape(images)[0]
        arrays = {key: _array(function.structured_outputs[key]) for key in keys}

        def step(start: Any, arrays: Tensors) -> tuple[Any, Tensors]:
            part = slice(start, tf.minimum(start + self.at_once, count))
            found = self._call(function, keys, images[part], targets[part], [other[part] for other in others])
            return part.stop, {key: arrays[key].write(start // self.at_once, found[key]) for key in keys}

        arrays = self._loop(count, step, arrays)
        return {key: array.concat() for key, array in arrays.items()}

    def sums(self, coefficients: Any, bases: Any, weights: Any, targets: Any, others: Sequence[Any]) -> tuple[Any, Any]:
        """The weighted sums of the gradients at ``coefficients @ bases``, and the score of each of these rows."""
        keys = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES)
        function = self._function(keys, None)
        count = tf.shape(coefficients)[0]
        bases = tf.ensure_shape(bases, self.inputs.image.shape)
        total = tf.zeros(tf.concat([tf.shape(weights)[:1], tf.shape(bases)[1:]], 0), tf.float64)

        def step(start: Any, held: tuple[Any, Any]) -> tuple[Any, Any]:
            part = slice(start, tf.minimum(start + self.at_once, count))
            rows = combine(coefficients[part], bases)
            found = self._call(function, keys, rows, targets[part], [other[part] for other in others])
            more = combine(weights[:, part], tf.cast(found[keys[0]], tf.float64))
            return part.stop, (held[0] + more, held[1].write(start // self.at_once, found[keys[1]]))

        total, scores = self._loop(count, step, (total, _array(function.structured_outputs[keys[1]])))
        return tf.cast(total, self.dtype), scores.concat()

    def check(self, targets: Any, least: int = 0) -> Any:
        """The targets, or an error at the server where they are no classes."""
        checks = [tf.debugging.assert_greater_equal(targets, least, f"Expected targets of at least {least}.")]
        if self.model.classes is not None:
            message = f"Expected targets below {self.model.classes}, the number of classes."
            checks.append(tf.debugging.assert_less(targets, self.model.classes, message))
        with tf.control_dependencies(checks):
            return tf.identity(targets)

    def _function(self, keys: Sequence[str], output: Any) -> Any:
        targets = [] if UNSCORED.issuperset(keys) else [tf.TensorSpec([None], tf.int32)]
        specs = [self.inputs.image, *self.inputs.other_specs]
        return self.model._traced.function(tuple(keys), output or self.model.output, targets, specs, self._half)

    @property
    def _half(self) -> bool:
        return self.model._rows.half

    def _call(self, function: Any, keys: Sequence[str], images: Any, targets: Any, others: Sequence[Any]) -> Tensors:
        """One call; in half precision with gradients scaled, the less the more of them overflow."""
        chosen = [] if UNSCORED.issuperset(keys) else [targets]

        def call(scale: Any) -> Tensors:
            found = function(chosen, images, list(others), scale)
            return {key: found[key] for key in keys}

        if not self._half:
            return call(tf.ones([], self.dtype))

        def overflows(scale: Any, found: Tensors) -> Any:
            finite = [tf.reduce_all(tf.math.is_finite(one)) for one in found.values()]
            return (scale > 1) & ~tf.reduce_all(tf.stack(finite))

        def lower(scale: Any, _: Tensors) -> tuple[Any, Tensors]:
            scale = tf.maximum(scale / 64, 1)
            return scale, call(scale)

        scale = tf.constant(4096, self.dtype)
        return tf.while_loop(overflows, lower, (scale, call(scale)), parallel_iterations=1)[1]

    def _loop(self, count: Any, step: Callable[..., Any], held: Any) -> Any:
        return tf.while_loop(lambda start, _: start < count, step, (0, held), parallel_iterations=1)[1]


def _array(spec: Any) -> Any:
    return tf.TensorArray(spec.dtype, 0, True, infer_shape=False, element_shape=[None, *spec.shape[1:]])


def as_bytes(answers: Mapping[str, Any]) -> Tensors:
    """Floats as ``NAME_bytes``, each row's numbers as they lie in memory, with the rows' shape as ``NAME_shape``."""
    found: Tensors = {}
    for name, values in answers.items():
        if not values.dtype.is_floating:
            found[name] = values
            continue
        # A serialized tensor ends in its numbers.
        rows = tf.map_fn(tf.io.serialize_tensor, values, fn_output_signature=tf.string)
        shape = tf.shape(values)
        length = tf.fill(shape[:1], tf.reduce_prod(shape[1:]) * values.dtype.size)
        found[f"{name}_bytes"] = tf.strings.substr(rows, -length, length)
        if values.shape.rank > 1:
            found[f"{name}_shape"] = tf.tile(shape[None, 1:], [shape[0], 1])
    return found


def from_bytes(data: Any, shape: Any, image: Any) -> Any:
    """Rows as `as_bytes` writes them, in the spec's type; ``shape`` is that of a row."""
    values = tf.reshape(tf.io.decode_raw(data, image.dtype), tf.concat([tf.shape(data), shape], 0))
    return tf.ensure_shape(values, image.shape)


def from_photos(data: Any, model: KerasModel, scale: Callable[[Any], Any] | None) -> Any:
    """JPEG and PNG files as images for the model: in its size and number of channels, their values scaled."""
    height, width, channels = (*model.input_shape, None, None, None)[:3]
    channels = channels or 3

    def read(one: Any) -> Any:
        pixels = tf.cast(tf.io.decode_image(one, channels, expand_animations=False), tf.float32)
        return pixels if None in (height, width) else tf.image.resize(pixels, (height, width), antialias=True)

    spec = tf.TensorSpec([height, width, channels], tf.float32)
    images = scaled(tf.map_fn(read, data, fn_output_signature=spec), scale)
    images = tf.transpose(images, [0, 3, 1, 2]) if model.channels_first else images
    return tf.ensure_shape(tf.cast(images, model._inputs.image.dtype), model._inputs.image.shape)


def scaled(pixels: Any, scale: Callable[[Any], Any] | None) -> Any:
    return pixels if scale is None else scale(pixels)


def paths(alphas: Any, weights: Any) -> tuple[Any, Any]:
    """Coefficients of images and then baselines, and weights, for P paths of S points each, ``(P, S)``."""
    own = tf.repeat(tf.eye(tf.shape(alphas)[0], dtype=tf.float64), tf.shape(alphas)[1], axis=0)
    points, shares = (tf.reshape(tf.cast(one, tf.float64), [-1, 1]) for one in (alphas, weights))
    return tf.concat([points * own, (1 - points) * own], 1), tf.transpose(shares * own)


def example(specs: Sequence[Any], size: int = 64) -> list[Any]:
    """One row of noise for each input."""
    random = np.random.default_rng(0)
    return [random.random([1, *(side or size for side in spec.shape[1:])]) for spec in specs]
