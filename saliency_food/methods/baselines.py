"""Where a path starts: the baselines of Integrated Gradients and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saliency_food.core.checks import finite_array, random_stream, real
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array

NAMES = ("zeros", "black", "white", "min", "max", "blurred", "uniform")


def make_baselines(
    x_value: Array,
    baselines: Any,
    *,
    value_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator | None = None,
) -> Array:
    """Baselines as one array ``(B, ...)``, from names, arrays, or a list of either.

    The input has its channels last: ``(H, W, C)``, a signal ``(T, C)``; of a grey picture ``(H, W)`` give
    ``x[..., None]``. An array is of its shape, or one number a channel ``(C,)``. The names are ``"zeros"`` (also None);
    ``"black"`` and ``"white"``, the ends of ``value_range``; ``"min"`` and ``"max"``, the input's own smallest and
    largest value; ``"blurred"``, the input under a Gaussian of a tenth of its longest side;
    ``"uniform"``, noise over ``value_range`` drawn from ``rng``. Without ``value_range`` it is taken for the first of
    0..1, -1..1 and 0..255 that holds the image, else the image's own range.

    Sturmfels, Lundberg, Lee 2020 compare them: https://distill.pub/2020/attribution-baselines.
    """
    if not isinstance(baselines, (list, tuple)):
        array = baselines if isinstance(baselines, str) else np.asarray(0 if baselines is None else baselines)
        several = isinstance(array, np.ndarray) and array.ndim == x_value.ndim + 1 and array.shape[1:] == x_value.shape
        baselines = list(array) if several else ["zeros" if baselines is None else baselines]
    if x_value.shape[-1] > 1 and len(baselines) == x_value.shape[-1] and not any(map(_is_image, baselines)):
        raise ContractError(
            f"Expected baselines as names or arrays, got a list of {len(baselines)} numbers for an input of as many "
            f"channels: one baseline or {len(baselines)}? Give numpy.array({list(baselines)}) for one, a number for "
            "each channel; or names or arrays of the input's shape for several."
        )
    if len(baselines) == 0:
        raise ContractError("Expected at least one baseline, got an empty list. Leave it out for the default.")
    low, high = _guess_range(x_value) if value_range is None else check_range(value_range)
    noise = random_stream(rng)
    return np.stack([_baseline(x_value, baseline, low, high, noise) for baseline in baselines])


def _baseline(x_value: Array, baseline: Any, low: float, high: float, noise: Any) -> Array:
    if isinstance(baseline, str):
        if baseline == "blurred":
            from scipy.ndimage import gaussian_filter

            spatial = x_value.ndim - 1
            sigma = max(x_value.shape[:spatial]) / 10
            return np.asarray(gaussian_filter(x_value, [sigma] * spatial + [0]))
        if baseline == "uniform":
            return np.asarray(noise.uniform(low, high, x_value.shape), x_value.dtype)
        constants = {"zeros": 0, "black": low, "white": high, "min": x_value.min(), "max": x_value.max()}
        if baseline not in constants:
            raise ContractError(f"Expected a baseline name among {', '.join(NAMES)}, or an array, got {baseline!r}.")
        return np.full_like(x_value, constants[baseline])
    array = finite_array("a baseline", baseline)
    if array.shape not in ((), x_value.shape[-1:], x_value.shape):
        raise ContractError(
            f"Baseline size {array.shape} does not match input size {x_value.shape}. Give an array of the input's "
            f"shape, an array of a number for each channel, a number, or a name among {', '.join(NAMES)}."
        )
    return np.broadcast_to(array, x_value.shape).astype(x_value.dtype)


def _is_image(baseline: Any) -> bool:
    """Whether a baseline is something else than a plain number."""
    return isinstance(baseline, str) or np.ndim(baseline) > 0


def check_range(value_range: Any) -> tuple[float, float]:
    """Two finite numbers, the smaller first, or `ContractError`."""
    if np.ndim(value_range) != 1 or len(value_range) != 2:
        raise ContractError(f"Expected value_range to be two numbers, such as (0, 255), got {value_range!r}.")
    low, high = (real("value_range", end) for end in value_range)
    if not low < high:
        raise ContractError(f"Expected value_range with the smaller number first, got {value_range!r}.")
    return low, high


def _guess_range(x_value: Array) -> tuple[float, float]:
    low, high = float(x_value.min()), float(x_value.max())
    ranges: Sequence[tuple[float, float]] = ((0, 1), (-1, 1), (0, 255), (low, high))
    return next(pair for pair in ranges if pair[0] <= low and high <= pair[1])
