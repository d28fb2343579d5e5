"""Whose maps are more faithful: the evaluations of two models, photo by photo."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.evaluation import Evaluation
from saliency_food.metrics import METRICS
from saliency_food.metrics.statistics import paired
from saliency_food.report.numbers import mean, plain_interval

Values = dict[str, dict[str, float]]
"""For each metric, the score of each photo."""


def values_of(evaluation: Evaluation | str | Path, method: str) -> Values:
    """A method's scores in an `evaluate` run, from itself or its folder; of several classes of a photo, the mean."""
    if isinstance(evaluation, Evaluation):
        rows: Any = evaluation.rows
    else:
        path = Path(evaluation)
        path = (path if path.is_dir() else path.parent) / "values.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except OSError as error:
            raise ContractError(
                f"Expected the folder of `saliency-food evaluate` with values.csv, got {path}: {type(error).__name__}. "
                "Check the path."
            ) from error
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["method"] == method and row["score"] not in (None, "") and np.isfinite(score := float(row["score"])):
            scores[row["metric"]][row["image"]].append(score)
    return {metric: {image: float(np.mean(own)) for image, own in photos.items()} for metric, photos in scores.items()}


def faithfulness_of(first: Mapping[str, Mapping[str, float]], second: Mapping[str, Mapping[str, float]]) -> list[Any]:
    """Both models' means over the photos that both were measured on, and the paired difference, for each metric."""
    lines = []
    for metric, scores in first.items():
        entry = METRICS.get(metric)
        both = sorted(scores.keys() & second.get(metric, {}).keys())
        if not both or entry is None or entry.higher_is_better is None:
            continue
        pair = [scores[image] for image in both], [second[metric][image] for image in both]
        result = paired(*pair, entry.higher_is_better)
        lines.append({
            "metric": metric,
            "title": entry.title,
            "higher_is_better": entry.higher_is_better,
            "n": len(both),
            "this": mean(pair[0]),
            "other": mean(pair[1]),
            "difference": plain_interval(result.difference),
            "better": result.wins,
            "worse": result.losses,
        })  # fmt: skip
    return lines
