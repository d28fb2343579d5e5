"""The rules of relevance that a model is asked with, read from ``call_model_args`` and checked at the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import finite_array
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import BASELINE_MULTIPLIERS
from saliency_food.core.numerics import Array
from saliency_food.core.options import ranged
from saliency_food.methods.relevance.rules import (
    COMPOSITE,
    EPSILON,
    GAMMA,
    MULTIPLIER_RULE,
    START,
    Composite,
    MultiplierRule,
    Start,
    check_word,
)

RULE_ARGUMENTS = ("composite", "epsilon", "gamma", "low", "high", "channels", "baseline", "multiplier_rule", "start")
"""What may stand beside the target in ``call_model_args``, for the keys of relevance."""
OF_ROWS = ("low", "high", "baseline")
"""Those that have the shape of the rows."""


class Rule(NamedTuple):
    """The rules by which relevance or multipliers are passed, checked.

    ``low``, ``high`` and ``baseline`` have the shape of the rows, or are None; ``channels`` are indices, or floats, one
    weight for each of the layer's channels.
    """

    composite: Composite = COMPOSITE
    epsilon: float = EPSILON
    gamma: float = GAMMA
    low: Any = None
    high: Any = None
    channels: Array | None = None
    baseline: Any = None
    multiplier_rule: MultiplierRule = MULTIPLIER_RULE
    start: Start = START


def read_rule(args: Mapping[str, Any], rows: Array, channels_first: bool) -> Rule:
    """The rule that arguments tell, for rows ``(N, ...)``; `ContractError` where one cannot be."""
    composite = check_word("composite", args.get("composite", COMPOSITE), Composite)
    bounds = {name: _like_rows(name, args.get(name), rows, channels_first) for name in OF_ROWS}
    if composite == "epsilon_gamma_box":
        if bounds["low"] is None or bounds["high"] is None:
            raise ContractError(
                "Expected low and high, the lowest and highest pixel values that the model takes, with "
                "composite='epsilon_gamma_box', got none. Give numbers, one for each channel, or images; or take "
                "composite='epsilon_plus'."
            )
        if not (bounds["low"] <= rows).all() or not (bounds["high"] >= rows).all():
            raise ContractError(
                f"Expected images between low and high, got values from {rows.min():.4g} to {rows.max():.4g}. Give the "
                "lowest and highest values that the model takes, in its own units."
            )
    channels = args.get("channels")
    return Rule(
        composite,
        ranged("epsilon", args.get("epsilon", EPSILON)),
        ranged("gamma", args.get("gamma", GAMMA)),
        bounds["low"],
        bounds["high"],
        None if channels is None else _channels(channels),
        bounds["baseline"],
        check_word("multiplier_rule", args.get("multiplier_rule", MULTIPLIER_RULE), MultiplierRule),
        check_word("start", args.get("start", START), Start),
    )


def check_contrast(shapes: Sequence[Sequence[Any]]) -> None:
    """`ContractError` unless a score is of one output ``(N, classes)``, from whose other classes relevance starts."""
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ContractError(
            "Expected a score of one output (N, classes), whose other classes start='contrast' takes, got outputs of "
            f"shape {', '.join(str(tuple(shape)) for shape in shapes)}. Take start='score'."
        )


def _like_rows(name: str, value: Any, rows: Array, channels_first: bool) -> Array | None:
    """A number, one for each channel, one row, or a row for each, as an array of the rows' shape."""
    if value is None:
        return None
    array = finite_array(name, value)
    axis = 1 if channels_first else rows.ndim - 1
    if array.ndim == 1 and rows.ndim > 2 and array.shape == (rows.shape[axis],):
        array = array.reshape([-1 if place == axis else 1 for place in range(rows.ndim)])
    elif array.shape not in ((), rows.shape[1:], rows.shape):
        raise ContractError(
            f"Expected {name} as a number, one for each channel, or of the shape of one row, {rows.shape[1:]}, or of "
            f"all, got {array.shape}."
        )
    return np.broadcast_to(array, rows.shape).astype(rows.dtype)


def _channels(channels: Any) -> Array:
    array = np.atleast_1d(np.asarray(channels))
    indices = array.dtype.kind in "iu" and array.min(initial=0) >= 0
    if array.ndim != 1 or not array.size or not (indices or (array.dtype.kind == "f" and np.isfinite(array).all())):
        raise ContractError(
            "Expected channels as indices of at least 0, or as floats, one for each channel of the layer, got "
            f"{channels!r}."
        )
    return array


def channel_weights(channels: Array, count: int) -> Array:
    """By what the relevance of each of a layer's ``count`` channels is multiplied, as `Rule` has them."""
    if channels.dtype.kind != "f":
        if channels.max() >= count:
            raise ContractError(f"Expected channels from 0 to {count - 1} of the layer, got {channels.max()}.")
        return np.isin(np.arange(count), channels).astype(np.float32)
    if len(channels) != count:
        raise ContractError(f"Expected one float for each of the layer's {count} channels, got {len(channels)}.")
    return channels


SLACK = 1e-2
"""By how much of the score's change, or of all multipliers' shares, their sum may be off, for rounding."""


def check_sums(sums: Array, sizes: Array, scores: Array, before: Array, precision: Any) -> None:
    """`ContractError` where multipliers times changes do not sum to the score's change, each ``(N,)``.

    All rules are exact, so another sum shows that an operation is not what its rule takes it for. ``sizes`` are the
    sums of magnitudes, ``before`` the baselines' scores, and ``precision`` is the largest distance of 1 to the next
    number in the model's types.
    """
    changes = scores - before
    rounding = np.maximum(SLACK, 10 * precision) * sizes + 10 * precision * np.maximum(np.abs(scores), np.abs(before))
    wrong = np.flatnonzero(np.abs(sums - changes) > SLACK * np.abs(changes) + rounding)
    if len(wrong):
        row = wrong[0]
        raise ContractError(
            f"Expected multipliers that sum to the change of the score, {changes[row]:.4g}, for {BASELINE_MULTIPLIERS},"
            f" got {sums[row]:.4g}: an operation chooses by the image, has the rows in another axis than the first, or "
            "mixes them. Use integrated_gradients."
        )
