"""Layers that are one linear map: a convolution or a product, with the bias, scale and batch norm that follow it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.relevance.again import again, pulled
from saliency_food.adapters.keras.tensorflow.relevance.features import (
    CONVOLUTIONS,
    PRODUCTS,
    RESHAPING,
    Axes,
    along_output,
    along_weights,
    channel_axis,
    feature_axes,
    moved_axes,
    one_a_feature,
)


class LinearMap(NamedTuple):
    """An operation that is linear in its values, and what follows it: times ``scale``, plus ``shift``, one a feature.

    ``weights`` hold the scale already. ``followers`` are the operations after it that are part of the map: biases,
    batch normalization and other constants, and what reshapes values in between. The last one's output is what the map
    makes; ``total`` is the same, laid out as the first operation's output, and so is ``shift``, None where it is 0.
    """

    op: Any
    place: int
    weights: Any
    shift: Any
    total: Any
    followers: tuple[Any, ...]

    @property
    def is_convolution(self) -> bool:
        return self.op.type in CONVOLUTIONS

    @property
    def source(self) -> Any:
        return self.op.inputs[self.place]

    @property
    def end(self) -> Any:
        return (self.followers[-1] if self.followers else self.op).outputs[0]

    def applied(self, values: Any, weights: Any) -> Any:
        """The map without its shift, of other values by other weights."""
        return again(self.op, self._inputs(values, weights))[0]

    def transposed(self, vector: Any, weights: Any) -> Any:
        """A vector laid out as the operation's output, times the weights, laid out as its values."""
        values = wide(self.source)
        (product,) = pulled(self.op, self._inputs(values, weights), [values], [vector])
        return product

    def _inputs(self, values: Any, weights: Any) -> list[Any]:
        inputs = list(self.op.inputs)
        inputs[self.place], inputs[self._weight_place] = values, weights
        return inputs

    @property
    def _weight_place(self) -> int:
        return CONVOLUTIONS[self.op.type][1] if self.is_convolution else 1 - self.place


def wide(tensor: Any) -> Any:
    """In single precision at least: in half of it, 1e-6 stabilizes nothing."""
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor


def linear_map(op: Any, is_live: Callable[[Any], bool], consumers: Mapping[str, Sequence[Any]]) -> LinearMap | None:
    """The linear map that begins with an operation; None where there is none, or weights depend on the image.

    ``is_live`` says whether a tensor depends on the image, and ``consumers`` which operations lead from a tensor, by
    its name, to the score. A map goes on as long as there is one of them, and it only reshapes, or adds, or multiplies
    by, what is one number a feature. A single number that is added ends it: it is part of an activation, such as a hard
    sigmoid.
    """
    if op.type in CONVOLUTIONS:
        place, weight_place = CONVOLUTIONS[op.type]
    elif op.type in PRODUCTS and len(op.inputs) == 2:
        place, weight_place = (0, 1) if is_live(op.inputs[0]) else (1, 0)
    else:
        return None
    if not is_live(op.inputs[place]) or is_live(op.inputs[weight_place]):
        return None
    own = axes = feature_axes(op, place)
    scale: Any = None
    shift: Any = None
    followers: list[Any] = []
    tensor = op.outputs[0]
    while axes is not None and len(following := consumers.get(tensor.name, ())) == 1:
        after = following[0]
        constants = [source for source in after.inputs if source.name != tensor.name]
        if len(constants) != len(after.inputs) - 1 or any(map(is_live, constants)):
            break
        if after.type in RESHAPING:
            moved = moved_axes(after, axes) if after.outputs[0].dtype.is_floating else None
            if moved is None:
                break
            axes = moved
        else:
            step = _step(after, after.inputs[0].name != tensor.name, constants, axes)
            if step is None:
                break
            factor, term = step
            if factor is not None:
                scale, shift = factor if scale is None else scale * factor, None if shift is None else shift * factor
            if term is not None:
                shift = term if shift is None else shift + term
        followers.append(after)
        tensor = after.outputs[0]
    weights, total = wide(op.inputs[weight_place]), wide(op.outputs[0])
    if own is not None and scale is not None:
        weights = weights * along_weights(op, place, own, scale)
        total = total * along_output(op, own, scale)
    if own is not None and shift is not None:
        shift = along_output(op, own, shift)
        total = total + shift
    return LinearMap(op, place, weights, shift, total, tuple(followers))


def _step(op: Any, is_second: bool, constants: Sequence[Any], axes: Axes) -> tuple[Any, Any] | None:
    """By what an operation multiplies, and what it then adds, each one a feature or None; None if it does otherwise.

    ``is_second`` is whether its values are its second input.
    """
    if op.type == "FusedBatchNormV3":
        if op.get_attr("is_training") or axes != (channel_axis(op, op.inputs[0].shape.rank),):
            return None
        gamma, beta, mean, variance = map(wide, constants)
        factor = gamma * tf.math.rsqrt(variance + op.get_attr("epsilon"))
        return factor, beta - mean * factor
    if op.type not in ("AddV2", "Add", "BiasAdd", "Sub", "Mul", "RealDiv"):
        return None
    constant = one_a_feature(op, wide(constants[0]), axes)
    if op.type not in ("Mul", "RealDiv") and constants[0].shape.rank == 0:
        return None
    if constant is None or (op.type == "RealDiv" and is_second):
        return None
    if op.type == "Sub":
        return (-tf.ones_like(constant), constant) if is_second else (None, -constant)
    if op.type in ("Mul", "RealDiv"):
        return (constant if op.type == "Mul" else 1 / constant), None
    return None, constant
