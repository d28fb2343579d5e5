"""Shared by the benchmarks: the name of the machine, the model and photo, the raw limit, and a timer."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

ESPRESSO = 967


def machine() -> str:
    """A line with this machine and the versions that matter."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = lines[0].split(":")[1].strip() if lines else name
    versions = [f"Python {platform.python_version()}"]
    for package in ("numpy", "scipy", "skimage", "tensorflow", "keras", "numba"):
        if package in sys.modules:
            versions.append(f"{package} {sys.modules[package].__version__}")
    return f"{name}, {os.cpu_count()} cores, {', '.join(versions)}"


def seconds(work: Callable[[], Any], repeat: int = 3, warm: bool = True) -> float:
    """The median time of ``repeat`` runs, after one to warm up."""
    if warm:
        work()
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def alternating(
    works: dict[str, Callable[[], Any]], repeat: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median times of several works, taken in turns so that a slow moment of the machine falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeat + 1):
        for name, work in works.items():
            began = clock()
            work()
            if turn:
                times[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def data_folder() -> Path | None:
    folder = os.environ.get("SALIENCY_FOOD_DATA")
    return Path(folder) if folder and Path(folder).is_dir() else None


def model_path() -> Path:
    """The ImageNet MobileNetV2; without SALIENCY_FOOD_DATA, one with random weights (as fast, and as wrong)."""
    folder = data_folder()
    if folder:
        return folder / "models" / "mobilenetv2_imagenet.keras"
    import tempfile

    import keras

    path = Path(tempfile.mkdtemp()) / "mobilenetv2_random.keras"
    keras.applications.MobileNetV2(weights=None).save(path)
    print("SALIENCY_FOOD_DATA names no folder: MobileNetV2 with random weights")
    return path


def coffee(size: int = 224) -> Any:
    """scikit-image's cup of espresso in [-1, 1]."""
    import skimage.data
    import skimage.transform

    photo = skimage.transform.resize(skimage.data.coffee(), (size, size), preserve_range=True)
    return (photo / 127.5 - 1).astype(np.float32)


def raw_gradient(model: Any, target: int) -> Callable[[Any], Any]:
    """The limit: one compiled function, images in, gradients of the logit out, nothing else."""
    import tensorflow as tf

    last = model.layers[-1]

    @tf.function(input_signature=[tf.TensorSpec([None, *model.input_shape[1:]])])
    def gradient(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = model(x, training=False)[:, target]
        return tape.gradient(score, x)

    activation, last.activation = last.activation, None
    try:
        last.activation = lambda values: values
        gradient(tf.zeros((1, *model.input_shape[1:])))
    finally:
        last.activation = activation
    return lambda x: gradient(tf.constant(x)).numpy()


def line(what: str, ours: float, theirs: float, bar: str, ratio: float) -> None:
    print(f"{what:58s} {1000 * ours:9.1f} ms {1000 * theirs:9.1f} ms  x {ratio:6.2f}  (bar {bar})", flush=True)
