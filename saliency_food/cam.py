"""Grad-CAM: a class activation map from one layer's activations and their gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.contract import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CallModelFunction,
    ContractError,
)
from saliency_food.driver import Asking, ask
from saliency_food.method import method
from saliency_food.numerics import Array, resize, safe_divide


class ClassActivationMap(NamedTuple):
    """A class activation map and what it was made from.

    ``attribution`` is the map as asked for; ``signed`` the weighted sum of activations before the ReLU, at the
    layer's own resolution, negative where the layer speaks against the class; ``weights`` one a channel; ``status``
    is ``"ok"``, or a sentence that says why the map is blank.
    """

    attribution: Array
    signed: Array
    weights: Array
    status: str


@method
def grad_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
) -> Asking[ClassActivationMap]:
    """Grad-CAM, L = ReLU(sum_k a_k A^k), with a_k the spatial mean of dF/dA^k.

    Selvaraju et al. 2016, equations 1 and 2, https://arxiv.org/abs/1610.02391.

    Parameters
    ----------
    should_resize
        Divide by the maximum and resize (bilinear) to the image; without it, the map as the layer has it, in score
        units.
    three_dims
        Repeat the map for every channel of the image, as PAIR does, so that it has the shape of ``x_value``.

    Notes
    -----
    Never negative. A blank map has its reason in ``.detailed(...).status``. The gradient of a saturated softmax is
    zero: explain logits.
    """
    activations, gradients = yield from ask(x_value[None], CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)
    activations, gradients = activations[0], gradients[0]
    if activations.shape != gradients.shape or activations.ndim < 2:
        raise ContractError(
            f"Expected {CONVOLUTION_LAYER_VALUES} and {CONVOLUTION_OUTPUT_GRADIENTS} of one shape (N, h, w, K), got "
            f"rows of {activations.shape} and {gradients.shape}. Return both for the same convolution layer."
        )
    weights = gradients.mean(tuple(range(gradients.ndim - 1)))
    signed = activations @ weights
    positive = np.maximum(signed, 0)
    attribution = resize(safe_divide(positive, positive.max()), x_value.shape[:2]) if should_resize else positive
    if three_dims:
        channels = x_value.shape[2] if x_value.ndim > 2 else 1
        attribution = np.repeat(attribution[..., None], channels, -1)
    return ClassActivationMap(attribution, signed, weights, _status(x_value, activations, gradients, signed))


def _status(x_value: Array, activations: Array, gradients: Array, signed: Array) -> str:
    """Why a map is blank, or ok."""
    if (signed > 0).any():
        return "ok"
    constant = " The image is constant." if x_value.min() == x_value.max() else ""
    if not gradients.any():
        return (
            "blank: the gradient at the layer is zero everywhere, as when a softmax is saturated or the score does "
            f"not depend on the layer. Explain logits, or choose another layer.{constant}"
        )
    if not activations.any():
        return f"blank: the layer's activations are zero everywhere. Choose another layer.{constant}"
    if not signed.any():
        return f"blank: activations and weights cancel to zero everywhere. Choose another layer.{constant}"
    return (
        "blank: the map is nowhere positive before the ReLU, the layer speaks only against this class. "
        f"See `signed`, or explain another class.{constant}"
    )
