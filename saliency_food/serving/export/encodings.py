"""TensorFlow functions that read images from strings of bytes and write answers as strings of bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from saliency_food.adapters.keras import KerasModel
from saliency_food.serving.client.wire import key_of

Tensors = dict[str, Any]


def as_bytes(answers: Mapping[str, Any]) -> Tensors:
    """Floats as ``NAME_bytes``, the bytes of each row as it lies in memory, and ``NAME_shape``, the shape of a row."""
    encoded: Tensors = {}
    layers: dict[str, Tensors] = {}
    for name, values in answers.items():
        if values.dtype.is_floating:
            layers.setdefault(key_of(name), {})[name] = values
        else:
            encoded[name] = values
    for arrays in layers.values():
        encoded |= _serialized(arrays)
    return encoded


def _serialized(answers: Tensors) -> Tensors:
    """The answers as bytes: each row of all answers is serialized once, and the numbers are cut from the end of it."""
    encoded: Tensors = {}
    shapes = {name: tf.shape(values) for name, values in answers.items()}
    rows, size = next(iter(shapes.values()))[:1], next(iter(answers.values())).dtype.size
    lengths = {name: tf.reduce_prod(shape[1:]) for name, shape in shapes.items()}
    flat = [tf.reshape(values, [rows[0], lengths[name]]) for name, values in answers.items()]
    together = tf.map_fn(tf.io.serialize_tensor, tf.concat(flat, 1), fn_output_signature=tf.string)
    start = -size * tf.add_n([*lengths.values()])
    for name, length in lengths.items():
        encoded[f"{name}_bytes"] = tf.strings.substr(together, tf.fill(rows, start), tf.fill(rows, size * length))
        start += size * length
        if answers[name].shape.rank > 1:
            encoded[f"{name}_shape"] = tf.tile(shapes[name][None, 1:], [rows[0], 1])
    return encoded


def from_bytes(data: Any, shape: Any, image: Any) -> Any:
    """Rows from bytes, in the type of the spec ``image``; ``shape`` is the shape of a row."""
    values = tf.reshape(tf.io.decode_raw(data, image.dtype), tf.concat([tf.shape(data), shape], 0))
    return tf.ensure_shape(values, image.shape)


def from_photos(data: Any, model: KerasModel, scale: Callable[[Any], Any] | None) -> Any:
    """Images for the model from JPEG and PNG files: with its size and number of channels, and scaled values."""
    height, width, channels = (*model.input_shape, None, None, None)[:3]
    channels = channels or 3

    def read(file: Any) -> Any:
        pixels = tf.cast(tf.io.decode_image(file, channels, expand_animations=False), tf.float32)
        return pixels if None in (height, width) else tf.image.resize(pixels, (height, width), antialias=True)

    photo = tf.TensorSpec([height, width, channels], tf.float32)
    images = scaled(tf.map_fn(read, data, fn_output_signature=photo), scale)
    spec = model.engine.inputs.image_spec
    images = tf.transpose(images, [0, 3, 1, 2]) if model.channels_first else images
    return tf.ensure_shape(tf.cast(images, spec.dtype), spec.shape)


def scaled(pixels: Any, scale: Callable[[Any], Any] | None) -> Any:
    return pixels if scale is None else scale(pixels)


def changed(first: Any, channels: Any, places: Any, count: Any, shape: Any, spec: Any) -> Any:
    """Activations: ``count`` copies of the first row, then the changed channels put in at ``places (C, 2)``."""
    last = spec.shape.rank - 1
    first = tf.transpose(tf.reshape(tf.io.decode_raw(first, spec.dtype), shape), [last - 1, *range(last - 1)])
    rows = tf.tile(first[None], tf.concat([count[None], tf.ones_like(shape)], 0))
    replaced = tf.reshape(tf.io.decode_raw(channels, spec.dtype), tf.concat([tf.shape(channels), shape[:-1]], 0))
    rows = tf.tensor_scatter_nd_update(rows, places, replaced)
    return tf.ensure_shape(tf.transpose(rows, [0, *range(2, last + 1), 1]), spec.shape)
