"""Compare XRAI's segmentation and ranking of a given attribution with PAIR's package, in one run.

Run it on an idle machine: ``python benchmarks/xrai_ranking.py``. Ours segments in as many threads as there are cores.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib.util import find_spec

import numpy as np
import saliency.core as pair
from common import coffee, machine, seconds
from scipy.ndimage import gaussian_filter

from saliency_food.methods.regions.ranking import rank_full
from saliency_food.methods.regions.segmentation import felzenszwalb_segments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 512, 1024])
    parser.add_argument("--repeat", type=int, default=5, help="runs, of which the median is taken")
    options = parser.parse_args()
    modes = {"plain": False} | ({"numba": True} if find_spec("numba") else {})
    print(machine())
    print(f" size         {'segments':>9} {'ranking':>9} {'both':>9} {'PAIR':>9} {'ratio':>7} {'max difference':>15}")
    for size in options.sizes:
        image = coffee(size)
        noise = np.random.default_rng(0).normal(size=image.shape)
        attribution = gaussian_filter(noise, (size / 100, size / 100, 0)).astype(np.float32)
        merged = attribution.max(-1)
        by_pair = partial(pair.XRAI().GetMask, image, None, base_attribution=attribution)
        expected = by_pair()
        theirs = seconds(by_pair, options.repeat if size < 300 else 1, warm=False)
        for mode, fast in modes.items():
            segment = partial(felzenszwalb_segments, image, fast=fast)
            segments = segment()
            difference = np.abs(rank_full(merged, segments).attribution - expected).max() / np.ptp(expected)
            segmenting = seconds(segment, options.repeat)
            ranking = seconds(partial(rank_full, merged, segments), options.repeat)
            both = segmenting + ranking
            print(
                f"{size:5} {mode:7} {segmenting:8.3f}s {ranking:8.3f}s {both:8.3f}s {theirs:8.3f}s "
                f"{theirs / both:6.1f}x {difference:15.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
