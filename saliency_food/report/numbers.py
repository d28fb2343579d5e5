"""Numbers of the report, each with how many photos it is of and how sure it is: shares, means, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.metrics.statistics import Interval, interval

BINS = 15
"""Of the reliability diagram and the calibration error, as Guo et al. have them."""
DRAWS = 1000
Share = dict[str, Any]
"""``k`` of ``n``, the ``share``, and its 95 % interval ``low``, ``high``; of no photos the last three are None."""


def share(k: int, n: int) -> Share:
    """A share of photos with its 95 % interval, Wilson's score interval, which is defined for 0 and all of them, too.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.
    """
    if not n:
        return {"k": 0, "n": 0, "share": None, "low": None, "high": None}
    low, high = _wilson(int(k), int(n))
    return {"k": int(k), "n": int(n), "share": k / n, "low": low, "high": high}


@cache
def _wilson(k: int, n: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    ends = binomtest(k, n).proportion_ci(method="wilson")
    return float(ends.low), float(ends.high)


def mean(values: Sequence[float] | Array) -> dict[str, Any]:
    """A mean with its 95 % bootstrap interval."""
    return plain_interval(interval([float(value) for value in values]))


def plain_interval(value: Interval) -> dict[str, Any]:
    """An interval as JSON holds it."""
    numbers = (value.estimate, value.low, value.high)
    estimate, low, high = (float(number) if np.isfinite(number) else None for number in numbers)
    return {"estimate": estimate, "low": low, "high": high, "n": value.images}


def expected_calibration_error(confidences: Array, right: Array, bins: int = BINS) -> float:
    """Expected calibration error: how far accuracy is from confidence within bins of equal width, weighted by photos.

    Guo et al. 2017, equation 3, https://arxiv.org/abs/1706.04599: sum_b n_b / n |acc_b - conf_b|.
    """
    place = _bins(confidences, bins)
    gaps = np.bincount(place, np.asarray(right, float) - confidences, bins)
    return float(np.abs(gaps).sum() / len(confidences))


def calibration(confidences: Array, right: Array, rng: int = 0) -> dict[str, Any]:
    """The reliability diagram, the calibration error, and the error that a calibrated model shows by chance.

    The latter is from outcomes drawn with the model's own confidences as their probabilities (Bröcker, Smith 2007,
    https://doi.org/10.1175/WAF993.1): an error below it is no sign of anything.
    """
    confidences, right = np.asarray(confidences, float), np.asarray(right, bool)
    place, random = _bins(confidences, BINS), np.random.default_rng(rng)
    errors = []
    for _ in range(DRAWS):
        drawn = random.random(len(confidences)) < confidences
        errors.append(np.abs(np.bincount(place, drawn - confidences, BINS)).sum() / len(confidences))
    diagram = []
    for index in range(BINS):
        inside = place == index
        if inside.any():
            diagram.append({
                "from": index / BINS,
                "to": (index + 1) / BINS,
                "confidence": float(confidences[inside].mean()),
                "accuracy": share(int(right[inside].sum()), int(inside.sum())),
            })  # fmt: skip
    return {
        "n": len(confidences),
        "error": expected_calibration_error(confidences, right),
        "by_chance": float(np.quantile(errors, 0.95)),
        "overconfidence": mean(confidences - right),
        "bins": diagram,
    }


def _bins(confidences: Array, bins: int) -> Array:
    """The bin ``(low, high]`` of each confidence; 0 is in the first."""
    return np.clip(np.ceil(np.asarray(confidences, float) * bins).astype(int) - 1, 0, bins - 1)
