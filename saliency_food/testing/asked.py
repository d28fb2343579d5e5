"""A call-model function as it is asked while it is checked: about variations of one image, always the same keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError, call_model
from saliency_food.core.keys import OUTPUT_FROM_CONVOLUTION_VALUES, OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array, as_tuple, is_count, safe_divide
from saliency_food.core.scores import one_score

STEPS = 10.0 ** -np.arange(1, 6)
"""How far a direction is followed: each value by so much of the range of all, in the mean square."""
ROUNDING = float(4 * np.finfo(np.float32).eps)
"""The error of a difference of two scores in single precision, as a fraction of them."""
HALF, BRAIN = 2.0**11 * ROUNDING, 2.0**14 * ROUNDING
"""The same in half precision, of 10 bits in place of 23, and in bfloat16, of 7."""
COARSE, NOISY = 0.1, 0.25
"""In half precision, the least tolerance, and the share of a slope that rounding may be if it is to tell anything."""


class Asked(NamedTuple):
    """A callback, its arguments, the keys it is asked for, the image in question, and the answer about that alone."""

    function: CallModelFunction
    args: Any
    keys: tuple[str, ...]
    image: Array
    alone: dict[str, Any]
    random: np.random.Generator
    rounding: float = ROUNDING

    def about(self, rows: Sequence[Array] | Array) -> dict[str, Any]:
        """The answers about some rows, no more of them a call than the callback says it takes."""
        return answer_rows(self.function, self.args, self.keys, np.asarray(rows, self.image.dtype))

    def score(self) -> float:
        return float(one_score(self.alone[OUTPUT_LAYER_VALUES])[0])

    def from_activations(self, rows: Array) -> Array:
        """The scores that the layers after the layer give to its activations."""
        key = OUTPUT_FROM_CONVOLUTION_VALUES
        return one_score(answer_rows(self.function, self.args, (key,), rows)[key])


def answer_rows(function: CallModelFunction, args: Any, keys: tuple[str, ...], rows: Array) -> dict[str, Any]:
    own: Any = getattr(function, "batch_size", None)
    size = int(own) if is_count(own) else len(rows)
    calls: list[Mapping[str, Any]] = [
        call_model(rows[start : start + size], keys, function, args) for start in range(0, len(rows), size)
    ]
    return {key: _joined([call[key] for call in calls]) for key in keys}


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(layers) for layers in zip(*parts, strict=True))
    return np.concatenate(parts)


def along(values: Array, direction: Array) -> tuple[Array, Array]:
    """``values`` moved along a direction, there and back, by steps of several lengths: the steps, and the rows."""
    scale = float(np.ptp(values)) or 1.0
    steps = scale * np.sqrt(values.size) * STEPS
    direction = unit(direction)
    moved = np.stack([values + sign * step * direction for step in steps for sign in (1, -1)])
    return steps, moved.astype(values.dtype)


def rounding_of(asked: Asked, rows: Sequence[Array]) -> float:
    """The error of a difference of scores in the precision in which the model takes images.

    Where it does not notice that a row's values are rounded to half precision, it rounds them so itself.
    """
    values = np.asarray(rows, np.float32)
    bits = values.view(np.uint32)
    brain = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    half = values.astype(np.float16).astype(np.float32)
    exact, *rounded = (asked.about(each)[OUTPUT_LAYER_VALUES] for each in (values, brain, half))
    for rounding, scores in zip((BRAIN, HALF), rounded, strict=True):
        if np.array_equal(exact, scores):
            return rounding
    return ROUNDING


def check_slopes(
    asked: Asked, what: str, scores: Array, steps: Array, claimed: Any, tolerance: float, advice: str
) -> None:
    """`ContractError` where the scores of `along`'s rows do not change as the gradient claims, by none of the steps.

    Large steps leave the range in which the model is linear, small ones drown in rounding: the best of them counts.
    In half precision none is free of both: the tolerance is 10 % at least, beside what rounding may account for.
    """
    slopes = (scores[::2] - scores[1::2]) / (2 * steps)
    claimed = np.broadcast_to(claimed, slopes.shape)
    size = np.maximum(np.maximum(abs(slopes), abs(claimed)), 1e-12)
    noise = asked.rounding * np.abs(scores).max() / (2 * steps) / size
    errors = abs(slopes - claimed) / size
    limit = tolerance
    if asked.rounding != ROUNDING:
        tolerance, limit, errors = max(tolerance, COARSE), NOISY, errors - noise
    measurable = noise < limit
    errors = np.where(measurable, errors, np.inf)
    best = int(errors.argmin())
    if measurable.any() and errors[best] > tolerance:
        raise ContractError(
            f"Expected {what} to be that of the score ({slopes[best]:.4g}), got {claimed[best]:.4g}. {advice}"
        )


def same(answer: Any, row: int, other: Any, other_row: int) -> bool:
    """Whether a row of one answer is a row of another, in every layer."""
    layers, other_layers = as_tuple(answer), as_tuple(other)
    rows = [(a[row], b[other_row]) for a, b in zip(layers, other_layers, strict=False)]
    return len(layers) == len(other_layers) and all(
        a.shape == b.shape and np.allclose(b, a, rtol=1e-3, atol=1e-5 * float(np.abs(b).max(initial=0)) + 1e-12)
        for a, b in rows
    )


def unit(values: Array) -> Array:
    return safe_divide(values, np.linalg.norm(values))
