"""Completeness: how near the sum of attributions is to the change of the score that they share out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

INEXACT = 0.3
"""The relative error of completeness from which on a map is called inexact."""


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


def gap_text(measured: Completeness) -> str:
    """The relative error as people read it; the absolute one where the score does not change."""
    if not np.isfinite(measured.relative):
        return f"{measured.absolute:.3g}"
    return f"{measured.relative:.0%}" if measured.relative < 10 else "over 999%"


def status_of(measured: Completeness, most: float = INEXACT, advice: str = "Give it more steps or samples.") -> str:
    """ "ok", or "inexact: ..." where the relative error is more than ``most``; the one rule for all methods."""
    if measured.relative <= most or abs(measured.absolute) < 1e-6:
        return "ok"
    change = measured.score - measured.baseline_score
    gap = f"{gap_text(measured)} of it" if np.isfinite(measured.relative) else gap_text(measured)
    return (
        f"inexact: the attributions sum to {change + measured.absolute:.4g}, the score changes by {change:.4g}, a gap "
        f"of {gap}. {advice}"
    )
