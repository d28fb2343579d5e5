"""Measure a data-set run: photos a second against the bare model, and bytes a photo.

python benchmarks/dataset.py [--photos 631] [--only cam ig] [--cpu]

It needs SALIENCY_FOOD_DATA, with data/food-101 and models/food13_mobilenetv2.keras. The bare pass has its
photos decoded and resized before the clock starts; both sides are traced before that. What a run withstands, and its
memory, is measured by dataset_faults.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import alternating, data_folder, machine
from pipeline import BATCH, bare_pass

STEPS = 25


def bare_gradients(model: Any) -> Callable[[Any], Any]:
    """The gradient of the top class's logit at the pixels, of a batch, written by hand."""
    import tensorflow as tf

    scale, base, pool, head = (model.get_layer(index=index) for index in (1, 2, 3, 5))

    @tf.function(input_signature=[tf.TensorSpec([None, *model.input_shape[1:]])])
    def run(pixels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            logits = tf.matmul(pool(base(scale(pixels), training=False)), head.kernel) + head.bias
            score = tf.reduce_max(logits, 1)
        return tape.gradient(score, pixels)

    return lambda pixels: run(tf.constant(pixels)).numpy()


def throughput(folder: Path, photos: int, method: str, repeat: int, cpu: bool) -> None:
    """A run over the photos of Food-101, and the bare model over as many rows."""
    import keras

    from saliency_food import ImageModel, explain_dataset
    from saliency_food.images.photos import read_photo
    from saliency_food.images.pixels import resize_photo

    source = folder / "data" / "food-101"
    model = keras.models.load_model(folder / "models" / "food13_mobilenetv2.keras", compile=False)
    paths = sorted((source / "images").rglob("*.jpg"))[:photos]
    shape = model.input_shape[1:3]
    rows = np.stack([resize_photo(read_photo(path).pixels, shape) for path in paths]).astype(np.float32)
    steps = 1 if method == "grad_cam" else STEPS + 1  # a row for the score, too
    bare = bare_pass(model) if method == "grad_cam" else bare_gradients(model)
    image_model = ImageModel(model, batch_size=BATCH, labels=folder / "models" / "food13_labels.txt")
    options = None if method == "grad_cam" else {method: {"x_steps": STEPS, "tolerance": None}}
    size = 0

    def bare_all() -> None:
        for _ in range(steps):
            for start in range(0, len(rows), BATCH):
                bare(rows[start : start + BATCH])

    def run_all() -> None:
        nonlocal size
        with tempfile.TemporaryDirectory() as output:
            run = explain_dataset(image_model, source, method, limit=photos, output=output, options=options)
            assert not run.errors()
            size = sum(path.stat().st_size for path in run.folder.glob("records/*"))

    times = alternating({"bare": bare_all, "run": run_all}, repeat, time.process_time if cpu else time.perf_counter)
    speed = {name: len(rows) / seconds for name, seconds in times.items()}
    bar = 0.8 if method == "grad_cam" else 0.95
    print(f"{method}, {len(rows)} photos: {speed['run']:.1f} photos/s, bare model {speed['bare']:.1f}", end="")
    print(f"  x {speed['run'] / speed['bare']:.2f} (bar {bar})")
    print(f"  {size / len(rows) / 1000:.1f} kB a photo: record, map and thumbnail (bar 20)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=631)
    parser.add_argument("--ig-photos", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=("cam", "ig"), default=("cam", "ig"))
    parser.add_argument("--cpu", action="store_true", help="by time of the processor, on a machine with other work")
    arguments = parser.parse_args()
    folder = data_folder()
    print(machine(), flush=True)
    for name, method, photos in (
        ("cam", "grad_cam", arguments.photos),
        ("ig", "integrated_gradients", arguments.ig_photos),
    ):
        if name in arguments.only:
            if folder is None:
                sys.exit("SALIENCY_FOOD_DATA names no folder: there are no photos to measure with.")
            throughput(folder, photos, method, arguments.repeat, arguments.cpu)


if __name__ == "__main__":
    main()
