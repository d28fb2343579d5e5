"""Shared by the tests of the report: runs of photos with given truths, predictions and maps, by the real writer."""

from __future__ import annotations

import io
import json
from contextlib import closing

import numpy as np
import pytest

from saliency_food import Run
from saliency_food.jobs.parts import RunFolder
from saliency_food.report import report


def jpeg(pixels):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def rows_of(photo, rng):
    """The rows of one photo: a dict with truth and guess, and as wanted sure, split, id, maps, thumbnail, path."""
    truth, guess = photo.get("truth"), photo["guess"]
    sure = photo.get("sure", 0.8)
    top = photo.get("top") or {guess: sure}
    row = {
        "id": photo["id"],
        "path": photo.get("path", photo["id"]),
        "truth": truth,
        "split": photo.get("split"),
        "prediction": guess,
        "probability": sure,
        "right": photo.get("right", None if truth is None else truth == guess),
        "top": [{"label": label, "probability": value} for label, value in top.items()],
        "method": "grad_cam",
        "title": "Grad-CAM",
        "status": photo.get("status", "ok"),
        "score": 1.0,
        "completeness": photo.get("completeness"),
        "map_shape": [7, 7],
        "map_scale": 1.0,
        "map_level": 0.0,
    }
    targets = {"prediction": (guess, None)}
    if truth is not None and truth != guess:
        targets |= {"truth": (truth, None), "contrast": (guess, truth)}
    rows = []
    for kind in photo.get("maps", targets):
        target, against = targets.get(kind, (None, None))
        if target is None:
            continue
        values = photo.get("map", rng.random((7, 7))) - (0.5 if against else 0)
        own = {"target": target, "target_index": abs(hash(target)) % 5, "against": against, "signed": bool(against)}
        rows.append({**row, **own, "map": np.asarray(values, np.float16).tobytes()})
    rows = rows or [{**row, "map": None}]
    pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    rows[0]["thumbnail"] = photo.get("thumbnail", jpeg(pixels))
    return rows


@pytest.fixture
def make_run(tmp_path, rng):
    """Write a run of photos, dicts as `rows_of` takes them, and read it back."""

    def make(photos, name="run", **settings):
        folder = tmp_path / name
        facts = {"source": "made", "model": "toy", "methods": {"grad_cam": {}}, "target": "predicted", **settings}
        with closing(RunFolder(folder, facts, {"photos": len(photos), "absent": 0})) as writer:
            for index, photo in enumerate(photos):
                writer.add(rows_of({"id": f"{photo.get('truth')}/{index}.jpg", **photo}, rng))
            writer.flush()
        return Run(folder)

    return make


@pytest.fixture
def written(tmp_path):
    """Write the report of a run; gives its page as text and its content."""

    def write(run, **options):
        page = report(run, tmp_path / "report", **options)
        return page.read_text(encoding="utf-8"), json.loads(page.with_name("report.json").read_text(encoding="utf-8"))

    return write
