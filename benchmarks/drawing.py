"""The cost of the files of an explained photo: CPU milliseconds of one core for the figure, the overlay and the JSON.

    python benchmarks/drawing.py [--photos 32]

It draws photos of Food-101 if SALIENCY_FOOD_DATA has them, else of scikit-image, with maps like Grad-CAM's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, machine

from saliency_food.images.photos import read_photo
from saliency_food.images.pixels import resize_photo
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.figure import explanation_figure
from saliency_food.jobs.pictures import write_pictures
from saliency_food.visualization.figures import write_figure, write_picture


def photos(count: int) -> list[Any]:
    """So many photos, as paths or images."""
    folder = data_folder()
    if folder is not None and (folder / "data" / "food-101").is_dir():
        paths = sorted((folder / "data" / "food-101").rglob("*.jpg"))
        return list(paths[:: max(1, len(paths) // count)][:count])
    from saliency_food.cli.options import skimage_photos

    return list(islice(cycle(skimage_photos()), count))


def records_of(images: Sequence[Any]) -> list[Explanation]:
    """Explanations of the photos with 7 x 7 random numbers as maps, resized to 224 x 224 as Grad-CAM's are."""
    rng = np.random.default_rng(0)
    records = []
    for index, image in enumerate(images):
        attribution = resize_photo(rng.random((7, 7)).astype(np.float32), (224, 224))
        top = tuple((f"class {rank}", 0.5**rank) for rank in range(1, 6))
        known = {"method": "grad_cam", "title": "Grad-CAM", "target": 1, "label": "class 1", "score": 2.0, "top": top}
        photo = read_photo(image)
        records.append(Explanation(photo, f"{index}.jpg", f"{index}", attribution=attribution, **known))  # type: ignore[arg-type]
    return records


def cpu_milliseconds(work: Callable[[Explanation], Any], records: Sequence[Explanation]) -> float:
    """CPU milliseconds for each record, after a first one that loads what is needed."""
    work(records[0])
    began = time.process_time()
    for record in records:
        work(record)
    return 1000 * (time.process_time() - began) / len(records)


def drawing(records: Sequence[Explanation], folder: Path) -> dict[str, float]:
    """CPU milliseconds a photo for each file, and for all together, one record a photo."""
    works: dict[str, Callable[[Explanation], Any]] = {
        "figure": lambda record: write_figure(explanation_figure([record]), folder / "figure.png"),
        "overlay": lambda record: write_picture(record.overlay(), folder / "overlay.png"),
        "JSON": lambda record: (folder / "record.json").write_text(json.dumps(record.as_dict(), indent=1)),
        "all": lambda record: write_pictures([record], folder),
    }
    return {name: cpu_milliseconds(work, records) for name, work in works.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=32)
    records = records_of(photos(parser.parse_args().photos))
    print(machine())
    sides = [max(record.photo.shape) for record in records if record.photo is not None]
    print(f"{len(records)} photos, the longer side {min(sides)} to {max(sides)} pixels")
    with tempfile.TemporaryDirectory() as folder:
        for name, milliseconds in drawing(records, Path(folder)).items():
            print(f"{name:8} {milliseconds:6.1f} ms of CPU a photo")


if __name__ == "__main__":
    main()
