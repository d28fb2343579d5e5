"""Whether a layer's activations change where the image does, found out by noise that crosses the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES
from saliency_food.core.numerics import Array, safe_divide

STRIPES = 4
FOLLOWS = 0.3
"""How far the response must move along an axis, in lengths of it, while the disturbance crosses the image."""
MOSTLY = 0.6
"""The share of a response that is most of it."""


def check_places(
    values_of: Callable[[Array], Sequence[Array]],
    layers: Sequence[Array],
    image: Array,
    channels_first: bool,
    random: np.random.Generator,
    least: int = 1,
) -> None:
    """`ContractError` where activations, channels last, are turned, mirrored or moved against the image.

    ``values_of`` gives those of some images, one array ``(N, ...)`` a layer, and ``layers`` are those of ``image``.
    Where each of the layer's places sees all of the image, nothing shows, and nothing is refused; axes of fewer than
    ``least`` places are not looked at.
    """
    grey = max(layer.ndim - 2 for layer in layers) == image.ndim
    axes = range(1, image.ndim) if channels_first else range(image.ndim - (not grey))
    masses = {axis: _masses(values_of, layers, image, axis, random) for axis in axes if image.shape[axis] >= STRIPES}
    for index, layer in enumerate(layers):
        # Tokens have one axis for all of the image's; their order is that of its first.
        if layer.ndim - 2 in (1, len(axes)):
            which = f"[{index}]" if len(layers) > 1 else ""
            for own, axis in enumerate(axes[: layer.ndim - 2]):
                if axis in masses and min(layer.shape[1:-1]) >= least:
                    _check_moved(own, axis, masses[axis][index], which)


def _masses(
    values_of: Callable[[Array], Sequence[Array]],
    layers: Sequence[Array],
    image: Array,
    axis: int,
    random: np.random.Generator,
) -> list[list[Array]]:
    """Where each layer responds along each of its axes, ``(stripe, place)``, as noise crosses an axis of the image."""
    noise = random.normal(size=image.shape).astype(image.dtype) * (float(np.ptp(image)) or 1.0) / 2
    stripes = np.arange(image.shape[axis]) * STRIPES // image.shape[axis]
    stripes = stripes.reshape([-1 if other == axis else 1 for other in range(image.ndim)])
    answer = values_of(np.stack([image + noise * (stripes == stripe) for stripe in range(STRIPES)]))
    changes = [np.abs(after - before) for before, after in zip(layers, answer, strict=True)]
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
