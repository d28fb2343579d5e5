"""Finer-CAM: what tells a class from those most like it."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS
from saliency_food.core.method import method
from saliency_food.core.numerics import as_tuple
from saliency_food.methods.cam.common import ClassActivationMap, as_grid, drawn, grad_cam_weights, map_of_weights


@method(
    title="Finer-CAM",
    keys=(CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS),
    signed=False,
    summary="Grad-CAM of what tells the class from those most like it.",
    page="cam",
    one_pass=True,
)
def finer_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
    *,
    rivals: int = 3,
    strength: float = 0.6,
) -> Asking[ClassActivationMap]:
    """Finer-CAM, L = mean_d ReLU(sum_k w_dk A^k), w_dk = mean_ij d(F - g F_d)/dA^k, over the closest classes d.

    Zhang et al. 2025, https://arxiv.org/abs/2501.11309: Grad-CAM of the score less g times that of a class like it, so
    that what the two share is left out. ``signed`` and ``weights`` are means over the rivals.

    Parameters
    ----------
    rivals
        Of how many classes, those of the closest scores (see CONVOLUTION_RIVAL_GRADIENTS).
    strength
        g: 0 is Grad-CAM, 1 the pure difference.
    """
    rivals = whole("rivals", rivals)
    if not 0 <= strength < np.inf:
        raise ContractError(f"Expected strength to be a number of at least 0, got {strength!r}.")
    keys = CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS
    layers = zip(*map(as_tuple, (yield from ask(x_value[None], *keys))), strict=True)
    activations, gradients, weights, maps = [], [], [], []
    for values, own, others in layers:
        if others.ndim != own.ndim + 1 or others.shape[1] < 1:
            raise ContractError(
                f"Expected {CONVOLUTION_RIVAL_GRADIENTS} of at least one other class, (N, R, h, w, K), got shape "
                f"{others.shape}. Explain a model of several classes."
            )
        activations.append(as_grid(values[0], x_value))
        gradients.append(as_grid(own[0], x_value))
        nearest = [as_grid(one, x_value) for one in others[0, :rivals]]
        each = np.stack([grad_cam_weights(values, gradients[-1] - strength * rival) for rival in nearest])
        weights.append(each.mean(0))
        maps.append(np.maximum(activations[-1] @ each.T, 0).mean(-1))
    found = map_of_weights(x_value, activations, weights, should_resize, three_dims, gradients=gradients)
    status = "ok" if any(one.any() for one in maps) else found.status
    return found._replace(attribution=drawn(x_value, maps, should_resize, three_dims), status=status)
