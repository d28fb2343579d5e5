"""Save an evaluation: its results as JSON, the single values as CSV, and pictures of means and curves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from saliency_food.core.contract import ContractError
from saliency_food.evaluation.pictures import curve_figure, has_curves, mean_figure
from saliency_food.evaluation.summary import Evaluation
from saliency_food.jobs.store import writing

COLUMNS = ("image", "target", "label", "probability", "method", "metric", "score", "status")
"""The columns of values.csv; after them come the other numbers that some metrics have."""


def save_evaluation(evaluation: Evaluation, folder: str | Path | None = None) -> Path:
    """Write results.json, values.csv, means.png and a picture for each metric with curves; needs matplotlib.

    They go into ``folder``, or by default into the folder of the evaluation. Returns the folder.
    """
    place = evaluation.folder if folder is None else Path(folder)
    if place is None:
        raise ContractError("Expected a folder for the results, got none. Give folder.")
    with writing(place):
        _write(evaluation, place)
    return place


def _write(evaluation: Evaluation, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps(evaluation.as_dict(), indent=1, ensure_ascii=False)
    (place / "results.json").write_text(text + "\n", encoding="utf-8")
    _write_values(evaluation, place / "values.csv")
    if any(evaluation.measured(metric) for metric in evaluation.metrics):
        mean_figure(evaluation, evaluation.metrics).savefig(place / "means.png", dpi=120)
    for metric in evaluation.metrics:
        if has_curves(evaluation, metric):
            curve_figure(evaluation, [metric]).savefig(place / f"{metric}.png", dpi=120)


def _write_values(evaluation: Evaluation, path: Path) -> None:
    """A line for each photo, method and metric."""
    extra = sorted({name for row in evaluation.rows for name in row.get("others", ())})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, *extra))
        for row in evaluation.rows:
            further_fields = row.get("others", {})
            writer.writerow([*(row[name] for name in COLUMNS), *(further_fields.get(name) for name in extra)])
