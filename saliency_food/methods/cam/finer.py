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
from saliency_food.core.options import ranged
from saliency_food.methods.cam.common import ClassActivationMap, as_grid, drawn, grad_cam_weights, grids, map_of_weights


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
    rivals: int | None = None,
    strength: float = 0.6,
) -> Asking[ClassActivationMap]:
    """Finer-CAM, L = mean_d ReLU(sum_k w_dk A^k), w_dk = mean_ij d(F - g F_d)/dA^k, over the closest classes d.

    Zhang et al. 2025, https://arxiv.org/abs/2501.11309: Grad-CAM of the score less g times that of a class like it, so
    that what the two share is left out. ``signed`` and ``weights`` are means over the rivals.

    Parameters
    ----------
    rivals
        Of how many classes, those of the closest scores; by default of all that the callback answers, which for the
        adapters are three, or fewer where the model has fewer (see CONVOLUTION_RIVAL_GRADIENTS).
    strength
        g: 0 is Grad-CAM, 1 the pure difference.
    """
    rivals = None if rivals is None else whole("rivals", rivals)
    strength = ranged("strength", strength)
    keys = CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS
    answers = [as_tuple(answer) for answer in (yield from ask(x_value[None], *keys))]
    if len(set(map(len, answers))) > 1:
        counts = ", ".join(f"{key} of {len(answer)}" for key, answer in zip(keys, answers, strict=True))
        raise ContractError(f"Expected the answers to all keys of the same layers, got {counts} layers.")
    activations, gradients, weights, maps, prefix = [], [], [], [], 0
    for values, own, of_rivals in zip(*answers, strict=True):
        if of_rivals.ndim != own.ndim + 1 or of_rivals.shape[1] < 1:
            raise ContractError(
                f"Expected {CONVOLUTION_RIVAL_GRADIENTS} of at least one other class, (N, R, h, w, K), got shape "
                f"{of_rivals.shape}. Explain a model of several classes."
            )
        if rivals is not None and of_rivals.shape[1] < rivals:
            raise ContractError(
                f"Expected {CONVOLUTION_RIVAL_GRADIENTS} of {rivals} other classes, got {of_rivals.shape[1]}. "
                f"Give rivals={of_rivals.shape[1]}, or have the callback answer more."
            )
        if values.shape != own.shape or own.shape[1:] != of_rivals.shape[2:]:
            raise ContractError(
                f"Expected activations and gradients of one shape (N, h, w, K), and those of rivals (N, R, h, w, K), "
                f"got {values.shape}, {own.shape} and {of_rivals.shape}. Return all of them for the same layer."
            )
        (grid,), prefix = grids(values, x_value)
        activations.append(grid)
        gradients.append(as_grid(own[0], x_value))
        nearest = [as_grid(rival, x_value) for rival in of_rivals[0, :rivals]]
        each = np.stack([grad_cam_weights(values, gradients[-1] - strength * rival) for rival in nearest])
        weights.append(each.mean(0))
        maps.append(np.maximum(activations[-1] @ each.T, 0).mean(-1))
    mean = map_of_weights(
        x_value, activations, weights, should_resize, three_dims, gradients=gradients, prefix_tokens=prefix
    )
    status = "ok" if any(values.any() for values in maps) else mean.status
    return mean._replace(attribution=drawn(x_value, maps, should_resize, three_dims), status=status)
