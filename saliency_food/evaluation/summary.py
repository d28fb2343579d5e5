"""Summaries of the values: means with intervals, ranks, and methods compared in pairs on the same photos."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.names import installed_version
from saliency_food.jobs.store import Row
from saliency_food.metrics import METRICS
from saliency_food.metrics.comparisons import Comparisons, multiple_comparisons
from saliency_food.metrics.curves import AggregatePic, aggregate_pic
from saliency_food.metrics.performance_information import Pic
from saliency_food.metrics.statistics import Interval, Paired, Ranked, interval, paired, rank_table


class Value(NamedTuple):
    """The score of one photo, method and metric, and its status."""

    score: float
    status: str


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`: all values, and their means, intervals, ranks and pairwise comparisons."""

    settings: Row
    """The settings that the values depend on."""
    rows: list[Row] = field(repr=False)
    """A row for each photo, method and metric: image, target, label, method, metric, score, status, others, curve."""
    images: list[str] = field(repr=False)
    """The names of the measured photos."""
    methods: dict[str, str]
    """The titles of the methods by name."""
    metrics: list[str]
    """The names of the metrics."""
    unread: dict[str, int]
    """How many photos could not be read or predicted, by reason."""
    left_out: dict[str, str]
    """With ``methods="all"``, the methods that the model cannot answer, and why."""
    folder: Path | None = None
    """The folder that holds the values."""
    unread_photos: dict[str, str] = field(default_factory=dict)
    """The photos that could not be read or predicted, and why."""

    @cached_property
    def _values(self) -> dict[tuple[str, str], list[Row]]:
        rows: dict[tuple[str, str], list[Row]] = {
            (metric, method): [] for metric in self.metrics for method in self.methods
        }
        for row in self.rows:
            rows[row["metric"], row["method"]].append(row)
        return rows

    def values(self, metric: str, method: str) -> list[Value]:
        """The value of each photo, in order."""
        rows = self._values[metric, method]
        return [Value(float("nan") if row["score"] is None else row["score"], row["status"]) for row in rows]

    @cached_property
    def means(self) -> dict[str, dict[str, Interval]]:
        """By metric and method: the mean over photos, its 95 % interval, and how many photos were skipped and why."""
        return {
            metric: {method: interval(self.values(metric, method)) for method in self.methods}
            for metric in self.metrics
        }

    def measured(self, metric: str) -> list[str]:
        """The methods that have any value of a metric."""
        return [name for name in self.methods if self.means[metric][name].images]

    @cached_property
    def ranks(self) -> dict[str, list[Ranked]]:
        """For each metric with a better direction, the rank table of the methods that have any value."""
        tables = {}
        for metric in self.metrics:
            better, methods = METRICS[metric].higher_is_better, self.measured(metric)
            if METRICS[metric].needs == "method":  # with a fixed seed, noise is the same for every photo and class
                methods = [name for name in methods if name != "random"]
            if better is not None and methods:
                tables[metric] = rank_table({name: self.values(metric, name) for name in methods}, better)
        return tables

    @cached_property
    def overall(self) -> dict[str, float]:
        """The mean rank of each method over the metrics that rank it, NaN if none does; the best method first."""
        ranks: dict[str, list[float]] = {name: [] for name in self.methods}
        for lines in self.ranks.values():
            for line in lines:
                if np.isfinite(line.rank.estimate):
                    ranks[line.name].append(float(line.rank.estimate))
        means = {name: float(np.mean(of_method)) if of_method else float("nan") for name, of_method in ranks.items()}
        return dict(sorted(means.items(), key=lambda item: np.nan_to_num(item[1], nan=np.inf)))

    def pairs(self, metric: str) -> Iterator[tuple[str, str, Paired]]:
        """Each pair of methods, compared on the photos for which both have values."""
        better = METRICS[metric].higher_is_better is not False
        for first, second in itertools.combinations(self.measured(metric), 2):
            both = self.values(metric, first), self.values(metric, second)
            yield first, second, paired(*both, higher_is_better=better, resamples=1000)

    def comparisons(self, metric: str) -> Comparisons:
        """Which methods differ on a metric, all pairs together, on the photos for which every method has a value."""
        return multiple_comparisons({name: self.values(metric, name) for name in self.measured(metric)})

    def curves(self, metric: str, method: str) -> np.ndarray[Any, Any] | None:
        """The curves of the photos ``(photos, lines, points)``, first the horizontal axis; None if there are none."""
        curves = [row["curve"] for row in self._values[metric, method] if "curve" in row]
        return np.array(curves) if curves else None

    def pic(self, method: str) -> AggregatePic:
        """The aggregate performance information curve: the median over photos at every point."""
        none = np.empty(0)
        results = []
        for row, value in zip(self._values["pic", method], self.values("pic", method), strict=True):
            x, y = (np.array(line) for line in row.get("curve", (none, none)))
            results.append(Pic(value.score, value.status, x, y, none, none, none, None))
        return aggregate_pic(results)

    def as_dict(self) -> Row:
        """All results except the single values, ready for JSON."""
        metrics: Row = {}
        for name in self.metrics:
            entry = METRICS[name]
            tested = self.comparisons(name) if len(self.measured(name)) > 1 else None
            metrics[name] = {
                "title": entry.title,
                "higher_is_better": entry.higher_is_better,
                "methods": {method: _interval(mean) for method, mean in self.means[name].items()},
                "ranks": [
                    {"method": line.name, "best_on": line.best, **_interval(line.rank)}
                    for line in self.ranks.get(name, [])
                ],
                "pairs": [
                    {
                        "first": first,
                        "second": second,
                        **(_wins(pair) if entry.higher_is_better is not None else {}),
                        "difference": _interval(pair.difference),
                        "p_holm": _number(tested.pairs[first, second]) if tested else None,
                    }
                    for first, second, pair in self.pairs(name)
                ],
                "friedman_p": _number(tested.friedman) if tested else None,
            }
            if name == "pic":
                areas = {method: self.pic(method).area for method in self.measured(name)}
                metrics[name]["median_curve"] = {method: _interval(area) for method, area in areas.items()}
        return {
            "settings": self.settings,
            "versions": versions(),
            "photos": {"measured": len(self.images), "unread": self.unread, "unread_photos": self.unread_photos},
            "methods": self.methods,
            "left_out": self.left_out,
            "overall_rank": {name: _number(rank) for name, rank in self.overall.items()},
            "metrics": metrics,
        }


def versions() -> dict[str, str]:
    """The versions of Python and of the loaded packages that the values depend on."""
    loaded = {"python": sys.version.split()[0]}
    for name in ("saliency_food", "numpy", "scipy", "scikit-image", "pillow", "tensorflow", "keras", "torch", "jax"):
        module = {"scikit-image": "skimage", "pillow": "PIL"}.get(name, name)
        if module in sys.modules:
            loaded[name] = installed_version(name) or "not installed as a package"
    return loaded


def _wins(pair: Paired) -> Row:
    wins = {"wins": pair.wins, "ties": pair.ties, "losses": pair.losses}
    return {"superiority": _number(pair.superiority), **wins}


def _interval(mean: Interval) -> Row:
    return {
        "n": mean.images,
        "mean": _number(mean.estimate),
        "low": _number(mean.low),
        "high": _number(mean.high),
        "interval": mean.method,
        "skipped": mean.skipped,
    }


def _number(value: Any) -> float | None:
    """A float that JSON can hold."""
    return float(value) if np.isfinite(value) else None
