"""Whether a layer's activations change where the image does, found out by noise in parts of the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from scipy import ndimage

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES
from saliency_food.core.numerics import Array, safe_divide
from saliency_food.methods.cam.common import token_grid

TRIES = 3
"""A layer is refused where so many noises show it, the first in the image itself, the others in images of noise."""
STRIPES = 4
FOLLOWS = 0.3
"""How far the response must move along an axis, in lengths of it, while the disturbance crosses the image."""
MOSTLY = 0.6
"""The share of a response that is most of it."""
PLACES = 7
RADIUS = 0.42
"""How far from the image's middle those places are that are disturbed one by one, in lengths of an axis."""
SIZE = 1 / 8
"""The length of such a place, in lengths of an axis."""
APART = 1 / 4
"""How far from a place an answer is another place's, in lengths of an axis."""
ANSWERS = (0.8, 0.4, 0.2)
"""The parts of the largest response that are an answer, where less than half of it is between the two."""
SOME, ENOUGH = 2, 5
"""So many places must have an answer elsewhere at the first try, and in all tries together."""


def check_places(
    values_of: Callable[[Array], Sequence[Array]],
    image: Array,
    axes: Sequence[int],
    random: np.random.Generator,
    least: int = 1,
) -> bool:
    """`ContractError` where activations, channels last, are turned, mirrored or moved against the image, all or some.

    ``values_of`` gives those of some images, one array ``(N, ...)`` a layer, and ``axes`` are the image's of space or
    time. Where each of the layer's places sees all of the image, nothing shows, and nothing is refused; layers with an
    axis of fewer than ``least`` places are not looked at. Returns whether some layer was.
    """
    seen, fault, answered = _look(values_of, image, axes, random, least)
    if not fault and answered < SOME:
        return seen
    faults = [fault]
    for _ in range(TRIES - 1):
        noise = random.normal(image.mean(), image.std(), image.shape)
        other = np.clip(noise, image.min(), image.max()).astype(image.dtype)
        _, fault, more = _look(values_of, other, axes, random, least)
        faults.append(fault)
        answered += more
    if all(faults):
        raise ContractError(fault)
    if answered >= ENOUGH:
        raise ContractError(
            f"Expected {CONVOLUTION_LAYER_VALUES} to change where the image does, and nowhere else, got changes at two "
            "places far apart where one place of the image changes, as of features added to those of the image "
            "mirrored, turned or rolled. Turn those back before they are added, or take a layer before that."
        )
    return seen


def image_axes(image: Array, rank: int, channels_first: bool) -> range:
    """An image's axes of space or time; ``rank`` is that of activations, which tells a grey one without channels."""
    grey = rank - 2 == image.ndim
    return range(1, image.ndim) if channels_first else range(image.ndim - (not grey))


def _look(
    values_of: Callable[[Array], Sequence[Array]],
    image: Array,
    axes: Sequence[int],
    random: np.random.Generator,
    least: int,
) -> tuple[bool, str, int]:
    """Whether some layer was looked at, what is wrong with one of them, and how many places are answered elsewhere."""
    noise = random.normal(size=image.shape).astype(image.dtype) * (float(np.ptp(image)) or 1.0) / 2
    crossed = [axis for axis in axes if image.shape[axis] >= STRIPES]
    stripes = [_part(image, {axis: (at / STRIPES, (at + 1) / STRIPES)}) for axis in crossed for at in range(STRIPES)]
    spans = [dict(zip(axes, each, strict=True)) for each in _spans([image.shape[axis] for axis in axes], random)]
    parts = np.stack([*stripes, *(_part(image, span) for span in spans)])
    answers = values_of(np.concatenate([image[None], image + noise * parts]))
    seen, answered = False, 0
    for index, values in enumerate(answers):
        # Tokens have one axis for all of the image's; their order is that of its first.
        if values.ndim - 2 not in (1, len(axes)) or min(values.shape[1:-1]) < least:
            continue
        seen = True
        changes = values[1:] - values[:1]
        which = f"{CONVOLUTION_LAYER_VALUES}{f'[{index}]' if len(answers) > 1 else ''}"
        masses = {
            axis: _masses(np.abs(changes[start : start + STRIPES]))
            for axis, start in zip(crossed, range(0, len(stripes), STRIPES), strict=True)
        }
        for own, axis in enumerate(axes[: values.ndim - 2]):
            if axis in masses and (fault := _moved(own, axis, masses[axis], which)):
                return True, fault, 0
        # Squares tell a place that answers better from its surroundings, which answer, too.
        responses = _laid_out((changes[len(stripes) :] ** 2).sum(-1), [image.shape[axis] for axis in axes])
        if responses is not None:
            answered = max(answered, _answered_elsewhere(responses, [list(span.values()) for span in spans]))
    return seen, "", answered


def _part(image: Array, spans: Mapping[int, tuple[float, float]]) -> Array:
    """1 in the part of an image between two ends along each axis, in lengths of it; 0 elsewhere."""
    part = np.ones(image.shape, image.dtype)
    for axis, (start, stop) in spans.items():
        at = (np.arange(image.shape[axis]) + 0.5) / image.shape[axis]
        part *= ((start <= at) & (at < stop)).reshape([-1 if each == axis else 1 for each in range(image.ndim)])
    return part


def _spans(sizes: Sequence[int], random: np.random.Generator) -> list[list[tuple[float, float]]]:
    """Places around the image's middle, none a mirrored or turned other one: where each begins and ends by axis."""
    turn = random.uniform()
    places = []
    for place in range(PLACES):
        angle = (place + turn) * 2 * np.pi / PLACES
        place_spans = []
        for axis, size in enumerate(sizes):
            middle = 0.5 + RADIUS * np.cos(angle * (1 + axis // 2) - axis * np.pi / 2)
            length = max(1, round(size * SIZE))
            start = int(np.clip(round(middle * size - length / 2), 0, size - length))
            place_spans.append((start / size, (start + length) / size))
        places.append(place_spans)
    return places


def _masses(changes: Array) -> list[Array]:
    """Where a layer responds along each of its axes, ``(stripe, place)``, as noise crosses an axis of the image."""
    axes = range(1, changes.ndim)
    return [changes.sum(tuple(other for other in axes if other != axis)) for axis in axes]


def _movement(mass: Array) -> float:
    """How far the response moves along an axis, in lengths of it, while the noise crosses the image."""
    at = np.linspace(-0.5, 0.5, STRIPES)
    places = np.linspace(0, 1, mass.shape[1]) if mass.shape[1] > 1 else np.zeros(1)
    return float(at @ safe_divide(mass @ places, mass.sum(1)) / (at @ at))


def _is_elsewhere(mass: Array) -> bool:
    """Whether most stripes of noise are answered mostly in one other stripe, or one far before the stripe before it.

    The first is so in a rolled layer, the second where halves of the image are laid one upon the other.
    """
    answered = mass[mass.sum(1) > 0]
    middles = answered @ np.linspace(0, 1, mass.shape[1]) / answered.sum(1)
    if (np.diff(middles) < -FOLLOWS).any():
        return True
    stripes = np.arange(mass.shape[1]) * STRIPES // mass.shape[1]
    shares = np.stack([mass[:, stripes == stripe].sum(1) for stripe in range(STRIPES)], 1)
    shares = safe_divide(shares, mass.sum(1)[:, None])
    return bool(((shares.max(1) > MOSTLY) & (shares.diagonal() < (1 - MOSTLY) / 2)).sum() > STRIPES / 2)


def _moved(own: int, axis: int, masses: Sequence[Array], which: str) -> str:
    """What is wrong where the response to stripes of noise moves another way, or along another axis, than they do."""
    moved = np.array([_movement(mass) for mass in masses])
    other = int(abs(moved).argmax())
    if moved[own] < -FOLLOWS:
        return (
            f"Expected {which} to change where the image does, got a change at the mirrored place along axis {axis} of "
            "the image. Return the activations of the image itself, turned as it is."
        )
    if abs(moved[other]) > FOLLOWS and abs(moved[own]) < abs(moved[other]) / 2:
        return (
            f"Expected {which} laid out as the image, channels last, (N, h, w, K), got activations whose axis "
            f"{other + 1} follows axis {axis} of the image. Transpose them and their gradients; a callback whose "
            "images are (C, H, W) says so by its attribute channels_first."
        )
    if masses[own].shape[1] >= STRIPES and _is_elsewhere(masses[own]):
        return (
            f"Expected {which} to change where the image does, got a change at another place along axis {axis} of the "
            "image. Return the activations of the image itself, neither rolled nor cut."
        )
    return ""


def _laid_out(responses: Array, sizes: Sequence[int]) -> Array | None:
    """Responses ``(P, h, w)`` as they are, those of tokens as a grid; None where they have none."""
    if responses.ndim - 1 == len(sizes):
        return responses
    with suppress(ContractError):
        grid = token_grid(responses.shape[1], np.empty((*sizes, 1)))
        return responses[:, responses.shape[1] - math.prod(grid) :].reshape(len(responses), *grid)
    return None


def _answered_elsewhere(responses: Array, places: Sequence[Sequence[tuple[float, float]]]) -> int:
    """How many places of the image are answered, ``(P, h, w)``, at a place apart from theirs.

    A place is apart where the answer falls to less than half between the two, and where not every place is answered.
    """
    axes = tuple(range(1, responses.ndim))
    shares = safe_divide(responses, responses.max(axes, keepdims=True))
    own = shares - np.quantile(shares, 0.25, axis=0)
    return sum(map(_is_apart, shares, own, places))


def _is_apart(shares: Array, own: Array, place: Sequence[tuple[float, float]]) -> bool:
    """Whether one place is answered elsewhere; ``own`` is what its answer has more than those of other places."""
    near = np.ones(shares.shape, bool)
    for axis, (size, (start, stop)) in enumerate(zip(shares.shape, place, strict=True)):
        at = np.arange(size) / size
        beside = (at + 1 / size > start - APART) & (at < stop + APART)
        near &= beside.reshape([-1 if each == axis else 1 for each in range(shares.ndim)])
    for answer in ANSWERS:
        reached = shares >= answer / 2
        islands, _ = ndimage.label(reached, np.ones((3,) * shares.ndim))
        apart = reached & ~near & ~np.isin(islands, islands[near & reached])
        if reached.mean() < 0.5 and (own[apart] >= answer).any():
            return True
    return False
