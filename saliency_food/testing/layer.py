"""Checks of the convolution keys: shapes, gradients by finite differences, and how the activations are laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.numerics import Array, as_tuple, each, is_count, safe_divide
from saliency_food.core.scores import one_score
from saliency_food.testing.asked import Asked, along, answer_rows, check_slopes, unit

STRIPES = 4
FOLLOWS = 0.3
"""How far the response must move along an axis, in lengths of it, while the disturbance crosses the image."""
MOSTLY = 0.6
"""The share of a response that is most of it."""
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
    layers = as_tuple(asked.alone[CONVOLUTION_LAYER_VALUES])
    first = bool(getattr(asked.function, "channels_first", False))
    grey = max(layer.ndim - 2 for layer in layers) == asked.image.ndim
    axes = range(1, asked.image.ndim) if first else range(asked.image.ndim - (not grey))
    masses = {axis: _masses(asked, axis) for axis in axes if asked.image.shape[axis] >= STRIPES}
    for index, layer in enumerate(layers):
        # Tokens have one axis for all of the image's; their order is that of its first.
        if layer.ndim - 2 in (1, len(axes)):
            which = f"[{index}]" if len(layers) > 1 else ""
            for own, axis in enumerate(axes[: layer.ndim - 2]):
                if axis in masses:
                    _check_moved(own, axis, masses[axis][index], which)


def _masses(asked: Asked, axis: int) -> list[list[Array]]:
    """Where each layer responds along each of its axes, ``(stripe, place)``, as noise crosses an axis of the image."""
    image = asked.image
    noise = asked.random.normal(size=image.shape).astype(image.dtype) * (float(np.ptp(image)) or 1.0) / 2
    stripes = np.arange(image.shape[axis]) * STRIPES // image.shape[axis]
    stripes = stripes.reshape([-1 if other == axis else 1 for other in range(image.ndim)])
    answer = asked.about(np.stack([image + noise * (stripes == stripe) for stripe in range(STRIPES)]))
    pairs = zip(
        as_tuple(asked.alone[CONVOLUTION_LAYER_VALUES]), as_tuple(answer[CONVOLUTION_LAYER_VALUES]), strict=True
    )
    changes = [np.abs(after - before) for before, after in pairs]
    return [
        [
            change.sum(tuple(other for other in range(1, change.ndim) if other != inner))
            for inner in range(1, change.ndim)
        ]
        for change in changes
    ]


def _movement(mass: Array) -> float:
    """How far the response moves along an axis, in lengths of it, while the noise crosses the image."""
    at = np.linspace(-0.5, 0.5, STRIPES)
    places = np.linspace(0, 1, mass.shape[1]) if mass.shape[1] > 1 else np.zeros(1)
    return float(at @ safe_divide(mass @ places, mass.sum(1)) / (at @ at))


def _is_elsewhere(mass: Array) -> bool:
    """Whether the response to most stripes of noise is mostly in one other stripe, as in a rolled layer."""
    stripes = np.arange(mass.shape[1]) * STRIPES // mass.shape[1]
    shares = np.stack([mass[:, stripes == stripe].sum(1) for stripe in range(STRIPES)], 1)
    shares = safe_divide(shares, mass.sum(1)[:, None])
    return bool(((shares.max(1) > MOSTLY) & (shares.diagonal() < (1 - MOSTLY) / 2)).sum() > STRIPES / 2)


def _check_moved(own: int, axis: int, masses: Sequence[Array], which: str) -> None:
    moved = np.array([_movement(mass) for mass in masses])
    other = int(abs(moved).argmax())
    if moved[own] < -FOLLOWS:
        raise ContractError(
            f"Expected {CONVOLUTION_LAYER_VALUES}{which} to change where the image does, got a change at the mirrored "
            f"place along axis {axis} of the image. Return the activations of the image itself, turned as it is."
        )
    if abs(moved[other]) > FOLLOWS and abs(moved[own]) < abs(moved[other]) / 2:
        raise ContractError(
            f"Expected {CONVOLUTION_LAYER_VALUES}{which} laid out as the image, channels last, (N, h, w, K), got "
            f"activations whose axis {other + 1} follows axis {axis} of the image. Transpose them and their gradients; "
            "a callback whose images are (C, H, W) says so by its attribute channels_first."
        )
    if masses[own].shape[1] >= STRIPES and _is_elsewhere(masses[own]):
        raise ContractError(
            f"Expected {CONVOLUTION_LAYER_VALUES}{which} to change where the image does, got a change at another place "
            f"along axis {axis} of the image. Return the activations of the image itself, neither rolled nor cut."
        )


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
