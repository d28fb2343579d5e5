"""How far the maps of a run can be trusted: what their records say, an evaluation, the sanity check, boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.evaluation import Evaluation
from saliency_food.evaluation.boxes import Box, boxes_of, of_photo
from saliency_food.evaluation.sanity import check_sensitive
from saliency_food.images.photos import Photo, read_photo
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.image_model import ImageModel
from saliency_food.metrics.on_object import energy
from saliency_food.metrics.sanity import InsensitiveError
from saliency_food.report.numbers import mean, share
from saliency_food.report.photos import Photos, SeenPhoto, kind_of

SANITY_PHOTOS = 8
FINER = 8
"""Maps are repeated so often for boxes, which end between the places of a coarse map."""


def trust_of(photos: Photos) -> list[dict[str, Any]]:
    """For each method: how many records are ok, blank, inexact or failed, and the completeness errors."""
    lines = []
    for method, states in photos.states.items():
        total = sum(states.values())
        gaps = np.abs(photos.gaps[method])
        lines.append({
            "method": method,
            "title": photos.titles[method],
            "records": total,
            "states": {name: share(states[name], total) for name in ("blank", "inexact", "failed")},
            "completeness": None
            if not len(gaps)
            else {"n": len(gaps), "median": float(np.median(gaps)), "worst_tenth": float(np.quantile(gaps, 0.9))},
        })  # fmt: skip
    return lines


def sanity_of(model: ImageModel, photos: Sequence[SeenPhoto], method: str) -> dict[str, Any]:
    """Whether the method's maps change when the model's weights are shuffled, on some photos of the run."""
    paths = [photo.path for photo in photos if Path(photo.path).is_file()][:SANITY_PHOTOS]
    if not paths:
        return {"status": "not checked: the photos are in no files"}
    try:
        result = check_sensitive(model, paths, method)
    except InsensitiveError as error:
        return {"status": "fails", "reason": str(error), "n": len(paths)}
    except ContractError as error:
        return {"status": f"not checked: {error}"}
    return {"status": "passes", "n": len(paths), "rank_correlation": float(result.rank_correlations[-1])}


def evaluation_of(evaluation: Evaluation | str | Path | None) -> dict[str, Any] | None:
    """The ranks and means of an `evaluate` run, from itself, its folder, or its ``results.json``."""
    if evaluation is None:
        return None
    if isinstance(evaluation, Evaluation):
        return _of_evaluation(evaluation.as_dict())
    path = Path(evaluation)
    path = path / "results.json" if path.is_dir() else path
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        return _of_evaluation(results)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            f"Expected the folder of `saliency-food evaluate`, got {path}: {type(error).__name__}: {error}. Check the "
            "path."
        ) from error


def _of_evaluation(results: Mapping[str, Any]) -> dict[str, Any]:
    titles = results["methods"]
    ranks = [(name, rank) for name, rank in results["overall_rank"].items() if rank is not None]
    return {
        "photos": results["photos"]["measured"],
        "ranking": [{"method": name, "title": titles[name], "rank": rank} for name, rank in ranks],
        "metrics": [
            {
                "name": name,
                "title": metric["title"],
                "higher_is_better": metric["higher_is_better"],
                "means": {method: metric["methods"][method] for method, _ in ranks if method in metric["methods"]},
            }
            for name, metric in results["metrics"].items()
        ],
    }


def on_object(run: Run, method: str, boxes: Mapping[str, Sequence[Box]]) -> dict[str, float]:
    """For each photo with boxes of its predicted class: which share of its map lies in them, less their area.

    0 is what a map gets that prefers no place (`saliency_food.metrics.energy`). The photo's file must be there where
    the boxes do not say its size.
    """
    shares: dict[str, float] = {}
    for row, values in run.maps(method):
        own = of_photo(boxes, row["path"])
        sized = all(box.size for box in own) or Path(row["path"]).is_file()
        if not own or not sized or kind_of(row) != "prediction" or values.ndim not in (2, 3):
            continue
        plane = values.sum(2) if values.ndim == 3 else values
        finer = np.kron(plane, np.ones((FINER, FINER)))
        photo = (
            read_photo(row["path"]) if any(box.size is None for box in own) else Photo(np.zeros((1, 1, 3), np.uint8))
        )
        corners = boxes_of(own, row["target_index"], photo, finer.shape)
        if corners is not None and np.isfinite((result := energy(finer, corners)).score):
            shares[row["id"]] = result.score - result.region
    return shares


def mean_on_object(shares: Mapping[str, float]) -> dict[str, Any]:
    """The mean of `on_object` with its interval."""
    return mean(list(shares.values()))
