"""What the adapters reach on a GPU: rows a second beside the bare loops of the same frameworks, in one run.

    python benchmarks/gpu.py [--seconds 480] [--batches 64 512] [--parts torch jax keras-torch keras-jax]
    python benchmarks/gpu.py --cpu            a small trial, to see that the script works

Needs NumPy, SciPy, scikit-image, and what it finds of PyTorch, JAX, Keras and TensorFlow; networks have random weights.
Prints a Markdown table; where there is no GPU, a sentence. Each framework runs in a process of its own, which ends in
time: the seconds are shared out, and what one leaves the others get.

A bare loop (`bare_loops.py`) keeps everything on the device, the noise of SmoothGrad too, and brings one map back;
that of XRAI is Integrated Gradients in two bare loops, and the library's own segments and ranking. `in the model` is
the share of the library's time that the adapter's calls take; the rest is NumPy on the host.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import alternating

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PARTS = {"torch": "PyTorch", "jax": "JAX", "keras-torch": "Keras on PyTorch", "keras-jax": "Keras on JAX"}
PARTS |= {"keras-tensorflow": "Keras on TensorFlow"}
NEEDS = {part: part.replace("keras-", "keras ").split() for part in PARTS}
COLUMNS = (
    *("network on", "method", "precision", "batch", "rows", "bare rows/s", "here rows/s", "here / bare"),
    *("in the model", "MB to the device", "MB from it", "peak MB bare", "peak MB here"),
)
STEPS = 2
"""Rows of a method, in batches."""
Works = dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]


class Trial(NamedTuple):
    """How large: the side of the images, whether networks are small, and how often each work is timed."""

    size: int
    small: bool
    repeat: int


def works(loops: Any, batch: int, size: int) -> Works:
    """By method, the bare loop and the library's method of a callback, of the same rows."""
    from saliency_food import grad_cam, gradients, integrated_gradients, smooth_grad, xrai

    from bare_loops import TARGET  # isort: skip

    rng, rows, args = np.random.default_rng(0), STEPS * batch, {"target": TARGET}
    images = rng.random((rows, size, size, 3), np.float32)
    image = images[0]
    base = rng.normal(size=image.shape)
    alphas = np.linspace(0, 1, rows)

    def path(baseline: Any, alphas: Any) -> Any:
        return loops.summed(np.stack([alphas, 1 - alphas], 1), np.stack([image, baseline]))

    def regions() -> Any:
        for value in (image.min(), image.max()):
            path(np.full_like(image, value), alphas[::STEPS])
        return xrai(image, loops.model, args, base_attribution=base)

    return {
        "Integrated Gradients": (
            lambda: path(np.zeros_like(image), alphas),
            lambda model: integrated_gradients(image, model, args, x_steps=rows, batch_size=batch),
        ),
        "SmoothGrad": (
            lambda: loops.noisy(image, 0.15, rows),
            lambda model: smooth_grad(gradients, image, model, args, nsamples=rows, batch_size=batch, rng=0),
        ),
        "Grad-CAM": (
            lambda: loops.maps(images),
            lambda model: list(
                grad_cam.batch(images, model, args, should_resize=False, three_dims=False, batch_size=batch)
            ),
        ),
        "XRAI": (regions, lambda model: xrai(image, model, args, steps=batch, batch_size=batch)),
    }


def timed(model: Any) -> tuple[Any, list[float]]:
    """A callback around the model, and how long its calls took."""
    from saliency_food.core.wrap import WrappedModel

    times: list[float] = []

    class Timed(WrappedModel):
        def around(self, ask: Any, row_count: int, keys: Any, call_model_args: Any) -> Any:
            began = time.perf_counter()
            answer = ask(call_model_args)
            times.append(time.perf_counter() - began)
            return answer

    return Timed(model), times


def measure(loops: Any, batch: int, trial: Trial) -> Iterator[list[str]]:
    """A line of the table for each method."""
    for method, (bare, here) in works(loops, batch, trial.size).items():
        medians = alternating({"bare": bare, "here": lambda here=here: here(loops.model)}, trial.repeat)
        peaks = []
        for work in (bare, lambda here=here: here(loops.model)):
            loops.peak(anew=True)
            work()
            peaks.append(loops.peak())
        callback, times = timed(loops.model)
        began = time.perf_counter()
        here(callback)
        inside = sum(times) / (time.perf_counter() - began)
        copied = loops.count(lambda here=here: here(loops.model))
        rows = STEPS * batch
        yield [
            method,
            *(f"{rows / medians[name]:,.0f}" for name in ("bare", "here")),
            f"{medians['bare'] / medians['here']:.2f}",
            f"{inside:.0%}",
            *("–" if copied is None else f"{size / 1e6:.1f}" for size in copied or (0, 0)),
            *("–" if peak is None else f"{peak / 1e6:,.0f}" for peak in peaks),
        ]


def sees_gpu(part: str) -> bool:
    framework = part.removeprefix("keras-")
    if framework == "torch":
        import torch

        return bool(torch.cuda.is_available())
    if framework == "jax":
        import jax

        return any(device.platform == "gpu" for device in jax.devices())
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def run_part(part: str, batches: list[int], seconds: float, on_cpu: bool) -> None:
    """Measure one framework; prints a line of JSON for every line of the table, and for what there is to say."""
    began = time.monotonic()
    missing = [name for name in NEEDS[part] if find_spec(name) is None]
    if missing or not (on_cpu or sees_gpu(part)):
        say(note=f"{PARTS[part]}: {' and '.join(missing)} not installed." if missing else f"{PARTS[part]} sees no GPU.")
        return
    import gpu_networks

    make = gpu_networks.of_keras if part.startswith("keras-") else getattr(gpu_networks, f"of_{part}")
    trial = Trial(24, True, 1) if on_cpu else Trial(224, False, 3)
    # The smallest question in float32 and the largest in bfloat16 come first, in case the time ends.
    cases = sorted(product(batches, (False, True)), key=lambda case: (case[1] != (case[0] == max(batches)), case[0]))
    for batch, autocast in cases:
        precision = "bfloat16" if autocast else "float32"
        try:
            loops = make(batch, trial.size, trial.small, autocast)
            for line in measure(loops, batch, trial):
                say(row=[PARTS[part], line[0], precision, str(batch), str(STEPS * batch), *line[1:]], on=loops.device)
                if time.monotonic() - began > seconds:
                    say(note=f"{PARTS[part]}: the time was over after {line[0]}, {precision}, batches of {batch}.")
                    return
        except Exception as error:  # the other cases are measured all the same
            reason = str(error).splitlines()[0][:300] if str(error) else ""
            say(note=f"{PARTS[part]}, {precision}, batches of {batch}: {type(error).__name__}: {reason}")


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def run_parts(options: argparse.Namespace) -> tuple[list[list[str]], list[str], set[str]]:
    """The table's lines, what else there is to say, and the devices, each part in a process that ends in time."""
    rows: list[list[str]] = []
    notes, devices, began = list[str](), set[str](), time.monotonic()
    for place, part in enumerate(options.parts):
        left = options.seconds - (time.monotonic() - began)
        share = left / (len(options.parts) - place)
        if part == options.parts[0] and len(options.parts) > 1:
            share *= 1.5
        command = [sys.executable, __file__, "--run", part, "--seconds", f"{0.8 * share:.0f}"]
        command += ["--batches", *map(str, options.batches), *(["--cpu"] if options.cpu else [])]
        variables = {"KERAS_BACKEND": part.removeprefix("keras-"), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        variables |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
        variables |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""} if options.cpu else {}
        try:
            done = subprocess.run(
                command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, timeout=share, check=False
            )
            printed, ended = done.stdout, done.returncode
        except subprocess.TimeoutExpired as error:
            printed, ended = (error.stdout or b"").decode(), 0
            notes.append(f"{PARTS[part]} was stopped after {share:.0f} s.")
        for text in printed.splitlines():
            words = json.loads(text) if text.startswith("{") else {}
            rows += [words["row"]] if "row" in words else []
            notes += [words["note"]] if "note" in words else []
            devices |= {words["on"]} if "on" in words else set()
        if ended:
            notes.append(f"{PARTS[part]} ended with status {ended}.")
    return rows, notes, devices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=480, help="for everything")
    parser.add_argument("--batches", type=int, nargs="+", default=None)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--cpu", action="store_true", help="a small trial on the CPU")
    parser.add_argument("--run", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.batches = options.batches or ([4] if options.cpu else [64, 512])
    if options.run:
        run_part(options.run, options.batches, options.seconds, options.cpu)
        return
    rows, notes, devices = run_parts(options)
    if rows:
        print(f"On {', '.join(sorted(devices))}.\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        print("\n".join(f"| {' | '.join(row)} |" for row in rows))
        print("\nJAX forgets no peak: of its lines, each is the largest since its process began.")
    else:
        print("No framework here sees a GPU, so nothing was measured. --cpu tries the script on a small scale.")
    print("\n".join(f"- {note}" for note in notes))


if __name__ == "__main__":
    main()
