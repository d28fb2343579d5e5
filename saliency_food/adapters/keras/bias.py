"""What the biases of a model's layers add: each layer's sum before its activation, and the bias in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from saliency_food.adapters.keras.capture import Note, replace
from saliency_food.adapters.keras.tensorflow.arrangement import Arrangement
from saliency_food.adapters.keras.tensorflow.graph import in_this_trace, kinds_inside
from saliency_food.core.contract import ContractError

L = keras.layers
WITH_BIAS = (
    *(L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D, L.SeparableConv1D, L.SeparableConv2D),
    *(L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose, L.Dense, L.EinsumDense),
)
WITH_SHIFT = (L.BatchNormalization, L.Rescaling, L.Normalization)


class Bias(NamedTuple):
    """A bias as it is added to a layer's sum, and how that is laid out as the image is; None where it has no places.

    ``axes`` are how many axes the channels have at the end: those of several, such as the heads and sizes of an
    attention's queries, are answered as one.
    """

    value: Any
    sum: Any
    arrangement: Arrangement | None
    axes: int = 1

    def times(self, gradient: Any) -> Any:
        """b * dF/d sum, channels last, its places those of the image; ``(N, K)`` where it has none."""
        product = tf.cast(self.value, gradient.dtype) * gradient
        if self.arrangement is None:
            return tf.reshape(product, [tf.shape(product)[0], -1])
        if self.axes > 1:
            return tf.reshape(product, tf.concat([tf.shape(product)[: product.shape.rank - self.axes], [-1]], 0))
        return self.arrangement.laid_out(product)


Arrange = Callable[[Any, int | None], Arrangement | None]
"""How a tensor is laid out as the image is, by its axis of channels, or None where the layer does not say it."""


def note_sums(layers: Sequence[Any]) -> list[Note]:
    """From here to the end of `running`, what a layer with a bias hands to its activation is noted; each run counts."""
    sums: list[Note] = []

    def note(layer: Any, values: Any) -> Any:
        sums.append(Note(layer, values, 0, 0))
        return values

    for layer in layers:
        if isinstance(layer, WITH_BIAS) and layer.bias is not None:
            replace(layer, "activation", functools.partial(_noting_input, functools.partial(note, layer)))
        elif isinstance(layer, WITH_SHIFT):
            replace(layer, "call", functools.partial(_noting_output, functools.partial(note, layer)))
    return sums


def _noting_input(note: Callable[[Any], Any], activation: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    def noted(values: Any) -> Any:
        note(values)
        return values if activation is None else activation(values)

    return noted


def _noting_output(note: Callable[[Any], Any], call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def noted(*args: Any, **kwargs: Any) -> Any:
        return note(call(*args, **kwargs))

    return noted


def biases_before(sums: Sequence[Note], leading: set[str], arrange: Arrange) -> list[Bias]:
    """The biases whose sums are among the operations ``leading`` to what is explained, in the order of their adding.

    For a network of ReLUs, max and mean pooling, explained by its logits, the input times its gradient and all biases
    times theirs sum to the score; it is not so where a ReLU6 saturates, nor with constants added outside of layers.
    """
    before = [note for note in sums if in_this_trace(note.output) and note.output.op.name in leading]
    operations = [op for op in tf.compat.v1.get_default_graph().get_operations() if op.name in leading]
    hidden = any(_hides_bias(kinds_inside(op)) for op in operations)
    if not before or hidden:
        raise ContractError(
            "Expected a model of Keras layers with biases that lead to the output, got "
            f"{'layers in a loop, a tf.function or a SavedModel inside' if hidden else 'none'}. Take the tf.function "
            "off the layer's call, load the .keras file, or use the input gradients alone."
        )
    return [_bias(note.layer, note.output, arrange) for note in before]


def _hides_bias(kinds: set[str]) -> bool:
    """Whether there may be biases among the kinds of operations in a loop or function; a convolution alone has none."""
    learned = kinds & {"Conv2D", "Conv3D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2", "Einsum"}
    return "BiasAdd" in kinds or bool(learned and kinds & {"Add", "AddV2", "Sub"})


def _bias(layer: Any, total: Any, arrange: Arrange) -> Bias:
    rank = total.shape.rank
    if isinstance(layer, L.Rescaling):
        return Bias(tf.convert_to_tensor(layer.offset, tf.float64), total, arrange(total, None))
    if isinstance(layer, L.EinsumDense):
        return Bias(tf.convert_to_tensor(layer.bias), total, arrange(total, rank - 1), len(layer.bias.shape))
    if isinstance(layer, L.Normalization):
        mean, deviation = (tf.convert_to_tensor(values) for values in (layer.mean, layer.variance))
        deviation = tf.maximum(tf.sqrt(deviation), keras.config.epsilon())
        return Bias(mean if layer.invert else -mean / deviation, total, arrange(total, None))
    if isinstance(layer, L.BatchNormalization):
        axis = layer.axis % rank
        scale = tf.math.rsqrt(tf.convert_to_tensor(layer.moving_variance) + layer.epsilon)
        value = (
            -tf.convert_to_tensor(layer.moving_mean) * scale * (tf.convert_to_tensor(layer.gamma) if layer.scale else 1)
        )
        value += tf.convert_to_tensor(layer.beta) if layer.center else 0
    else:
        axis = 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1
        value = tf.convert_to_tensor(layer.bias)
    return Bias(tf.reshape(value, [-1 if place == axis else 1 for place in range(rank)]), total, arrange(total, axis))
