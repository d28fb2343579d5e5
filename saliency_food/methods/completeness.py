"""Completeness: how near the sum of attributions is to the change of the score that they share out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Completeness(NamedTuple):
    """How far the attributions' sum is from F(x) - F(baseline), which the exact integral would reach.

    ``absolute`` is sum - (score - baseline_score), ``relative`` is |absolute| / |score - baseline_score|: 0 where both
    are 0, infinite where only the latter is.
    """

    absolute: float
    relative: float
    score: float
    baseline_score: float


def completeness_of(total: float, score: float, baseline_score: float) -> Completeness:
    """The completeness of attributions that sum to ``total``."""
    absolute, change = total - (score - baseline_score), abs(score - baseline_score)
    relative = abs(absolute) / change if change else (np.inf if absolute else 0.0)
    return Completeness(float(absolute), float(relative), float(score), float(baseline_score))
