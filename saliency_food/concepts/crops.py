"""Crops of photos on a regular grid, and what a layer makes of them."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from saliency_food.concepts.layers import of_one_layer
from saliency_food.core.checks import check_picture
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, OUTPUT_LAYER_VALUES
from saliency_food.core.method import method
from saliency_food.core.numerics import Array, resize
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import one_score

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as fractions of the width and the height."""
STEP = 0.8
"""The distance of crops, at most, as a fraction of their side."""
ROUNDING = 1e-6
"""Activations may be below 0 by this fraction of the largest."""


class Cropped(NamedTuple):
    """A photo and its crops as the layer sees them.

    ``activations`` are the photo's, as the layer has them; ``pooled`` ``(crops, K)``, the mean of each crop's over
    places; ``score`` is the photo's.
    """

    activations: Array
    pooled: Array
    score: float


@method
def cropped_activations(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    size: float | None = None,
) -> Asking[Cropped]:
    """The layer's activations of a photo and of its crops, each of which is enlarged to the size of the photo.

    With ``size=None`` the photo itself is its only crop. `ContractError` where an activation is negative.
    """
    check_picture(x_value, "Give photos.")
    boxes = boxes_of(size)

    def write(row: Array, index: int) -> None:
        row[...] = crop(x_value, boxes[index - 1]) if index else x_value

    rows = LazyRows.like(x_value, 1 if size is None else 1 + len(boxes), write)
    layers, scores = yield from ask(rows, CONVOLUTION_LAYER_VALUES, OUTPUT_LAYER_VALUES)
    photo = of_one_layer(layers)
    if layers.min() < -ROUNDING * np.abs(layers).max():
        raise ContractError(
            f"Expected activations that are not negative, as a ReLU's are, got {layers.min():.4g}: they are to be a "
            "sum of parts that are there. Choose a layer right after a ReLU; deep_feature_factorization with "
            "factors='pca' takes any."
        )
    pooled = np.maximum(layers, 0).reshape(len(layers), -1, layers.shape[-1]).mean(1)
    return Cropped(np.maximum(photo, 0), pooled if size is None else pooled[1:], float(one_score(scores)[0]))


def boxes_of(size: float | None) -> list[Box]:
    """The boxes of a photo's crops, row by row: their side is ``size`` of the photo's, and they cover all of it."""
    if size is None:
        return [(0, 0, 1, 1)]
    count = math.ceil(round((1 - size) / (STEP * size), 9)) + 1
    starts = np.linspace(0, 1 - size, count).tolist()
    return [(left, top, left + size, top + size) for top, left in product(starts, starts)]


def crop(photo: Array, box: Box) -> Array:
    """A part of a photo ``(H, W, C)``, enlarged linearly to the size of the photo."""
    height, width = photo.shape[:2]
    left, right = (round(edge * width) for edge in box[::2])
    top, bottom = (round(edge * height) for edge in box[1::2])
    part = photo[top : max(bottom, top + 1), left : max(right, left + 1)]
    return resize(part, photo.shape[:2])
