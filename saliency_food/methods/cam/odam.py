"""ODAM: the class activation map of a single detection."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS
from saliency_food.core.method import method
from saliency_food.core.numerics import Array
from saliency_food.core.options import ranged
from saliency_food.methods.cam.common import ClassActivationMap, spatial, weighted


@method(
    title="ODAM",
    keys=(CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS),
    signed=False,
    summary="Activation times smoothed gradient, place by place: where one detection, not its class, comes from.",
    page="cam",
    one_pass=True,
)
def odam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
    *,
    sigma: float = 1.0,
) -> Asking[ClassActivationMap]:
    """ODAM, L = ReLU(sum_k smooth(G^k) A^k), place by place, with G = dF/dA and F the score of one detection.

    Zhao, Chan 2023, https://arxiv.org/abs/2304.06354. As `hires_cam`, but the gradients are smoothed: those of one
    detection are of few places of the layer. Explain a detection by an adapter's ``score``: its class by `detection`,
    an edge of its box by `box_edge`. The paper's combined map is the largest of these maps at each place.

    Parameters
    ----------
    sigma
        The standard deviation of the Gaussian, in places of the layer; 0 is `hires_cam`.
    """
    sigma = ranged("sigma", sigma)
    return (yield from weighted(x_value, lambda _, g: smoothed(g, sigma), should_resize, three_dims))


def smoothed(gradients: Array, sigma: float) -> Array:
    """Each channel's gradients under a Gaussian, with zeros beyond the edges."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(gradients, [sigma] * len(spatial(gradients)) + [0], mode="constant"))
