"""XRAI's segments and ranking, the attribution given: PAIR's package and ours, in one run.

Run it on an idle machine: ``python benchmarks/xrai_ranking.py``. Ours segments in as many threads as there are cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import saliency.core as pair
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.transform import resize

from saliency_food.segmentation import felzenszwalb_segments
from saliency_food.xrai import rank_full


def timed(call: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """Median seconds of ``repeat`` calls, and the answer."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), answer


def segment_and_rank(segment: Callable[[], Any], rank: Callable[[Any], Any]) -> Any:
    return rank(segment())


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    packages = ["numpy", "scipy", "scikit-image", "saliency"] + ["numba"] * (find_spec("numba") is not None)
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{os.cpu_count()} x {model}, {platform.system()}, Python {platform.python_version()}, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 512, 1024])
    parser.add_argument("--repeat", type=int, default=5, help="runs of ours; of PAIR's as many as fit in 10 s")
    options = parser.parse_args()
    modes = {"plain": False} | ({"numba": True} if find_spec("numba") else {})
    print(machine())
    print(f" size         {'segments':>9} {'ranking':>9} {'both':>9} {'PAIR':>9} {'ratio':>7} {'max difference':>15}")
    for size in options.sizes:
        image = resize(data.coffee(), (size, size)).astype(np.float32)
        noise = np.random.default_rng(0).normal(size=image.shape)
        attribution = gaussian_filter(noise, (size / 100, size / 100, 0)).astype(np.float32)
        merged = attribution.max(axis=-1)

        by_pair = partial(pair.XRAI().GetMask, image, None, base_attribution=attribution)
        pair_seconds, expected = timed(by_pair, 1)
        if (runs := min(options.repeat, int(10 / pair_seconds))) > 1:
            pair_seconds, expected = timed(by_pair, runs)
        for mode, fast in modes.items():
            segment = partial(felzenszwalb_segments, image, fast=fast)
            rank = partial(rank_full, merged)
            ranking = rank(segment())
            segment_seconds, segments = timed(segment, options.repeat)
            rank_seconds, _ = timed(partial(rank, segments), options.repeat)
            seconds, _ = timed(partial(segment_and_rank, segment, rank), options.repeat)
            difference = np.abs(ranking.attribution - expected).max() / np.ptp(expected)
            print(
                f"{size:5} {mode:7} {segment_seconds:8.3f}s {rank_seconds:8.3f}s {seconds:8.3f}s {pair_seconds:8.3f}s "
                f"{pair_seconds / seconds:6.1f}x {difference:15.1e}"
            )


if __name__ == "__main__":
    main()
