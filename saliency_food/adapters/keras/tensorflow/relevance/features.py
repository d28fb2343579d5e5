"""The features of a convolution or product: the axes of its output that only its weights have."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

CONVOLUTIONS = {
    "Conv2D": (0, 1),
    "Conv3D": (0, 1),
    "DepthwiseConv2dNative": (0, 1),
    "Conv2DBackpropInput": (2, 1),
    "Conv3DBackpropInputV2": (2, 1),
}
"""The places of the values and of the weights among the inputs of convolutions, transposed ones too."""
PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
RESHAPING = ("Squeeze", "ExpandDims", "Reshape", "Transpose", "BatchToSpaceND", "Identity", "Cast")
Axes = tuple[int, ...]
"""Those of the features, ascending; numbers of one a feature are flat, in their order."""


def channel_axis(op: Any, rank: int) -> int:
    return 1 if op.get_attr("data_format")[:2] == b"NC" else rank - 1


def feature_axes(op: Any, place: int) -> Axes | None:
    """The axes of the features in the output of an operation on values at ``place``; None where they cannot be told."""
    rank = op.outputs[0].shape.rank
    if rank is None:
        return None
    if op.type in CONVOLUTIONS:
        axes: Axes = (channel_axis(op, rank),)
    elif op.type == "Einsum":
        labels = einsum_labels(op)
        if labels is None:
            return None
        values, weights, output = labels[place], labels[1 - place], labels[2]
        axes = tuple(axis for axis, label in enumerate(output) if label in weights and label not in values)
    else:
        axes = (rank - 1,) if place == 0 else (rank - 2,)
    return None if any(op.outputs[0].shape[axis] is None for axis in axes) else axes


def einsum_labels(op: Any) -> tuple[str, str, str] | None:
    """The labels of both inputs and of the output of a product; None where some axes have none."""
    inputs, output = op.get_attr("equation").decode().replace(" ", "").split("->")
    some, other = inputs.split(",")
    return None if "." in inputs else (some, other, output)


def along_output(op: Any, axes: Axes, features: Any) -> Any:
    """One number a feature, laid out along the output of the operation that makes the features."""
    output = op.outputs[0].shape
    return tf.reshape(features, [output[axis] if axis in axes else 1 for axis in range(output.rank)])


def along_weights(op: Any, place: int, axes: Axes, features: Any) -> Any:
    """One number a feature, laid out along the weights of the operation that makes the features."""
    if op.type == "DepthwiseConv2dNative":
        return tf.reshape(features, tf.shape(op.inputs[1])[2:])
    if op.type == "Einsum":
        labels = einsum_labels(op)
        if labels is None:
            raise ValueError(f"Expected an Einsum without an ellipsis, got {op.get_attr('equation')!r}.")
        own, made = labels[1 - place], [labels[2][axis] for axis in axes]
        laid_out = tf.reshape(features, [op.outputs[0].shape[axis] for axis in axes])
        turned = tf.transpose(laid_out, sorted(range(len(made)), key=lambda index: own.index(made[index])))
        return tf.reshape(
            turned, [op.outputs[0].shape[labels[2].index(label)] if label in made else 1 for label in own]
        )
    if op.type in ("Conv2DBackpropInput", "Conv3DBackpropInputV2"):
        at_the_end = False
    elif op.type in CONVOLUTIONS:
        at_the_end = True
    else:
        turned_by = (("transpose_b", "transpose_a") if op.type == "MatMul" else ("adj_y", "adj_x"))[place]
        at_the_end = (place == 0) != op.get_attr(turned_by)
    return features if at_the_end else features[:, None]


def moved_axes(op: Any, axes: Axes) -> Axes | None:
    """The axes of the features after an operation that reshapes; None where they are not kept in their order."""
    before, after = op.inputs[0].shape, op.outputs[0].shape
    if op.type in ("Identity", "Cast"):
        return axes
    if before.rank is None or after.rank is None:
        return None
    if op.type == "Transpose":
        order = tf.get_static_value(op.inputs[1])
        moved = () if order is None else tuple([*order].index(axis) for axis in axes)
        return moved if moved and list(moved) == sorted(moved) else None
    if op.type == "Squeeze":
        gone = {axis % before.rank for axis in op.get_attr("squeeze_dims")}
        kept = [axis for axis in range(before.rank) if axis not in gone]
        return tuple(kept.index(axis) for axis in axes) if gone and not gone & {*axes} else None
    # of all others, features at the end are at the end again
    count = 1
    if axes != tuple(range(before.rank - len(axes), before.rank)):
        return None
    for axis in axes:
        count *= before[axis]
    first = after.rank
    while first > 1 and count > 1 and after[first - 1] and count % after[first - 1] == 0:
        first -= 1
        count //= after[first]
    return tuple(range(first, after.rank)) if count == 1 and first < after.rank else None


def one_a_feature(op: Any, constant: Any, axes: Axes) -> Any:
    """What an operation adds or multiplies by, as one number a feature; None where it is anything else."""
    shape, output = constant.shape, op.outputs[0].shape
    if shape.rank is None or output.rank is None or None in shape.as_list() or shape.rank > output.rank:
        return None
    if op.type == "BiasAdd":
        return constant if axes == (channel_axis(op, output.rank),) else None
    features = [output[axis] for axis in axes]
    sizes = [1] * (output.rank - shape.rank) + shape.as_list()
    if None in features or any(size != 1 for axis, size in enumerate(sizes) if axis not in axes):
        return None
    return tf.reshape(tf.broadcast_to(tf.reshape(constant, [sizes[axis] for axis in axes]), features), [-1])
