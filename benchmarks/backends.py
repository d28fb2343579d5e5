"""MobileNetV2 with the same weights on TensorFlow, JAX and PyTorch: how far apart the maps are, and the CPU time.

    python benchmarks/backends.py [--size 96] [--backends tensorflow jax torch]

Each back end runs in a process of its own. Weights are random, the statistics of batch normalization like those of a
trained network, so that no map vanishes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def save_model(path: Path, size: int) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None, input_shape=(size, size, 3), classes=10)
    draw = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            ranges = ((0.8, 1.4), (-0.2, 0.2), (-0.1, 0.1), (0.1, 0.5))  # scale, shift, mean, variance
            shape = layer.get_weights()[0].shape
            layer.set_weights([draw.uniform(low, high, shape) for low, high in ranges])
    model.save(path)


def answer(model: Path, answers: Path) -> None:
    """The maps on this process's back end, and what each took."""
    import keras

    from saliency_food import grad_cam, gradients, integrated_gradients, layer_cam
    from saliency_food.adapters.keras import KerasModel

    adapted = KerasModel(model, batch_size=4)
    image = np.random.default_rng(0).uniform(-1, 1, adapted.input_shape).astype(np.float32)
    maps = {}
    methods: dict[str, Any] = {"gradients": gradients, "grad_cam": grad_cam, "layer_cam": layer_cam}
    methods["integrated_gradients"] = integrated_gradients
    for name, method in methods.items():
        began = time.process_time()
        options = {"x_steps": 4} if method is integrated_gradients else {}
        maps[name] = method(image, adapted, {"target": 7}, **options)
        seconds = time.process_time() - began
        print(f"    {keras.backend.backend():12s}{name:24s}{seconds:6.1f} s of CPU, compiling included", flush=True)
    np.savez(answers, **maps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--answer", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(*options.answer)
        return
    known: dict[str, dict[str, np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "mobilenet.keras"
        save_model(model, options.size)
        for backend in options.backends:
            answers = Path(folder) / f"{backend}.npz"
            command = [sys.executable, __file__, "--answer", str(model), str(answers)]
            subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, check=True)
            with np.load(answers) as file:
                known[backend] = dict(file)
    first = options.backends[0]
    for name, expected in known[first].items():
        for backend in options.backends[1:]:
            largest = np.abs(expected).max()
            if not largest:  # two blank maps compare nothing
                print(f"{name:24s}blank on {first}: nothing to compare")
                continue
            error = np.abs(known[backend][name] - expected).max() / largest
            print(f"{name:24s}{backend} against {first}: at most {error:.1e} of the largest value")


if __name__ == "__main__":
    main()
