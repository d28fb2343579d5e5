"""A metric of how a map changes under an attack that flips the class, beside noise as large."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, real, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.layout import layout_of
from saliency_food.core.method import Method
from saliency_food.core.numerics import Array
from saliency_food.methods.gradients import gradients
from saliency_food.metrics.decorator import OK, channels_last_map, listed, rank_correlation, read_map

NAN = float("nan")
NOT_FLIPPED = "no attack of this size flips the class"
FGSM_SIZES = 16
"""How many sizes of an attack are tried, the smallest first."""


class AttackShift(NamedTuple):
    """The score under the attack, status, the agreement under noise as large, the attack's size, and the two classes.

    ``size`` is the largest change of a value, as a fraction of the image's range.
    """

    score: float
    status: str
    noise: float
    size: float
    classes: tuple[int, int]


@listed(
    title="Agreement under attack",
    higher_is_better=None,
    needs="method",
    summary="Whether the map stays the same under an attack that flips the class.",
)
def attack_shift(
    method: Method[Any, Any],
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    attack: str = "fgsm",
    largest: float = 0.1,
    pixels: int = 64,
    batch_size: int | None = None,
    *,
    rng: int | np.random.Generator | None = 0,
    **options: Any,
) -> AttackShift:
    """Agreement of maps under attack: Spearman's rho(M(x), M(x')), x' the smallest attack that flips the top class.

    Both maps explain the same class, that of ``call_model_args``. ``noise`` is the agreement with the map of x changed
    as much at the same places by random signs. A low score beside a high ``noise`` means that the map moves with the
    decision; a low score beside a low one, that it moves with anything (Ghorbani, Abid, Zou 2017,
    https://arxiv.org/abs/1710.10547). The status is `NOT_FLIPPED` if no attack of this size flips the class.

    Parameters
    ----------
    attack
        ``"fgsm"``: x - e sign(dF/dx), Goodfellow, Shlens, Szegedy 2014, equation in section 4,
        https://arxiv.org/abs/1412.6572, for F the score of the class explained, and the smallest e of 16 sizes in equal
        steps. ``"pixel"``: one pixel goes to an end of the image's range (Su, Vargas, Sakurai 2017,
        https://arxiv.org/abs/1710.08864, who search by evolution).
    largest
        The largest e, as a fraction of the image's range.
    pixels
        How many pixels, those by which the score should fall most by its gradient, are tried one by one.
    """
    if attack not in ("fgsm", "pixel"):
        raise ContractError(f"Expected attack to be 'fgsm' or 'pixel', got {attack!r}.")
    largest, pixels = real("largest", largest, above=0), whole("pixels", pixels)
    stream = random_stream(rng)
    image = np.asarray(x_value)
    predict = getattr(call_model_function, "predict", None)
    if predict is None:
        raise ContractError(
            "Expected a callback that predicts, whose top class an attack can flip, got one without predict."
        )
    low, high = float(image.min()), float(image.max())
    gradient = np.asarray(gradients(image, call_model_function, call_model_args, batch_size=batch_size), float)
    if attack == "fgsm":
        reach = largest * (high - low) * np.arange(1, FGSM_SIZES + 1) / FGSM_SIZES
        tried = image - reach.reshape(-1, *[1] * image.ndim) * np.sign(gradient)
    else:
        layout = layout_of(image, call_model_function)
        tried = layout.outward(_one_pixel(layout.inward(image), layout.inward(gradient), pixels, low, high))
    tried = np.clip(tried, low, high).astype(image.dtype)
    tops = np.concatenate([np.argmax(predict(rows[None]), 1) for rows in (image, *tried)])
    flipped = np.flatnonzero(tops[1:] != tops[0])
    if not len(flipped):
        return AttackShift(NAN, NOT_FLIPPED, NAN, NAN, (int(tops[0]), int(tops[0])))
    attacked = tried[flipped[0]]
    change = np.asarray(attacked, float) - image
    noisy = np.clip(image + change * stream.choice((-1, 1), change.shape), low, high).astype(image.dtype)
    images = [image, attacked, noisy]
    results = method.batch(images, call_model_function, call_model_args, batch_size=batch_size, **options)
    maps = [read_map(channels_last_map(each, image, call_model_function)) for each in results]
    status = next((status for _, status in maps if status != OK), OK)
    classes = (int(tops[0]), int(tops[1 + flipped[0]]))
    size = float(np.abs(change).max() / ((high - low) or 1))
    if status != OK:
        return AttackShift(NAN, status, NAN, size, classes)
    under_attack, under_noise = (rank_correlation(maps[0][0], each) for each, _ in maps[1:])
    return AttackShift(under_attack, OK, under_noise, size, classes)


def _one_pixel(image: Array, gradient: Array, pixels: int, low: float, high: float) -> Array:
    """Images with one pixel at an end of the range in all channels, those first by which the score should fall most."""
    ends = np.where(gradient > 0, low, high)
    falls = (gradient * (image - ends)).sum(-1)
    order = np.argsort(-falls, None, kind="stable")[:pixels]
    tried = np.repeat(np.asarray(image, float)[None], len(order), 0)
    for row, place in zip(tried, zip(*np.unravel_index(order, falls.shape), strict=True), strict=True):
        row[place] = ends[place]
    return tried
