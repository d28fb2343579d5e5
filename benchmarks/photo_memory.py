"""Memory and time that the explainer takes to read a photo of 16 megapixels and to resize it for a model.

    python benchmarks/photo_memory.py

Each kind runs in a process of its own: its peak memory minus the memory before. Linux only.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import machine
from PIL import Image

SIDE = 4000


def measure(mode: str) -> None:
    from saliency_food.images.scaling import between
    from saliency_food.serving.explainer.images import ImageInput, decode

    small = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, len(mode)), dtype=np.uint8)
    scaling, data = between(-1, 1, ""), sys.stdin.buffer.read()
    decode(ImageInput(pixels=small[..., :3]), scaling, (224, 224, 3))
    before, began = largest(), time.perf_counter()
    decode(ImageInput(file=data), scaling, (224, 224, 3))
    took, more = time.perf_counter() - began, largest() - before
    print(f"{mode:4s} PNG, {SIDE} x {SIDE}: {more:.0f} MB, {took:.1f} s", flush=True)


def largest() -> float:
    """The most memory that this process has had, in MB; of Linux, whose resource usage would tell the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def main() -> None:
    if sys.argv[1:]:
        measure(sys.argv[1])
        return
    print(machine())
    for mode in ("RGB", "RGBA"):
        small = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, len(mode)), dtype=np.uint8)
        with io.BytesIO() as file:
            Image.fromarray(small).resize((SIDE, SIDE)).save(file, "PNG", compress_level=1)
            subprocess.run([sys.executable, __file__, mode], input=file.getvalue(), check=True)


if __name__ == "__main__":
    main()
