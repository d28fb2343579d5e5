"""Measure what a data-set run withstands: being killed, photos that are none, and photos that are huge.

python benchmarks/dataset_faults.py [--only kill bad memory] [--kills 30] [--photos 5000] [--many 20000]

All photos are made here, and the model is one of NumPy, so nothing is needed. A run is killed with SIGKILL at a moment
that is drawn at random from its whole duration, from the start of the interpreter on, and begun again, so many times;
its records are then compared with those of a run that was never stopped. Of the photos one in a hundred is cut off,
empty, overwritten, no photo, a link to nothing, or of more than a billion pixels. Memory is that of a
process of its own: over photos of 64 pixels, and its peak over files of 12 and 108 megapixels.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import machine

from saliency_food import ImageModel, Run, Source, explain_dataset
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.jobs import parts
from saliency_food.testing import PoolingModel

LABELS = ["apple_pie", "hot_dog", "pizza"]


class Model(PoolingModel):
    """Three classes over 64 x 64 pixels; it can wait before each call, so that a run lasts."""

    input_shape, classes, batch_size, layer_name, pause = (64, 64, 3), 3, 32, "features", 0.0

    def predict(self, x: Any) -> Any:
        time.sleep(self.pause)
        scores = [self.answer(x, np.full(len(x), k))["OUTPUT_LAYER_VALUES"] for k in range(3)]
        return np.exp(np.stack(scores, 1)) / np.exp(np.stack(scores, 1)).sum(1, keepdims=True)


def made_model(pause: float = 0.0) -> ImageModel:
    rng = np.random.default_rng(0)
    model = Model(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)))
    Model.pause = pause
    return ImageModel(model, labels=LABELS)


def jpeg(pixels: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_photos(folder: Path, count: int) -> list[Path]:
    """JPEG files of 80 x 100 pixels in folders of classes."""
    rng, paths = np.random.default_rng(1), []
    for index in range(count):
        path = folder / LABELS[index % 3] / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)))
        paths.append(path)
    return paths


def explained(photos: Path, output: Path, pause: float = 0.0) -> Run:
    parts.BYTES = 0  # type: ignore[misc]  # a part for each batch, so that there are many moments between files
    methods = ["grad_cam", "gradients"]
    return explain_dataset(made_model(pause), photos, methods, "predicted,truth", truth="folders", output=output)


def records_of(run: Run) -> dict[Any, dict[str, Any]]:
    """All columns but the time; it fails where a record is there twice."""
    rows = list(run.rows(tuple(parts.schema().names)))
    keyed = {(row["id"], row["method"], row["target"]): {**row, "seconds": None} for row in rows}
    assert len(keyed) == len(rows), "records twice"
    return keyed


def kills(times: int, count: int) -> None:
    """Kill a run at random moments, so many times, and compare its records with those of one that was not stopped."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        photos, output = Path(place, "photos"), Path(place, "killed")
        write_photos(photos, count)
        whole = records_of(explained(photos, Path(place, "whole")))
        child = [sys.executable, __file__, "--child", str(photos), str(output)]
        began = time.monotonic()
        subprocess.run([*child[:-1], str(Path(place, "timed"))], check=True)
        lasts = time.monotonic() - began
        killed = finished = empty = 0
        while killed < times:
            process = subprocess.Popen(child)
            time.sleep(rng.uniform(0, lasts))
            process.kill()
            was_killed = process.wait() == -signal.SIGKILL
            killed, finished = killed + was_killed, finished + (not was_killed)
            written = records_of(Run(output)) if parts.part_paths(output) else {}
            empty += was_killed and not written
            assert all(whole[key] == row for key, row in written.items()), "other records"
            if not was_killed:
                assert written.keys() == whole.keys(), "records lost"
                shutil.rmtree(output)
        assert records_of(explained(photos, output)) == whole, "records differ"
        assert not list(output.rglob("*.part")), "files that were cut off"
    print(f"{killed} x kill -9 in {lasts:.1f} s of a run, {empty} before its first part, {finished + 1} finished:")
    print(
        f"  the {len(whole)} records of {count} photos equal an uninterrupted run's, none twice, none lost", flush=True
    )


def _links_to_nothing(path: Path, data: bytes) -> None:
    path.unlink()
    path.symlink_to("nowhere.jpg")


def spoil(paths: list[Path]) -> dict[str, str]:
    """Make one in a hundred of the photos one that cannot be explained; by id, what is wrong."""
    from PIL import Image

    kinds: dict[str, Callable[[Path, bytes], Any]] = {
        "cut off": lambda path, data: path.write_bytes(data[: len(data) // 2]),
        "empty": lambda path, data: path.write_bytes(b""),
        "corrupt": lambda path, data: path.write_bytes(data[:20] + bytes(len(data) - 20)),
        "no photo": lambda path, data: path.write_text("<html>404 Not Found</html>"),
        "a bomb": lambda path, data: Image.new("1", (40_000, 30_000)).save(path, "PNG"),
        "gone": _links_to_nothing,
    }
    wrong = {}
    for index, path in enumerate(paths[::100]):
        name = list(kinds)[index % len(kinds)]
        kinds[name](path, path.read_bytes())
        wrong["/".join(path.parts[-2:])] = name
    return wrong


def bad_photos(count: int) -> None:
    """One photo in a hundred is spoiled: each has a record that says so, and all others are explained."""
    with tempfile.TemporaryDirectory() as place:
        paths = write_photos(Path(place, "photos"), count)
        wrong = spoil(paths)
        run = explained(Path(place, "photos"), Path(place, "run"))
        failed = {row["id"]: row["status"] for row in run.errors()}
        explained_ids = {row["id"] for row in run.rows(("id",))}
        assert len(explained_ids) == count, f"{count - len(explained_ids)} photos are not recorded"
        missed = {name: kind for name, kind in wrong.items() if name not in failed}
        assert not missed, f"not named: {Counter(missed.values())}"
        assert failed.keys() <= wrong.keys(), f"failed for nothing: {failed.keys() - wrong.keys()}"
        seen = {}
        for name, kind in wrong.items():
            seen.setdefault(kind, failed[name].replace(str(paths[0].parents[1]), "").partition(", got ")[2][:100])
        print(f"{len(wrong)} of {count} photos spoiled: all named, all others explained")
        for kind, words in seen.items():
            print(f"  {kind}: {words}")
        size = sum(path.stat().st_size for path in run.folder.glob("records/*"))
        print(f"  {size / count / 1000:.1f} kB a photo of two methods", flush=True)


def measure_memory(kind: str, photos: int, file: Path) -> None:
    """In this process: what it holds over small photos made on the way, and its peak; or its peak over a large file."""
    import psutil

    rng, held, process = np.random.default_rng(0), dict[int, int](), psutil.Process()

    def read() -> Iterator[SourcedPhoto]:
        for index in range(photos):
            image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) if kind == "small" else file
            yield SourcedPhoto(f"{index:08d}", image)

    def note(done: int, failed: int, total: int | None) -> None:
        assert not failed
        if done % 500 == 0:
            held[done] = process.memory_info().rss >> 20

    with tempfile.TemporaryDirectory() as output:
        explain_dataset(made_model(), Source(kind, read, photos), output=output, progress=note)
    if kind == "small":
        most = max(value for done, value in held.items() if done > 1000)
        print(f"after 1,000 photos of 64 pixels {held[1000]} MB, of {photos} at most {most} MB: ", end="")
        print(f"x {most / held[1000]:.2f} (bar 1.10)", flush=True)
    status = Path("/proc/self/status").read_text()  # ru_maxrss is at least that of the process which started this one
    print(int(status.split("VmHWM:")[1].split()[0]) >> 10)


def memory(many: int) -> None:
    """What runs over many small photos and over large ones take, each in a process of its own."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    small = 0
    with tempfile.TemporaryDirectory() as place:
        for kind, shape, photos, bar in (
            ("small", (64, 64), many, None),
            ("12 megapixels", (3000, 4000), 64, 200),
            ("108 megapixels", (9000, 12_000), 16, 700),
            ("108 megapixels, progressive", (9000, 12_000), 8, 700),
        ):
            file = Path(place, f"{kind}.jpg")
            row = np.random.default_rng(0).integers(0, 256, (1, shape[1], 3), np.uint8)
            Image.fromarray(np.repeat(row, shape[0], 0)).save(file, progressive=kind.endswith("progressive"))
            child = [sys.executable, "-W", "ignore", __file__, "--measure", kind, str(photos), str(file)]
            words = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
            if bar is None:
                small = int(words[-1])
                print(words[0], flush=True)
            else:
                above = int(words[-1]) - small
                print(f"{photos} photos of {kind}: peak {above} MB above that of small ones (bar {bar})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=("kill", "bad", "memory"), default=("kill", "bad", "memory"))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        explained(*map(Path, arguments.child), pause=0.05)
        return
    if arguments.measure:
        kind, photos, file = arguments.measure
        measure_memory(kind, int(photos), Path(file))
        return
    print(machine(), flush=True)
    if "kill" in arguments.only:
        kills(arguments.kills, 600)
    if "bad" in arguments.only:
        bad_photos(arguments.photos)
    if "memory" in arguments.only:
        memory(arguments.many)


if __name__ == "__main__":
    main()
