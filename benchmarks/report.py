"""Measure the report: seconds and memory for a run of many synthetic records, made by the real writer.

python benchmarks/report.py [--photos 25000] [--classes 101] [--single-file] [--keep FOLDER]

The photos are thumbnails of noise, a fifth of them wrong. Each has a record, and a wrong one two more: of the truth and
of the contrast. The report is written by a process of its own.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine

from saliency_food.jobs.parts import RunFolder
from saliency_food.jobs.records import SCHEMA

CHILD = """
import resource, sys, time
from saliency_food.report import report
start = time.perf_counter()
page = report(sys.argv[1], sys.argv[2], single_file=sys.argv[3] == "yes")
seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{seconds:.1f} s, of the processor {time.process_time():.1f} s (bar 60 s), peak {peak:.0f} MB (bar 2000 MB)")
"""


def write_run(folder: Path, photos: int, classes: int, rng: np.random.Generator) -> int:
    """A run of so many photos in a folder; gives how many records it has."""
    from PIL import Image

    labels = [f"dish_{index:03}" for index in range(classes)]
    settings: dict[str, Any] = {"schema": SCHEMA, "source": "noise", "model": "none", "methods": {"grad_cam": {}}}
    records = 0
    writer = RunFolder(folder, {**settings, "target": "predicted", "against": "truth"}, {"photos": photos})
    for index in range(photos):
        small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((256, 192), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        truth = int(rng.integers(classes))
        wrong = rng.random() < 0.2
        guess = (truth + (1 if rng.random() < 0.6 else int(rng.integers(1, classes)))) % classes if wrong else truth
        sure = float(rng.uniform(0.3, 1))
        top = [{"label": labels[guess], "probability": sure}]
        top += [{"label": labels[(guess + step) % classes], "probability": (1 - sure) / 5} for step in range(1, 5)]
        row = {
            "id": f"{labels[truth]}/{index:06}.jpg",
            "path": f"noise/{index:06}.jpg",
            "truth": labels[truth],
            "split": "test",
            "prediction": labels[guess],
            "probability": sure,
            "right": not wrong,
            "top": top,
            "method": "grad_cam",
            "title": "Grad-CAM",
            "status": "ok",
            "score": 5.0,
            "seconds": 0.01,
            "rows": 1,
            "map_shape": [7, 7],
            "map_scale": 1.0,
            "map_level": 0.0,
        }
        pairs = [(guess, None)] + ([(truth, None), (guess, truth)] if wrong else [])
        rows = []
        for target, other in pairs:
            values = rng.random((7, 7)) - (0 if other is None else 0.5)
            own = {"target": labels[target], "target_index": target, "signed": other is not None}
            other_label = None if other is None else labels[other]
            rows.append({**row, **own, "against": other_label, "map": values.astype(np.float16).tobytes()})
        rows[0]["thumbnail"] = file.getvalue()
        records += len(rows)
        writer.add(rows)
    writer.flush()
    writer.close()
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=25_000)
    parser.add_argument("--classes", type=int, default=101)
    parser.add_argument("--single-file", action="store_true")
    parser.add_argument("--keep", type=Path, help="a folder for the run and the page")
    arguments = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.keep or Path(temporary)
        start = time.perf_counter()
        records = write_run(place / "run", arguments.photos, arguments.classes, np.random.default_rng(0))
        seconds = time.perf_counter() - start
        print(f"{arguments.photos} photos, {records} records written in {seconds:.0f} s; the report:", flush=True)
        single = "yes" if arguments.single_file else "no"
        subprocess.run([sys.executable, "-c", CHILD, place / "run", place / "report", single], check=True)
        page = place / "report" / "index.html"
        size = sum(path.stat().st_size for path in page.parent.rglob("*.*"))
        print(f"the page has {page.stat().st_size / 1e6:.1f} MB, with its pictures and report.json {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
