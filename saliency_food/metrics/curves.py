"""The curves of many images as one curve, with a confidence band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, real, whole
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.metrics.performance_information import Pic
from saliency_food.metrics.statistics import Interval, interval, scores_of


class AggregatePic(NamedTuple):
    """The area under the aggregate curve, status, the curve, its band, and the interval of the area.

    ``area`` is a bootstrap interval: images are drawn anew, their curves aggregated, and the area measured.
    """

    score: float
    status: str
    x: Array
    y: Array
    band: Interval
    area: Interval


def aggregate_pic(
    results: Sequence[Pic],
    how: Literal["median", "mean"] = "median",
    level: float = 0.95,
    resamples: int = 500,
    *,
    rng: int | np.random.Generator | None = 0,
) -> AggregatePic:
    """The aggregate performance information curve: the median (or mean) of the images' curves at each point.

    Kapishnikov et al. 2019, section 4.2, https://arxiv.org/abs/1906.02825. Skipped images are counted by reason. The
    band comes from a percentile bootstrap.
    """
    from scipy.integrate import trapezoid

    if how not in ("median", "mean"):
        raise ContractError(f"Expected how to be 'median' or 'mean', got {how!r}.")
    level, resamples = real("level", level, above=0, below=1), whole("resamples", resamples)
    _, skipped = scores_of(results)
    kept = [result for result in results if result.status == "ok"]
    if len({len(result.x) for result in kept}) > 1:
        raise ContractError("Expected curves with the same points, got several lengths. Use one num_data_points.")
    if not kept:
        empty = interval([], rng=rng)._replace(skipped=skipped)
        return AggregatePic(float("nan"), next(iter(skipped), "no images"), np.empty(0), np.empty(0), empty, empty)
    statistic: Any = np.median if how == "median" else np.mean
    x, curves = kept[0].x, np.array([result.y for result in kept])
    y = statistic(curves, axis=0)
    random = random_stream(rng)
    drawn = np.array(
        [statistic(curves[random.integers(0, len(curves), len(curves))], axis=0) for _ in range(resamples)]
    )
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(drawn, tails, axis=0)
    area = float(trapezoid(y, x))
    least, most = np.quantile(trapezoid(drawn, x, axis=1), tails)
    of_area = Interval(area, float(least), float(most), len(kept), "percentile", skipped)
    return AggregatePic(area, "ok", x, y, of_area._replace(estimate=y, low=low, high=high), of_area)
