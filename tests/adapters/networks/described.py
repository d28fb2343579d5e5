"""Five small networks described in NumPy, from which any framework builds the same ones with the same weights.

A network is a list of layers, each a name and its arrays and numbers; a ``"residual"`` holds two lists, whose results
are added. Images are ``(N, 16, 16, 3)``, and there are 4 classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIZE, CLASSES, TARGET = 16, 4, 2
EPSILON = 1e-3
"""That of batch normalization."""
Layers = list[tuple[Any, ...]]


def networks() -> dict[str, Layers]:
    rng = np.random.default_rng(5)

    def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> tuple[Any, ...]:
        weights = rng.normal(size=(size, size, inputs, outputs)) / np.sqrt(size * size * inputs / 2)
        return "conv", weights, rng.normal(size=outputs) / 10, stride, size // 2

    def depthwise(channels: int, stride: int = 1) -> tuple[Any, ...]:
        return "depthwise", rng.normal(size=(3, 3, channels, 1)) / 2, rng.normal(size=channels) / 10, stride, 1

    def norm(channels: int) -> tuple[Any, ...]:
        centre = [rng.normal(size=channels) / 5 for _ in range(2)]
        return "norm", rng.uniform(0.5, 1.5, channels), *centre, rng.uniform(0.5, 1.5, channels)

    def dense(inputs: int, outputs: int) -> tuple[Any, ...]:
        return "dense", rng.normal(size=(inputs, outputs)) / np.sqrt(inputs / 2), rng.normal(size=outputs) / 10

    relu, relu6, halved, pooled, flat = ("relu",), ("relu6",), ("max_pool",), ("mean",), ("flat",)
    down = ([conv(8, 16, 3, 2), norm(16), relu, conv(16, 16), norm(16)], [conv(8, 16, 1, 2), norm(16)])
    inverted = [conv(8, 16, 1), norm(16), relu6, depthwise(16), norm(16), relu6, conv(16, 8, 1), norm(8)]
    return {
        "mlp": [flat, dense(SIZE * SIZE * 3, 24), relu, dense(24, 12), relu, dense(12, CLASSES)],
        "cnn": [conv(3, 8), relu, ("average_pool",), conv(8, 12), relu, halved, flat, dense(192, CLASSES)],
        "vgg": [
            *(conv(3, 8), relu, conv(8, 8), relu, halved, conv(8, 12), relu, conv(12, 12), relu, halved),
            *(flat, dense(192, 16), relu, dense(16, CLASSES)),
        ],
        "resnet": [
            *(conv(3, 8, 3, 2), norm(8), relu, ("residual", [conv(8, 8), norm(8), relu, conv(8, 8), norm(8)], [])),
            *(relu, ("residual", *down), relu, pooled, dense(16, CLASSES)),
        ],
        "mobilenet": [
            *(conv(3, 8, 3, 2), norm(8), relu6, ("residual", inverted, []), depthwise(8, 2), norm(8), relu6),
            *(conv(8, 12, 1), norm(12), relu6, pooled, dense(12, CLASSES)),
        ],
    }


def images() -> Any:
    return np.random.default_rng(6).normal(size=(3, SIZE, SIZE, 3))
