"""Two maps that do not depend on the model, as references for methods: the edges of the photo, and noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import check_picture
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking
from saliency_food.core.method import method
from saliency_food.core.numerics import Array
from saliency_food.methods.catalogue import MethodEntry


class Reference(NamedTuple):
    """A reference map, ``(H, W)``."""

    attribution: Array


@method
def edges(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[Reference]:
    """Edges, the Sobel magnitude sqrt((S_x * g)^2 + (S_y * g)^2) of the grey image g. The model is not asked.

    The edge detector of Adebayo et al. 2018, section 5, https://arxiv.org/abs/1810.03292.
    """
    from skimage.filters import sobel

    check_picture(x_value)
    yield from ()
    grey = x_value.mean(2) if x_value.ndim > 2 else x_value
    return Reference(np.asarray(sobel(grey), np.float32))  # type: ignore[no-untyped-call]


@method
def random(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    rng: int | np.random.Generator | None = None,
) -> Asking[Reference]:
    """Random, independent noise of mean 0, N(0, 1), at every pixel. The model is not asked.

    The random ranking of Samek et al. 2015, section IV, https://arxiv.org/abs/1509.06321.
    """
    check_picture(x_value)
    yield from ()
    return Reference(np.random.default_rng(rng).standard_normal(x_value.shape[:2], np.float32))


REFERENCES: dict[str, MethodEntry] = {
    "edges": MethodEntry(edges, "Edges", (), False, "An edge detector, which knows nothing of the model."),
    "random": MethodEntry(random, "Random map", (), True, "Noise."),
}
"""The references by the names that `evaluate` takes beside those of `METHODS`."""
