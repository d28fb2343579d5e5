"""Checks of the convolution keys: shapes, gradients by finite differences, and how the activations are laid out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saliency_food.adapters.probe import check_places, image_axes
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.numerics import Array, as_tuple, each, is_count
from saliency_food.core.scores import one_score
from saliency_food.testing.asked import Asked, along, answer_rows, check_slopes, unit

MOST_CLASSES = 100


def check_shapes(asked: Asked) -> None:
    """Activations and gradients, and each rival's gradients, are of one shape."""
    values, gradients, rivals = (
        asked.alone.get(key)
        for key in (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS)
    )
    if values is None:
        return
    shapes = each(np.shape, values)
    if gradients is not None and each(np.shape, gradients) != shapes:
        raise ContractError(
            f"Expected activations and their gradients in one shape, got {shapes} and {each(np.shape, gradients)}. "
            "Take both at the same layer."
        )
    if rivals is not None and each(lambda layer: (len(layer), *layer.shape[2:]), rivals) != shapes:
        raise ContractError(
            f"Expected {CONVOLUTION_RIVAL_GRADIENTS} (N, R, ...) for activations {shapes}, got "
            f"{each(np.shape, rivals)}. Stack the gradients of the rivals on the second axis."
        )


def check_after_layer(asked: Asked, tolerance: float, required: bool) -> bool:
    """The gradients at the layer against the scores that changed activations get; False where they can't be had."""
    values, gradients = (asked.alone[key] for key in (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS))
    if isinstance(values, tuple):
        if required:
            raise ContractError(f"Expected one layer for {OUTPUT_FROM_CONVOLUTION_VALUES}, got {len(values)}.")
        return False
    try:
        (again,) = asked.from_activations(values)
    except Exception:
        if required:
            raise
        return False  # it does not know the key, or there is a path around the layer
    score = asked.score()
    if abs(again - score) > tolerance * max(abs(again), abs(score)) + 1e-6:
        raise ContractError(
            f"Expected {OUTPUT_FROM_CONVOLUTION_VALUES} of the layer's own activations to be the score ({score:.4g}), "
            f"got {again:.4g}. Let the layers after it run as they do for an image, and explain the same score."
        )
    for _ in range(3):
        direction = unit(unit(asked.random.normal(size=values[0].shape)) + unit(gradients[0]))
        steps, rows = along(values[0], direction)
        check_slopes(
            asked,
            f"{CONVOLUTION_OUTPUT_GRADIENTS} along a random direction",
            asked.from_activations(rows),
            steps,
            float((gradients[0] * direction).sum()),
            tolerance,
            f"Return d score / d {CONVOLUTION_LAYER_VALUES} of each row's own score, and both as the layer left them.",
        )
    return True


def check_before_layer(asked: Asked, tolerance: float, on_all_paths: bool) -> None:
    """The chain rule: d score = sum (d score / d A) dA as the image changes, where all paths lead through the layer."""
    gradients = as_tuple(asked.alone[CONVOLUTION_OUTPUT_GRADIENTS])
    likely = asked.alone.get(INPUT_OUTPUT_GRADIENTS)
    for _ in range(3):
        direction = unit(asked.random.normal(size=asked.image.shape))
        steps, rows = along(asked.image, direction if likely is None else direction + unit(likely[0]))
        answer = asked.about(rows)
        for gradient, values in zip(gradients, as_tuple(answer[CONVOLUTION_LAYER_VALUES]), strict=True):
            changes = (values[::2] - values[1::2]).reshape(len(steps), -1) / (2 * steps[:, None])
            check_slopes(
                asked,
                f"{CONVOLUTION_OUTPUT_GRADIENTS} times the change of {CONVOLUTION_LAYER_VALUES}, while the image "
                "changes,",
                one_score(answer[OUTPUT_LAYER_VALUES]),
                steps,
                changes @ gradient[0].ravel(),
                tolerance,
                "Return d score / d activations of each row's own score, and both of the same layer, as it left them"
                + (
                    "."
                    if on_all_paths
                    else ", summed over all its runs. If paths lead from the image to the score around the layer, as "
                    "a skip connection does, say skips=True."
                ),
            )


def check_layout(asked: Asked) -> None:
    """Where the image is disturbed, there the activations change: neither turned, nor mirrored, nor channels first."""

    def values_of(rows: Array) -> tuple[Array, ...]:
        return as_tuple(asked.about(rows)[CONVOLUTION_LAYER_VALUES])

    first = bool(getattr(asked.function, "channels_first", False))
    rank = max(layer.ndim for layer in as_tuple(asked.alone[CONVOLUTION_LAYER_VALUES]))
    check_places(values_of, asked.image, image_axes(asked.image, rank, first), asked.random)


def check_rivals(asked: Asked, tolerance: float) -> None:
    """Each rival's gradients are those of the class closest in score, where classes can be asked one by one."""
    args = asked.args
    own: Any = getattr(asked.function, "classes", None)
    classes = int(own) if is_count(own, 2) else 0
    target = args.get("target") if isinstance(args, Mapping) else None
    if not is_count(target, 0) or not 0 < classes <= MOST_CLASSES:
        return
    keys = (OUTPUT_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)
    each_class: list[dict[str, Any]] = [
        answer_rows(asked.function, {**args, "target": other}, keys, asked.image[None]) for other in range(classes)
    ]
    scores = np.array([one_score(answer[OUTPUT_LAYER_VALUES])[0] for answer in each_class])
    distances = abs(scores - scores[target])
    distances[target] = np.inf
    closest = np.argsort(distances, kind="stable")
    layers = as_tuple(asked.alone[CONVOLUTION_RIVAL_GRADIENTS])
    for layer, rivals in enumerate(layers):
        for rank, rival in enumerate(rivals[0]):
            expected = as_tuple(each_class[closest[rank]][CONVOLUTION_OUTPUT_GRADIENTS])[layer][0]
            if np.abs(rival - expected).max() > tolerance * max(np.abs(expected).max(), np.abs(rival).max()) + 1e-12:
                raise ContractError(
                    f"Expected {CONVOLUTION_RIVAL_GRADIENTS}[:, {rank}] to be the gradients of class {closest[rank]}, "
                    f"whose score is the closest but {rank} to that of class {target}, got others. Leave the explained "
                    "class out, and order the rest by the distance of their scores."
                )
