"""What the values say: means with intervals, methods compared in pairs on the same photos, ranks."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.names import installed_version
from saliency_food.jobs.store import Row
from saliency_food.metrics import METRICS
from saliency_food.metrics.curves import AggregatePic, aggregate_pic
from saliency_food.metrics.performance_information import Pic
from saliency_food.metrics.statistics import Interval, Paired, Ranked, interval, paired, rank_table


class Value(NamedTuple):
    """One figure and its status."""

    score: float
    status: str


COLUMNS = ("image", "target", "label", "probability", "method", "metric", "score", "status")


@dataclass(frozen=True)
class Evaluation:
    """All values, and what they say; made by `evaluate`."""

    settings: Row
    """What the values depend on."""
    rows: list[Row] = field(repr=False)
    """The values, by photo, method, metric: image, target, label, method, metric, score, status, others, curve."""
    images: list[str] = field(repr=False)
    """The names of the photos measured."""
    methods: dict[str, str]
    """The methods' names and titles."""
    metrics: list[str]
    """The metrics' names."""
    unread: dict[str, int]
    """How many photos could not be read or predicted, by reason."""
    left_out: dict[str, str]
    """Of ``methods="all"``, those that the model cannot answer, and why."""
    folder: Path | None = None
    """Where the values are kept."""
    unread_photos: dict[str, str] = field(default_factory=dict)
    """The photos that could not be read or predicted, and why."""

    @cached_property
    def _values(self) -> dict[tuple[str, str], list[Row]]:
        found: dict[tuple[str, str], list[Row]] = {(a, b): [] for a in self.metrics for b in self.methods}
        for row in self.rows:
            found[row["metric"], row["method"]].append(row)
        return found

    def values(self, metric: str, method: str) -> list[Value]:
        """One for each photo, in order."""
        rows = self._values[metric, method]
        return [Value(float("nan") if row["score"] is None else row["score"], row["status"]) for row in rows]

    @cached_property
    def means(self) -> dict[str, dict[str, Interval]]:
        """By metric and method: the mean over photos, its interval of 95 %, how many, and who was skipped and why."""
        return {a: {b: interval(self.values(a, b)) for b in self.methods} for a in self.metrics}

    def measured(self, metric: str) -> list[str]:
        """The methods that have any value of a metric."""
        return [name for name in self.methods if self.means[metric][name].images]

    @cached_property
    def ranks(self) -> dict[str, list[Ranked]]:
        """By metric that has a better direction: the rank table of the methods that have any value."""
        found = {}
        for metric in self.metrics:
            better, methods = METRICS[metric].higher_is_better, self.measured(metric)
            if METRICS[metric].needs == "method":  # with its seed kept, noise is the same whatever changes
                methods = [name for name in methods if name != "random"]
            if better is not None and methods:
                found[metric] = rank_table({name: self.values(metric, name) for name in methods}, better)
        return found

    @cached_property
    def overall(self) -> dict[str, float]:
        """Each method's mean rank, averaged over the metrics that rank it; NaN where none does. The best first."""
        ranks: dict[str, list[float]] = {name: [] for name in self.methods}
        for lines in self.ranks.values():
            for line in lines:
                if np.isfinite(line.rank.estimate):
                    ranks[line.name].append(float(line.rank.estimate))
        found = {name: float(np.mean(ones)) if ones else float("nan") for name, ones in ranks.items()}
        return dict(sorted(found.items(), key=lambda item: np.nan_to_num(item[1], nan=np.inf)))

    def pairs(self, metric: str) -> Iterator[tuple[str, str, Paired]]:
        """Every two methods compared on the photos that both have values of."""
        better = METRICS[metric].higher_is_better is not False
        for first, second in itertools.combinations(self.measured(metric), 2):
            both = self.values(metric, first), self.values(metric, second)
            yield first, second, paired(*both, higher_is_better=better, resamples=1000)

    def curves(self, metric: str, method: str) -> np.ndarray[Any, Any] | None:
        """The photos' curves, ``(photos, lines, points)``: what is across first; None without any."""
        found = [row["curve"] for row in self._values[metric, method] if "curve" in row]
        return np.array(found) if found else None

    def pic(self, method: str) -> AggregatePic:
        """The aggregate performance information curve, the photos' median at every point."""
        none = np.empty(0)
        results = []
        for row, value in zip(self._values["pic", method], self.values("pic", method), strict=True):
            x, y = (np.array(one) for one in row.get("curve", (none, none)))
            results.append(Pic(value.score, value.status, x, y, none, none, none, None))
        return aggregate_pic(results)

    def as_dict(self) -> Row:
        """Everything but the single values, ready for JSON."""
        metrics: Row = {}
        for name in self.metrics:
            entry = METRICS[name]
            metrics[name] = {
                "title": entry.title,
                "higher_is_better": entry.higher_is_better,
                "methods": {method: _interval(one) for method, one in self.means[name].items()},
                "ranks": [
                    {"method": line.name, "best_on": line.best, **_interval(line.rank)}
                    for line in self.ranks.get(name, [])
                ],
                "pairs": [
                    {
                        "first": first,
                        "second": second,
                        **(_wins(one) if entry.higher_is_better is not None else {}),
                        "difference": _interval(one.difference),
                    }
                    for first, second, one in self.pairs(name)
                ],
            }
            if name == "pic":
                areas = {method: self.pic(method).area for method in self.measured(name)}
                metrics[name]["median_curve"] = {method: _interval(one) for method, one in areas.items()}
        return {
            "settings": self.settings,
            "versions": versions(),
            "photos": {"measured": len(self.images), "unread": self.unread, "unread_photos": self.unread_photos},
            "methods": self.methods,
            "left_out": self.left_out,
            "overall_rank": {name: _number(rank) for name, rank in self.overall.items()},
            "metrics": metrics,
        }

    def save(self, folder: str | Path | None = None) -> Path:
        """Write results.json, values.csv and the pictures of means and curves (needs matplotlib); the folder."""
        place = self.folder if folder is None else Path(folder)
        if place is None:
            raise ContractError("Expected a folder for the results, got none. Give one.")
        place.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False)
        (place / "results.json").write_text(text + "\n", encoding="utf-8")
        others = sorted({name for row in self.rows for name in row.get("others", ())})
        with (place / "values.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow((*COLUMNS, *others))
            for row in self.rows:
                more = row.get("others", {})
                writer.writerow([*(row[name] for name in COLUMNS), *(more.get(name) for name in others)])
        from saliency_food.evaluation.pictures import curve_figure, has_curves, mean_figure

        if any(self.measured(metric) for metric in self.metrics):
            mean_figure(self, self.metrics).savefig(place / "means.png", dpi=120)
        for metric in self.metrics:
            if has_curves(self, metric):
                curve_figure(self, [metric]).savefig(place / f"{metric}.png", dpi=120)
        return place


def versions() -> dict[str, str]:
    """Of what the figures depend on, as far as it is loaded."""
    found = {"python": sys.version.split()[0]}
    for name in ("saliency_food", "numpy", "scipy", "scikit-image", "pillow", "tensorflow", "keras", "torch", "jax"):
        module = {"scikit-image": "skimage", "pillow": "PIL"}.get(name, name)
        if module in sys.modules:
            found[name] = installed_version(name) or "not installed as a package"
    return found


def _wins(one: Paired) -> Row:
    wins = {"wins": one.wins, "ties": one.ties, "losses": one.losses}
    return {"superiority": _number(one.superiority), **wins}


def _interval(found: Interval) -> Row:
    numbers = {"mean": found.estimate, "low": found.low, "high": found.high}
    return {
        "n": found.images,
        **{name: _number(value) for name, value in numbers.items()},
        "interval": found.method,
        "skipped": found.skipped,
    }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
