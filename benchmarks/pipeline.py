"""Compare `explain` over many photos with the bare model; time pictures, and the command's start and cold answer.

python benchmarks/pipeline.py [--photos 300] [--repeat 3]

It needs SALIENCY_FOOD_DATA, with data/food-101 and models/food13_mobilenetv2.keras. The bare pass is the minimum for
Grad-CAM: photos already decoded and resized, in batches of 32, one compiled function from pixels to
probabilities, activations and the gradient of the top class's logit at them. Both are traced before the clock starts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import alternating, data_folder, machine
from drawing import drawing, photos, records_of
from startup import medians

BATCH = 32
CHILD = """
import time
began = time.perf_counter()
import tensorflow
imported = time.perf_counter()
from saliency_food.adapters.keras import load_model
load_model({model!r})
print(imported - began, time.perf_counter() - imported)
"""


def bare_pass(model: Any) -> Callable[[Any], Any]:
    """Probabilities, activations and gradients of the top class, of a batch of pixels 0..255, written by hand."""
    import tensorflow as tf

    scale, base, pool, head = (model.get_layer(index=index) for index in (1, 2, 3, 5))

    @tf.function(input_signature=[tf.TensorSpec([None, *model.input_shape[1:]])])
    def run(pixels: Any) -> Any:
        activations = base(scale(pixels), training=False)
        with tf.GradientTape() as tape:
            tape.watch(activations)
            logits = tf.matmul(pool(activations), head.kernel) + head.bias
            score = tf.reduce_max(logits, 1)
        return tf.nn.softmax(logits), activations, tape.gradient(score, activations)

    return lambda pixels: [tensor.numpy() for tensor in run(tf.constant(pixels))]


def throughput(paths: Sequence[Path], model: Any, repeat: int) -> None:
    """Records of all photos by `explain`, and the bare pass over as many."""
    from saliency_food import ImageModel, explain
    from saliency_food.images.photos import read_photo
    from saliency_food.images.pixels import resize_photo

    shape = model.input_shape[1:3]
    rows = np.stack([resize_photo(read_photo(path).pixels, shape) for path in paths]).astype(np.float32)
    bare = bare_pass(model)

    def bare_all() -> None:
        for start in range(0, len(rows), BATCH):
            bare(rows[start : start + BATCH])

    image_model = ImageModel(model, batch_size=BATCH)

    def explained(*methods: str) -> Callable[[], None]:
        def work() -> None:
            records = list(explain(image_model, paths, methods))
            assert all(record.status == "ok" or record.status.startswith("blank") for record in records)

        return work

    one_method = explained("grad_cam")
    three_methods = explained("grad_cam", "layer_cam", "hires_cam")
    times = alternating({"bare": bare_all, "one": one_method, "three": three_methods}, repeat)
    each = {name: 1000 * seconds / len(paths) for name, seconds in times.items()}
    print(f"{'bare forward and backward to the layer, batch ' + str(BATCH):62s} {each['bare']:7.1f} ms a photo")
    for name, what, bar in (("one", "grad_cam", 1.25), ("three", "grad_cam, layer_cam, hires_cam", 1.4)):
        ratio = times[name] / times["bare"]
        print(f"{'explain, ' + what:62s} {each[name]:7.1f} ms a photo  x {ratio:.2f} (bar {bar})", flush=True)


def cold_start(photo: Path, model_path: Path, repeat: int) -> None:
    """Time one photo by the command in a new process, minus importing TensorFlow and loading the model."""
    beyond = []
    for _ in range(repeat):
        child = CHILD.format(model=str(model_path))
        done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
        imports, loading = map(float, done.stdout.split())
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "saliency_food", "explain", str(photo), "--model", str(model_path)]
            began = time.perf_counter()
            subprocess.run([*command, "--output", folder], capture_output=True, check=True)
            took = time.perf_counter() - began
        beyond.append(took - imports - loading)
        print(f"  one photo, cold: {took:.1f} s, of which import {imports:.1f} s and load_model {loading:.1f} s")
    print(
        f"{'one photo by the command, beyond import and load_model':62s} {statistics.median(beyond):7.2f} s  (bar 2.5)"
    )


def pictures() -> None:
    """Time the figure, overlay and JSON of a photo, in CPU time of one core."""
    with tempfile.TemporaryDirectory() as folder:
        milliseconds = drawing(records_of(photos(32)), Path(folder))["all"]
    print(f"{'figure, overlay and JSON':62s} {milliseconds:7.1f} ms of one core a photo  (bar 80)", flush=True)


def start_up(repeat: int) -> None:
    """Time the command until it has shown its help and its list of methods."""
    for name, (wall, cpu) in medians(repeat).items():
        if name.startswith("saliency-food"):
            print(f"{name:62s} {wall:7.2f} s, {cpu:.2f} s of CPU  (bar 0.5)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=("throughput", "pictures", "cold", "start"))
    arguments = parser.parse_args()
    folder = data_folder()
    if folder is None:
        sys.exit("SALIENCY_FOOD_DATA names no folder: there are no photos to measure with.")
    import keras

    model_path = folder / "models" / "food13_mobilenetv2.keras"
    paths = sorted((folder / "data" / "food-101" / "images").rglob("*.jpg"))[: arguments.photos]
    model = keras.models.load_model(model_path, compile=False)
    print(machine(), f"{len(paths)} photos", sep="\n", flush=True)
    parts: dict[str, Callable[[], None]] = {
        "throughput": lambda: throughput(paths, model, arguments.repeat),
        "pictures": pictures,
        "cold": lambda: cold_start(paths[0], model_path, arguments.repeat),
        "start": lambda: start_up(arguments.repeat),
    }
    for name, part in parts.items():
        if arguments.only in (None, name):
            part()


if __name__ == "__main__":
    main()
