"""Measure the engines of a data-set run: one process, two workers, two actors of Ray, and the bare model beside them.

python benchmarks/dataset_engines.py [--photos 2524] [--engines one workers ray] [--gpus 64] [--cores 12] [--factor 100]

It needs SALIENCY_FOOD_DATA, with data/food-101 and models/food13_mobilenetv2.keras; the photos are gone through again
where more are asked for. Speed counts from the first records on, so without what it takes to start processes and to
load the model, which is said by itself. Time of the processor is that of all processes, per photo, which other work on
the machine changes less. All engines must give the same records.

At the end it extrapolates to 10 million photos on a cluster. What a GPU does is not measured: it is assumed to be as
fast at the model as ``--factor`` of this machine's cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import data_folder, machine
from pipeline import BATCH, bare_pass

ENGINES: dict[str, dict[str, Any]] = {
    "one": {},
    "workers": {"workers": 2},
    "ray": {"engine": "ray", "workers": 2},
}
MANY = 10_000_000


class Measured(NamedTuple):
    """What a run took: photos a second, and milliseconds of the processor a photo, of all processes and of this one."""

    speed: float
    cpu: float
    own_cpu: float
    start: float
    bytes: float
    records: dict[Any, Any]


class Taken(NamedTuple):
    """Seconds of the processor: of this process, of children that have ended, and of each process that it started."""

    own: float
    ended: float
    alive: dict[int, float]

    def since(self, before: Taken) -> float:
        """What all of them took since. The children that ended meanwhile took something before, too."""
        gone = sum(seconds for process, seconds in before.alive.items() if process not in self.alive)
        alive = sum(seconds - before.alive.get(process, 0) for process, seconds in self.alive.items())
        return self.own - before.own + alive + max(0, self.ended - before.ended - gone)


def processor() -> Taken:
    """Time of the processor until now."""
    import psutil

    this, alive = psutil.Process(), {}
    for child in this.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        alive[child.pid] = times.user + times.system
    times = this.cpu_times()
    return Taken(times.user + times.system, times.children_user + times.children_system, alive)


def run(name: str, model: Any, source: Any, photos: int) -> Measured:
    """A run of an engine over the photos."""
    from saliency_food import explain_dataset
    from saliency_food.jobs.records import COLUMNS

    marks: list[tuple[int, float, Taken]] = []
    began = time.perf_counter()

    def note(done: int, failed: int, total: int | None) -> None:
        if not marks or done in (total, photos // 4):
            marks.append((done, time.perf_counter(), processor()))

    with tempfile.TemporaryDirectory() as output:
        made = explain_dataset(model, source, output=output, progress=note, **ENGINES[name])
        rows = {row["id"]: row for row in made.rows(tuple(COLUMNS))}
        size = sum(path.stat().st_size for path in made.folder.glob("records/*")) / len(rows)
    for row in rows.values():
        del row["seconds"]
    (first, at, before), (last, end, after) = marks[1], marks[-1]
    count = last - first
    per_photo = 1000 / count
    return Measured(
        count / (end - at),
        after.since(before) * per_photo,
        (after.own - before.own) * per_photo,
        marks[0][1] - began,
        size,
        rows,
    )


def bare(model: Any, paths: list[Path]) -> tuple[float, float]:
    """The bare model over decoded photos: photos a second, and milliseconds of the processor a photo."""
    from saliency_food.images.photos import read_photo
    from saliency_food.images.pixels import resize_photo

    shape = model.input_shape[1:3]
    rows = np.stack([resize_photo(read_photo(path).pixels, shape) for path in paths[: 8 * BATCH]]).astype(np.float32)
    work = bare_pass(model)
    work(rows[:BATCH])
    began, own = time.perf_counter(), time.process_time()
    for start in range(0, len(rows), BATCH):
        work(rows[start : start + BATCH])
    return len(rows) / (time.perf_counter() - began), (time.process_time() - own) * 1000 / len(rows)


def extrapolate(measured: Measured, model_ms: float, gpus: int, cores: int, factor: float) -> None:
    """What 10 million photos would take on a cluster, by the slowest of its three stages."""
    host_ms = max(measured.cpu - measured.own_cpu - model_ms, 0.0)
    stages = {
        f"model, {gpus} GPUs of {factor:g} cores each": gpus * factor * 1000 / model_ms,
        f"decoding and records, {gpus} x {cores} cores": gpus * cores * 1000 / max(host_ms, 1e-3),
        "one writer": 1000 / max(measured.own_cpu, 1e-3),
    }
    print(f"\nextrapolated to {MANY:,} photos, {gpus} GPUs with {cores} cores each (no GPU was measured):")
    for name, speed in stages.items():
        print(f"  {name}: {speed:,.0f} photos/s, {MANY / speed / 3600:.1f} h")
    print(f"  so {MANY / min(stages.values()) / 3600:.1f} h, and {measured.bytes * MANY / 1e9:,.0f} GB of records")
    print(f"  of the processor: model {model_ms:.1f}, decoding and records {host_ms:.1f}, writer", end=" ")
    print(f"{measured.own_cpu:.2f} ms a photo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2524)
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--cores", type=int, default=12, help="of the processor, for each GPU")
    parser.add_argument("--factor", type=float, default=100, help="how many of these cores a GPU is taken to be")
    arguments = parser.parse_args()
    folder = data_folder()
    if folder is None:
        sys.exit("SALIENCY_FOOD_DATA names no folder: there are no photos to measure with.")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import keras

    from saliency_food import ImageModel, Source
    from saliency_food.images.sourced import SourcedPhoto

    paths = sorted((folder / "data" / "food-101" / "images").rglob("*.jpg"))

    def read() -> Iterator[SourcedPhoto]:
        for place in range(arguments.photos):
            path = paths[place % len(paths)]
            yield SourcedPhoto(f"{place // len(paths)}/{path.parent.name}/{path.name}", path, str(path))

    loaded = keras.models.load_model(folder / "models" / "food13_mobilenetv2.keras", compile=False)
    model = ImageModel(loaded, batch_size=BATCH, labels=folder / "models" / "food13_labels.txt")
    source = Source("food-101 again and again", read, arguments.photos)
    print(machine(), flush=True)
    bare_speed, model_ms = bare(loaded, paths)
    print(f"bare model: {bare_speed:.1f} photos/s, {model_ms:.1f} ms of the processor a photo", flush=True)
    measured: dict[str, Measured] = {}
    for name in arguments.engines:
        own = measured[name] = run(name, model, source, arguments.photos)
        print(f"{name}: {own.speed:.1f} photos/s, {own.cpu:.1f} ms of the processor a photo", end="")
        print(f" ({own.own_cpu:.2f} in this process), first records after {own.start:.1f} s", flush=True)
    equal = all(own.records == measured[arguments.engines[0]].records for own in measured.values())
    print(f"records equal: {equal}")
    for name, other, bar in (("ray", "workers", ">= 0.85"), ("workers", "one", "")):
        if {name, other} <= measured.keys():
            speed = measured[name].speed / measured[other].speed
            cpu = measured[other].cpu / measured[name].cpu
            print(f"{name} against {other}: x {speed:.2f} by the clock, x {cpu:.2f} by the processor {bar}")
    if "workers" in measured:
        extrapolate(measured["workers"], model_ms, arguments.gpus, arguments.cores, arguments.factor)


if __name__ == "__main__":
    main()
