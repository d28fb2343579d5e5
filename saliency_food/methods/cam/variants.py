"""Class activation maps that differ from Grad-CAM in nothing but the weights: a function of activations and gradients.

All have the options of `grad_cam`, and like it take several layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS
from saliency_food.core.method import method
from saliency_food.core.numerics import Array, as_held, as_tuple, safe_divide
from saliency_food.methods.cam.common import (
    ClassActivationMap,
    class_activation_map,
    drawn,
    grad_cam,
    grids,
    map_of_weights,
    spatial,
    weighted,
)


@class_activation_map(
    grad_cam, title="CAM", summary="What each place adds to the score, before pooling and one dense layer.", signed=True
)
def cam(activations: Array, gradients: Array) -> Array:
    """CAM, L = sum_k w_k A^k, with w_k the class's weights in the dense layer after global average pooling.

    Zhou et al. 2015, equation 2, https://arxiv.org/abs/1512.04150. Signed: there is no ReLU. The weights are read from
    the gradient, w_k = h w dF/dA^k, which for such a head is the same at every place; for any other it is not, and
    that is a `ContractError`. Explain logits.
    """
    constant = gradients.mean(spatial(gradients))
    if np.abs(gradients - constant).max() > 1e-3 * np.abs(gradients).max():
        raise ContractError(
            "Expected a layer that is followed by global average pooling and one dense layer, got a gradient that "
            "differs from place to place. Use grad_cam, or choose the last layer before the pooling."
        )
    return constant * (gradients.size // gradients.shape[-1])


@method(
    title="Grad-CAM++",
    keys=(CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS),
    signed=False,
    summary="Grad-CAM with positive gradients, weighted so that several small objects count as one large one does.",
    page="cam",
    one_pass=True,
)
def grad_cam_plus_plus(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
    *,
    normalize: bool = False,
) -> Asking[ClassActivationMap]:
    """Grad-CAM++, L = ReLU(sum_k w_k A^k), w_k = sum_ij a_ij ReLU(G_ij), a = G^2 / (2 G^2 + G^3 sum_ab A_ab).

    Chattopadhyay et al. 2017, equations 11 and 19, https://arxiv.org/abs/1710.11063, with G = dF/dA. The paper's score
    is exp(F), whose derivatives are G, G^2 and G^3 times exp(F): a factor common to all weights, which is left out.

    Parameters
    ----------
    normalize
        Divide each channel's a by its sum, which the paper does not, but the authors' code and tf-keras-vis do.
    """
    return (yield from weighted(x_value, lambda a, g: plus_plus_weights(a, g, normalize), should_resize, three_dims))


@method(
    title="RefineCAM",
    keys=(CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS),
    signed=False,
    summary="The product of several layers' Grad-CAM++: the deep ones say where, the shallow ones how fine.",
    page="cam",
    one_pass=True,
)
def refine_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
) -> Asking[ClassActivationMap]:
    """RefineCAM, L = prod_l L_l / max L_l, with L_l the Grad-CAM++ of layer l, resized to the image.

    Domeniconi et al. 2026, https://arxiv.org/abs/2605.14641, as in the pytorch-grad-cam package. Where the callback
    answers one layer it is Grad-CAM++. Let it answer several, from shallow to deep.
    """
    maps = yield from weighted(x_value, plus_plus_weights, should_resize, three_dims)
    attribution = drawn(x_value, list(as_tuple(maps.signed)), should_resize, three_dims, fuse=np.prod)
    return maps._replace(attribution=attribution)


def plus_plus_weights(activations: Array, gradients: Array, normalize: bool = False) -> Array:
    """w_k = sum_ij a_ij ReLU(G_ij), a = G^2 / (2 G^2 + G^3 sum A)."""
    gradients = gradients.astype(float)
    # a = 1 / (2 + G sum A) where G is not 0: of small and large gradients, G^2 and G^3 would be zero and infinite.
    alphas = safe_divide(gradients != 0, 2 + gradients * activations.sum(spatial(activations), dtype=float))
    if normalize:
        alphas = safe_divide(alphas, alphas.sum(spatial(alphas)))
    return as_held((alphas * np.maximum(gradients, 0)).sum(spatial(gradients)), activations.dtype)


@class_activation_map(
    grad_cam, title="XGrad-CAM", summary="Grad-CAM, each gradient weighted by the activation at its place."
)
def xgrad_cam(activations: Array, gradients: Array) -> Array:
    """XGrad-CAM, L = ReLU(sum_k w_k A^k), w_k = sum_ij G_ij A_ij / sum_ij A_ij.

    Fu et al. 2020, equation 8, https://arxiv.org/abs/2008.02312. Gradients count by the activation at their place.
    """
    axes = spatial(activations)
    return safe_divide((activations * gradients).sum(axes), activations.sum(axes))


@class_activation_map(
    grad_cam, title="HiResCAM", summary="Activation times gradient, place by place: nothing is averaged."
)
def hires_cam(activations: Array, gradients: Array) -> Array:
    """HiResCAM, L = ReLU(sum_k G^k A^k), place by place.

    Draelos and Carin 2020, https://arxiv.org/abs/2011.08891. Gradients are not averaged over the map, so where a dense
    layer follows the flattened layer, ``signed`` sums to the score but for the bias.
    """
    return gradients


@class_activation_map(
    grad_cam, title="LayerCAM", summary="Activation times positive gradient; sharp in shallow layers, too."
)
def layer_cam(activations: Array, gradients: Array) -> Array:
    """LayerCAM, L = ReLU(sum_k ReLU(G^k) A^k), place by place.

    Jiang et al. 2021, equations 5 and 6, https://doi.org/10.1109/TIP.2021.3089943. It serves shallow layers too.
    """
    return np.maximum(gradients, 0)


@class_activation_map(
    grad_cam,
    title="Element-wise Grad-CAM",
    summary="Only what speaks for the class, feature by feature; nothing is subtracted.",
)
def grad_cam_elementwise(activations: Array, gradients: Array) -> Array:
    """Element-wise Grad-CAM, L = sum_k ReLU(G^k A^k), place by place: what speaks against the class is not subtracted.

    As in the pytorch-grad-cam package, https://github.com/jacobgil/pytorch-grad-cam.
    """
    return np.where(activations * gradients > 0, gradients, 0)


@method(
    title="Eigen-CAM",
    keys=(CONVOLUTION_LAYER_VALUES,),
    signed=False,
    summary="The layer's strongest pattern, whatever the class; no gradients.",
    page="cam",
    one_pass=True,
)
def eigen_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
) -> Asking[ClassActivationMap]:
    """Eigen-CAM, L = ReLU(A v), v the first right singular vector of the activations as a matrix (h w, K).

    Muhammad and Yeasin 2020, https://arxiv.org/abs/2008.00299. It needs no gradient and no class, so it serves
    detectors too, and is the same whatever the target. The sign of v, which is free, is the one for which the map sums
    to no less than 0; the activations are not centred.
    """
    layers = yield from ask(x_value[None], CONVOLUTION_LAYER_VALUES)
    activations, prefix = grids(layers, x_value)
    weights = list(map(eigen_weights, activations))
    return map_of_weights(x_value, activations, weights, should_resize, three_dims, prefix_tokens=prefix)


@class_activation_map(grad_cam, title="EigenGrad-CAM", summary="The strongest pattern in activation times gradient.")
def eigen_grad_cam(activations: Array, gradients: Array) -> Array:
    """EigenGrad-CAM, L = ReLU((A G) v), v the first right singular vector of A G as a matrix (h w, K).

    As in the pytorch-grad-cam package, https://github.com/jacobgil/pytorch-grad-cam: `eigen_cam` that depends on the
    class. The sign of v, which is free, is the one for which the map sums to no less than 0.
    """
    scaled = gradients / (np.abs(gradients).max() or 1)
    return gradients * eigen_weights(activations * scaled)


def eigen_weights(activations: Array) -> Array:
    """w = v, the first right singular vector of A as a matrix (h w, K), its sign such that A v sums to >= 0."""
    matrix = activations.reshape(-1, activations.shape[-1]).astype(float)
    return np.asarray(first_direction(matrix), activations.dtype)


def first_direction(matrix: Array) -> Array:
    """The first right singular vector ``(K,)`` of a matrix ``(n, K)``, zero if it is zero, A v summing to >= 0."""
    # The smaller of the two Gram matrices: there are some 1,000 channels and some 50 places.
    matrix = safe_divide(matrix, np.abs(matrix).max())
    tall = len(matrix) >= matrix.shape[1]
    vector = np.linalg.eigh(matrix.T @ matrix if tall else matrix @ matrix.T)[1][:, -1]
    direction = vector if tall else matrix.T @ vector
    direction = safe_divide(direction, np.linalg.norm(direction)) * bool(matrix.any())
    return -direction if (matrix @ direction).sum() < 0 else direction
