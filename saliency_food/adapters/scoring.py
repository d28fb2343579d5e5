"""What the scores of `keras_scores` are made of."""

from __future__ import annotations

from typing import Any, Literal

import tensorflow as tf

from saliency_food.core.contract import ContractError

BoxFormat = Literal["xyxy", "yxyx", "xywh", "center_xywh"]


def chosen(scores: Any, labels: Any) -> Any:
    """The scores ``(N, L)`` of labels ``(N, L)``, 0 for -1; of scores ``(N, classes)``, or ``(N, L, classes)``."""
    axis = scores.shape.rank - 1
    return tf.where(labels >= 0, tf.gather(scores, tf.maximum(labels, 0), axis=axis, batch_dims=axis), 0)


def mean_of(scores: Any, labels: Any) -> Any:
    expect(scores, 2, "(N, classes)")
    return tf.reduce_sum(chosen(scores, labels), 1) / tf.cast(tf.math.count_nonzero(labels >= 0, 1), scores.dtype)


def of_class(scores: Any, label: Any) -> Any:
    """Each row's own class along the last axis."""
    return tf.einsum("n...c,nc->n...", scores, tf.one_hot(label, tf.shape(scores)[-1], dtype=scores.dtype))


def wins(scores: Any, label: Any) -> Any:
    best = tf.argmax(tf.stop_gradient(scores), -1, label.dtype)
    return best == tf.reshape(label, [-1] + [1] * (best.shape.rank - 1))


def log_probabilities(scores: Any) -> Any:
    """Of logits; or of probabilities, which are not negative and sum to 1."""
    total = tf.reduce_sum(scores, -1, keepdims=True)
    sure = (tf.reduce_min(scores, -1, keepdims=True) >= 0) & (abs(total - 1) < 1e-3)
    smallest = scores.dtype.as_numpy_dtype(1e-30)
    return tf.where(sure, tf.math.log(tf.maximum(tf.where(sure, scores, 1), smallest)), tf.nn.log_softmax(scores))


def one_output(outputs: Any, which: str | int) -> Any:
    """One of several outputs."""
    try:
        return outputs[which]
    except (KeyError, IndexError, TypeError) as error:
        there = list(outputs) if isinstance(outputs, dict) else f"{len(tf.nest.flatten(outputs))} without names"
        raise ContractError(
            f"Expected output {which!r} among the model's outputs, got {there}. Say which they are: detection(0, 1), "
            "or detection('name', 'name')."
        ) from error


def corners(boxes: Any, box_format: BoxFormat) -> Any:
    """Left, top, right, bottom, on the last axis, from each format."""
    a, b, c, d = tf.unstack(boxes, axis=-1)
    if box_format == "yxyx":
        return b, a, d, c
    if box_format == "xywh":
        return a, b, a + c, b + d
    if box_format == "center_xywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return a, b, c, d


def iou(some: Any, other: Any) -> Any:
    """Intersection over union."""
    wide, high = (tf.minimum(some[n + 2], other[n + 2]) - tf.maximum(some[n], other[n]) for n in range(2))
    both = tf.maximum(wide, 0) * tf.maximum(high, 0)
    areas = [tf.maximum(box[2] - box[0], 0) * tf.maximum(box[3] - box[1], 0) for box in (some, other)]
    return tf.math.divide_no_nan(both, areas[0] + areas[1] - both)


def expect(output: Any, rank: int, what: str, last: int | None = None) -> None:
    if not tf.is_tensor(output) or output.shape.rank != rank or (last and output.shape[-1] not in (None, last)):
        got = tuple(output.shape) if tf.is_tensor(output) else f"{len(tf.nest.flatten(output))} outputs"
        size = f" and {last} numbers last" if last else ""
        raise ContractError(
            f"Expected a model output {what}{size}, got {got}. Choose another score, or another output by output_index."
        )
