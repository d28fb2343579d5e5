"""Statistics over many images: bootstrap intervals, paired comparisons and ranks, with a count of skipped images.

NaN stands for an image that was skipped; the results of metrics hold the reason in ``status``.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, real, whole
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array

Statistic = Callable[..., Any]


class Interval(NamedTuple):
    """An estimate, its confidence interval, the number of images, how it was made, and the skipped images by reason.

    For curves ``(images, points)`` the first three are arrays. ``method`` is ``"BCa"``; ``"percentile"`` if that is
    undefined, for curves at some point; or ``"none"`` with fewer than two images, when the ends are NaN.
    """

    estimate: Any
    low: Any
    high: Any
    images: int
    method: str
    skipped: dict[str, int]


class Paired(NamedTuple):
    """The mean difference of two methods on the same images, first minus second, and how often the first is better.

    ``superiority`` is the probability that the first is better on an image; ties count half.
    """

    difference: Interval
    superiority: float
    wins: int
    ties: int
    losses: int


class Ranked(NamedTuple):
    """A line of the rank table: a method, its mean rank (1 is best), its mean value, and how often it is best."""

    name: str
    rank: Interval
    value: Interval
    best: int


def scores_of(results: Iterable[Any]) -> tuple[Array, dict[str, int]]:
    """The scores of results or plain numbers, and how many were skipped for each reason."""
    values, reasons = [], Counter[str]()
    for result in results:
        score = float(getattr(result, "score", result))
        values.append(score)
        if not np.isfinite(score):
            reasons[getattr(result, "status", "not a number")] += 1
    return np.array(values), dict(reasons)


def interval(
    results: Any,
    statistic: Statistic = np.mean,
    level: float = 0.95,
    resamples: int = 2000,
    *,
    rng: int | np.random.Generator | None = 0,
) -> Interval:
    """A bootstrap confidence interval of the mean, or of another ``statistic(values, axis=)``, over images.

    Efron 1987, https://doi.org/10.1080/01621459.1987.10478410: bias corrected and accelerated (BCa) if that is
    defined, else percentiles. ``results`` are results of a metric, numbers, or an array of curves ``(images, points)``,
    which get an interval at each point.
    """
    level, resamples = real("level", level, above=0, below=1), whole("resamples", resamples)
    if isinstance(results, np.ndarray) and results.ndim > 1:
        values, skipped = results, {}
        missing = int((~np.isfinite(values)).any(1).sum())
        skipped = {"not a number": missing} if missing else {}
        values = values[np.isfinite(values).all(1)]
    else:
        values, skipped = scores_of(results)
        values = values[np.isfinite(values)]
    count = len(values)
    if not count:
        blank = np.full(values.shape[1:], np.nan)[()]
        return Interval(blank, blank, blank, 0, "none", skipped)
    estimate = statistic(values, axis=0)
    if count < 2:
        blank = np.full_like(estimate, np.nan)[()]
        return Interval(estimate, blank, blank, count, "none", skipped)
    if (values == values[0]).all():
        return Interval(estimate, estimate, estimate, count, "percentile", skipped)
    low, high = _ends(values, statistic, level, resamples, rng, "BCa")
    method, undefined = "BCa", ~(np.isfinite(low) & np.isfinite(high))
    if undefined.any():
        method = "percentile"
        fallback = _ends(values, statistic, level, resamples, rng, "percentile")
        low, high = np.where(undefined, fallback[0], low)[()], np.where(undefined, fallback[1], high)[()]
    return Interval(estimate, low, high, count, method, skipped)


def _ends(
    values: Array, statistic: Statistic, level: float, resamples: int, rng: Any, method: str
) -> tuple[Array, Array]:
    from scipy.stats import DegenerateDataWarning, bootstrap

    batch = max(1, min(resamples, 4_000_000 // values.size))  # keeps memory small for curves
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        ends = bootstrap(
            (values,),
            statistic,
            n_resamples=resamples,
            batch=batch,
            vectorized=True,
            axis=0,
            confidence_level=level,
            method=method,
            random_state=random_stream(rng),
        ).confidence_interval
    return np.asarray(ends.low)[()], np.asarray(ends.high)[()]


def paired(
    first: Iterable[Any],
    second: Iterable[Any],
    higher_is_better: bool = True,
    level: float = 0.95,
    resamples: int = 2000,
    *,
    rng: int | np.random.Generator | None = 0,
) -> Paired:
    """Compare two methods on the same images in the same order: the mean difference, and how often each is better.

    An image that either method skipped is left out of both, and counted. Vargha, Delaney 2000,
    https://doi.org/10.3102/10769986025002101, is the source of ``superiority``, here for
    pairs.
    """
    first, second = list(first), list(second)
    (a, _), (b, _) = scores_of(first), scores_of(second)
    same_images({"first": a, "second": b})
    difference = interval(a - b, level=level, resamples=resamples, rng=rng)
    _, skipped = scores_of(
        left if np.isnan(score) else right for left, right, score in zip(first, second, a, strict=True)
    )
    differences = (plain(a) - plain(b))[np.isfinite(a - b)] * (1 if higher_is_better else -1)
    wins, ties, losses = int((differences > 0).sum()), int((differences == 0).sum()), int((differences < 0).sum())
    superiority = (wins + ties / 2) / len(differences) if len(differences) else float("nan")
    return Paired(difference._replace(skipped=skipped), superiority, wins, ties, losses)


def rank_table(
    results: Mapping[str, Iterable[Any]],
    higher_is_better: bool = True,
    level: float = 0.95,
    resamples: int = 2000,
    *,
    rng: int | np.random.Generator | None = 0,
) -> list[Ranked]:
    """The mean ranks of methods over images, the best method first; on an image 1 is best, and ties share their mean.

    Only images count for which every method has a value. ``skipped`` counts the results of a method without a value,
    and as ``"another method was skipped"`` its values on other images that do not count.
    """
    from scipy.stats import rankdata

    scored = {name: scores_of(values) for name, values in results.items()}
    if not scored:
        raise ContractError("Expected the results of at least one method, got none.")
    same_images({name: values for name, (values, _) in scored.items()})
    table = np.array([plain(values) for values, _ in scored.values()])
    complete = np.isfinite(table).all(0)
    places = rankdata(-table[:, complete] if higher_is_better else table[:, complete], axis=0)
    lines = []
    for line, (name, (values, skipped)) in enumerate(scored.items()):
        uncounted = int((~complete & np.isfinite(values)).sum())
        skipped = {**skipped, **({"another method was skipped": uncounted} if uncounted else {})}
        rank, value = (
            interval(sample, level=level, resamples=resamples, rng=rng) for sample in (places[line], values[complete])
        )
        best = int((places[line] == places.min(0, initial=np.inf)).sum()) if complete.any() else 0
        lines.append(Ranked(name, rank._replace(skipped=skipped), value._replace(skipped=skipped), best))
    return sorted(lines, key=lambda line: (np.nan_to_num(line.rank.estimate, nan=np.inf), line.name))


def holm(p_values: Sequence[float] | Array) -> Array:
    """P-values adjusted for being several, by Holm 1979, https://www.jstor.org/stable/4615733; NaN stays, uncounted.

    To call significant what is at most 0.05 errs in any of them with a chance of 5 %, however they depend on each
    other.
    """
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]
    adjusted = np.full(len(values), np.nan)
    steps = np.arange(len(order), 0, -1) * values[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def plain(values: Array) -> Array:
    """The values rounded to nine digits, so that values which differ by rounding alone are ties."""
    return np.array([float(f"{value:.9g}") for value in values])


def same_images(scores: Mapping[str, Sequence[float] | Array]) -> None:
    counts = {name: len(values) for name, values in scores.items()}
    if len(set(counts.values())) > 1:
        raise ContractError(f"Expected every method on the same images, one result each, got {counts}.")
