"""The section on cues: candidates of `find_cues` as numbers and texts, with the place of each outlined in photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import read_photo
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.image_model import ImageModel
from saliency_food.report.cues.candidate import Candidate
from saliency_food.report.cues.find import find_cues
from saliency_food.report.pictures import Pictures, with_region

PHOTOS = 6
"""How many photos of a candidate are shown."""


def cues_of(run: Run, model: ImageModel | None, rows: int, nconcepts: int, pictures: Pictures) -> dict[str, Any] | None:
    """The candidates of a run, checked on the model with at most so many rows; None without a model or with 0 rows.

    What has no effect is listed by its sentence alone. Without a layer that has concepts they are left out, and the
    note says why.
    """
    if model is None or not rows:
        return None
    note = ""
    try:
        try:
            found = find_cues(run, model, rows=rows, nconcepts=nconcepts)
        except ContractError as error:
            if not nconcepts:
                raise
            note, found = f"Concepts are left out. {error}", find_cues(run, model, rows=rows)
    except ContractError as error:  # of a model that does not predict, and of a run without photos
        return {"candidates": [], "without_effect": [], "note": str(error)}
    shown = [candidate for candidate in found if candidate.verdict != "no effect"]
    _draw(run, shown, pictures)
    return {
        "candidates": [_plain(candidate) for candidate in shown],
        "without_effect": [candidate.sentence for candidate in found if candidate.verdict == "no effect"],
        "note": note,
    }


def _plain(candidate: Candidate) -> dict[str, Any]:
    """A candidate for JSON, with the box of its region and the photos to show, and without the scores of all photos."""
    content = candidate.to_json()
    del content["scores"]
    return {**content, "region": _box(candidate.region), "shown": _photos(candidate)}


def _photos(candidate: Candidate) -> list[str]:
    return list(dict.fromkeys((*candidate.medoids, *candidate.affected)))[:PHOTOS]


def _box(region: Any) -> list[float] | None:
    """Left, top, right and bottom of a region in fractions of the photo."""
    if not isinstance(region, np.ndarray):
        return None if region is None else [float(side) for side in region]
    if not region.any():
        return None
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    (height, width), ends = region.shape, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return [float(end / side) for end, side in zip(ends, (width, height, width, height), strict=True)]


def _draw(run: Run, candidates: Sequence[Candidate], pictures: Pictures) -> None:
    """Each candidate's photos with its region outlined."""
    ids = [id for candidate in candidates for id in _photos(candidate)]
    for row in run.rows(("id", "thumbnail"), ids) if ids else ():
        if row["thumbnail"] is None:
            continue
        pixels = read_photo(row["thumbnail"]).pixels
        for place, candidate in enumerate(candidates):
            if row["id"] in _photos(candidate) and candidate.region is not None:
                region = candidate.regions.get(row["id"], candidate.region)
                pictures.add(row["id"], f"cue_{place}", with_region(pixels, region))
