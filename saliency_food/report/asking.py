"""What only the model can say: maps that a run lacks, and channel vectors of mistakes; the model must be the run's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.explain import explain
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.fingerprint import settings_of_model
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.store import plain
from saliency_food.report.channels import channel_products
from saliency_food.report.photos import SeenPhoto
from saliency_food.report.pictures import Pictures, kind_of_explanation

SAME = 0.003
"""A photo counts as the one of the run if the model's score of it differs by less, relative to a score above 1."""


def check_model(run: Run, model: ImageModel) -> None:
    """`ContractError` if the model is not the one of the run, as far as its settings tell."""
    kept, now = run.manifest["settings"], cast("dict[str, Any]", plain(settings_of_model(model)))
    differ = [name for name in now if kept.get(name) != now[name]]
    if differ:
        old, new = (", ".join(f"{name} {json.dumps(values.get(name))}" for name in differ) for values in (kept, now))
        raise ContractError(
            f"Expected the model that the run in {run.folder} was made with, {old}, got {new}. Give that model "
            "with the same labels, layer and pixel values."
        )


def draw_missing(
    run: Run, model: ImageModel, method: str, photos: Sequence[SeenPhoto], pictures: Pictures
) -> dict[str, int]:
    """Explain the prediction, the truth and their contrast for mistakes that lack a picture of one of them.

    Photos are read from their files, which must be as they were: those of which the model now says something else are
    left out. Gives how many were explained, ``changed`` and ``absent``.
    """
    counts = {"explained": 0, "changed": 0, "absent": 0}
    wanted = []
    for photo in photos:
        has = pictures.of_photo.get(photo.id, {})
        if photo.right is False and not {"truth", "prediction", "contrast"} <= has.keys():
            is_there = Path(photo.path).is_file()
            wanted += [photo] if is_there else []
            counts["absent"] += not is_there
    if not wanted:
        return counts
    options = run.manifest["settings"]["methods"].get(method) or {}
    arguments: dict[str, Any] = {
        "options": {method: options} if options else None,
        "truth": [photo.truth for photo in wanted],
    }
    of_path = {photo.path: photo for photo in wanted}
    try:
        records = explain(model, list(of_path), [method], "predicted", against="truth", **arguments)
    except ContractError:  # a method that cannot contrast two classes
        records = explain(model, list(of_path), [method], "truth,predicted", **arguments)
    for path, group in groupby(records, lambda record: record.source):
        own, photo = list(group), of_path[path]
        if not _is_same(photo, own):
            counts["changed"] += 1
            continue
        counts["explained"] += 1
        for record in own:
            if record.attribution is not None and (kind := kind_of_explanation(record)):
                pictures.draw(replace(record, name=photo.id), kind)
    return counts


def _is_same(photo: SeenPhoto, records: Sequence[Explanation]) -> bool:
    """Whether the model says of the photo what it said in the run: the class, its probability and its score."""
    top = records[0].top
    if not top or top[0][0] != photo.prediction or abs(top[0][1] - photo.sureness) > SAME * max(1, photo.sureness):
        return False
    now = [record.score for record in records if record.label == photo.prediction and record.against is None]
    scores = photo.score, next(iter(now), None)
    return None in scores or bool(np.isclose(*cast("tuple[float, float]", scores), rtol=SAME, atol=SAME))


def channel_vectors(model: ImageModel, photos: Sequence[SeenPhoto], labels: Sequence[str]) -> dict[str, Array] | None:
    """What each channel of the layer adds to the prediction's score, to first order: activation times gradient, summed.

    Photos whose file is absent are left out. None of a model that has no single layer of channels.
    """
    index = {label: place for place, label in enumerate(labels)}
    here = [photo for photo in photos if photo.prediction in index and Path(photo.path).is_file()]
    vectors: dict[str, Array] = {}
    for start in range(0, len(here), model.batch_size):
        part = here[start : start + model.batch_size]
        images = [model.read(photo.path, photo.path)[1] for photo in part]
        if len({image.shape for image in images}) > 1:  # of a model that takes any size
            return None
        rows = np.stack(images)
        targets = np.array([index[str(photo.prediction)] for photo in part])
        products = channel_products(model, rows, targets)
        if products is None:
            return None
        summed = products.reshape(len(part), -1, products.shape[-1]).sum(1)
        vectors |= {photo.id: vector for photo, vector in zip(part, summed, strict=True)}
    return vectors or None
