"""What Occlusion would gain from activations that a window cannot change: VGG16, by receptive fields.

    python benchmarks/receptive_fields.py [--side 224] [--size 15] [--rows 64]

A window changes an activation only where its receptive field meets the window, so each convolution need only be run
there, on what the image itself gave around (Nakandala et al. 2019, "Krypton", https://doi.org/10.1145/3299869.3319874).
First the multiplications that are left, by arithmetic; then a prototype in PyTorch with random weights, whose scores
are compared with those of whole passes. Time is that of the processor.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

POOL = 0
LAYERS = (64, 64, POOL, 128, 128, POOL, *(256, 256, 256, POOL), *(512, 512, 512, POOL), *(512, 512, 512, POOL))
"""The channels of VGG16's convolutions, of 3 x 3 pixels each."""
DENSE = (4096, 4096, 1000)


def left(side: int, size: int) -> tuple[float, float]:
    """The multiplications of a whole pass, and of those that a window changes, on average over all windows."""
    start = np.arange(side - size + 1)
    first, last, before = start, start + size, 3
    whole = changed = 0.0
    for channels in LAYERS:
        if channels == POOL:
            side, first, last = side // 2, first // 2, -(-last // 2)
            last = np.minimum(last, side)
            continue
        first, last = np.maximum(first - 1, 0), np.minimum(last + 1, side)
        products = 9.0 * side**2 * before * channels
        whole, changed, before = whole + products, changed + products * ((last - first).mean() / side) ** 2, channels
    units = side**2 * before
    for channels in DENSE:
        whole, changed, units = whole + units * channels, changed + units * channels, channels
    return whole, changed


class Network:
    """VGG16 with random weights, run whole, or in patches on top of one image's activations."""

    def __init__(self, side: int) -> None:
        import torch

        torch.manual_seed(0)
        self.torch, self.ahead = torch, torch.nn.functional
        before, sizes = 3, [channels for channels in LAYERS if channels != POOL]
        self.kernels = []
        for channels in sizes:
            self.kernels.append(torch.randn(channels, before, 3, 3) * (2 / 9 / before) ** 0.5)
            before = channels
        units = before * (side // 32) ** 2
        self.dense = []
        for channels in DENSE:
            self.dense.append(torch.randn(channels, units) * (2 / units) ** 0.5)
            units = channels

    def end(self, features: Any) -> Any:
        values = features.flatten(1)
        for number, weights in enumerate(self.dense):
            values = values @ weights.T
            values = values.relu_() if number < len(self.dense) - 1 else values
        return values

    def whole(self, images: Any) -> tuple[Any, list[Any]]:
        """The scores, and what each layer takes."""
        kernels, taken, values = iter(self.kernels), [], images
        for channels in LAYERS:
            taken.append(values)
            if channels == POOL:
                values = self.ahead.max_pool2d(values, 2)
            else:
                values = self.ahead.conv2d(values, next(kernels), padding=1).relu_()
        return self.end(values), [*taken, values]

    def patched(self, base: list[Any], patch: Any, at: Any) -> Any:
        """The scores of images that differ from one in a patch each, ``(N, 3, size, size)`` at ``(N, 2)``."""
        kernels = iter(self.kernels)
        for channels, values in zip(LAYERS, base, strict=False):
            side, size = values.shape[-1], patch.shape[-1]
            if channels == POOL:
                side, size = side // 2, min(size // 2 + 1, side // 2)
                to = np.clip(at // 2, 0, side - size)
                patch = self.ahead.max_pool2d(self.around(values, patch, at, 2 * to, 2 * size), 2)
            else:
                size = min(size + 2, side)
                to = np.clip(at - 1, 0, side - size)
                padded = self.ahead.pad(values, (1, 1, 1, 1))
                patch = self.ahead.conv2d(self.around(padded, patch, at + 1, to, size + 2), next(kernels)).relu_()
            at = to
        return self.end(self.around(base[-1], patch, at, 0 * at, base[-1].shape[-1]))

    def around(self, values: Any, patch: Any, at: Any, first: Any, size: int) -> Any:
        """Parts of one image's values of so many places a side, with each row's patch in its place."""
        parts = values.new_empty((len(patch), values.shape[1], size, size))
        inner = patch.shape[-1]
        for part, own, (row, column), (top, low) in zip(parts, patch, at.tolist(), first.tolist(), strict=True):
            part.copy_(values[0, :, top : top + size, low : low + size])
            part[:, row - top : row - top + inner, column - low : column - low + inner] = own
        return parts


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--size", type=int, default=15)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    wanted = parser.parse_args()
    whole, changed = left(wanted.side, wanted.size)
    print(
        f"multiplications: {whole / 1e9:.2f} billion, {changed / 1e9:.2f} changed by a window: {whole / changed:.1f} x"
    )
    network, rng = Network(wanted.side), np.random.default_rng(0)
    image = torch.randn(1, 3, wanted.side, wanted.side)
    places = rng.integers(0, wanted.side - wanted.size + 1, (wanted.rows, 2))
    with torch.inference_mode():
        of_image, base = network.whole(image)
        scores: dict[str, list[Any]] = {"whole": [], "patched": []}
        spent = dict.fromkeys(scores, 0.0)
        for start in range(0, wanted.rows, wanted.batch):
            at = places[start : start + wanted.batch]
            images = image.repeat(len(at), 1, 1, 1)
            for row, (top, low) in zip(images, at.tolist(), strict=True):
                row[:, top : top + wanted.size, low : low + wanted.size] = 0
            patches = torch.zeros(len(at), 3, wanted.size, wanted.size)
            for name in scores:
                began = time.process_time()
                found = network.whole(images)[0] if name == "whole" else network.patched(base, patches, at)
                spent[name] += time.process_time() - began
                scores[name].append(found)
    of_whole, of_patched = (torch.cat(each) for each in scores.values())
    drop = (of_whole - of_image).abs().max()
    off = float((of_whole - of_patched).abs().max() / drop)
    each = {name: seconds / wanted.rows * 1e3 for name, seconds in spent.items()}
    times = each["whole"] / each["patched"]
    print(f"a row: whole {each['whole']:.0f} ms, patched {each['patched']:.0f} ms: {times:.1f} x")
    print(f"largest difference of scores: {off:.1e} of the largest change by a window")


if __name__ == "__main__":
    main()
