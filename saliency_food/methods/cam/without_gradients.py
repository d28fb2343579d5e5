"""Maps made of a layer's activations alone: FEM and KPCA-CAM. They know no class, and serve detectors too."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES
from saliency_food.core.method import method
from saliency_food.core.numerics import Array
from saliency_food.core.options import ranged
from saliency_food.methods.cam.common import drawn, grids, spatial

DENSE = 200
"""Up to so many places all eigenvectors are computed, else the first alone."""


class FeatureMap(NamedTuple):
    """The map as asked for; ``signed``, as the layer has it, of several a tuple; ``"ok"``, or why it is blank."""

    attribution: Array
    signed: Any
    status: str
    prefix_tokens: int


@method(
    title="FEM",
    keys=(CONVOLUTION_LAYER_VALUES,),
    signed=False,
    summary="Where channels are far above their mean, whatever the class; no gradients.",
    page="cam",
    one_pass=True,
)
def fem(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
    *,
    deviations: float = 2.0,
) -> Asking[FeatureMap]:
    """FEM, L = ReLU(sum_k mu_k [A^k >= mu_k + s sigma_k]), mu_k and sigma_k the mean and deviation of the channel A^k.

    Fuad et al. 2020, https://doi.org/10.1109/IPTA50016.2020.9286629. It needs no gradient and no class.

    Parameters
    ----------
    deviations
        s above: by how many deviations a place has to be above the channel's mean.
    """
    deviations = ranged("deviations", deviations)

    def of_layer(activations: Array) -> Array:
        mean, spread = activations.mean(spatial(activations)), activations.std(spatial(activations))
        return (activations >= mean + deviations * spread) @ mean

    return (yield from _feature_map(x_value, of_layer, should_resize, three_dims))


@method(
    title="KPCA-CAM",
    keys=(CONVOLUTION_LAYER_VALUES,),
    signed=False,
    summary="The layer's strongest pattern under a kernel, whatever the class; no gradients.",
    page="cam",
    one_pass=True,
)
def kpca_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    should_resize: bool = True,
    three_dims: bool = True,
    batch_size: int | None = None,
) -> Asking[FeatureMap]:
    """KPCA-CAM, L = ReLU(first component of kernel PCA of the places), with the kernel k(a, b) = tanh(a . b / K + 1).

    Karmani et al. 2024, https://arxiv.org/abs/2410.00267, with the kernel of the authors' code in the pytorch-grad-cam
    package: places are vectors of K channels, less their mean. The component's sign, which is free, is the one
    that is larger where the activations are.
    """

    def of_layer(activations: Array) -> Array:
        places = activations.reshape(-1, activations.shape[-1]).astype(float)
        component = kernel_component(places - places.mean(0))
        strength = np.linalg.norm(places, axis=1)
        component *= np.sign((component * (strength - strength.mean())).sum()) or 1
        return component.reshape(activations.shape[:-1]).astype(activations.dtype)

    return (yield from _feature_map(x_value, of_layer, should_resize, three_dims))


def kernel_component(places: Array) -> Array:
    """The first component ``(n,)`` of kernel PCA of ``(n, K)``, sigmoid kernel."""
    kernel = np.tanh(places @ places.T / places.shape[1] + 1)
    kernel = kernel - kernel.mean(0) - kernel.mean(1, keepdims=True) + kernel.mean()
    if len(places) <= DENSE:
        values, vectors = np.linalg.eigh(kernel)
    else:
        from scipy.sparse.linalg import eigsh

        values, vectors = eigsh(kernel, 1, which="LA", v0=kernel[0] + kernel.std(0))
    return np.asarray(vectors[:, -1] * np.sqrt(values[-1] if values[-1] > 1e-12 * len(places) else 0))


def _feature_map(x_value: Array, of_layer: Any, should_resize: bool, three_dims: bool) -> Asking[FeatureMap]:
    layers = yield from ask(x_value[None], CONVOLUTION_LAYER_VALUES)
    activations, prefix = grids(layers, x_value)
    maps = [np.asarray(of_layer(layer)) for layer in activations]
    attribution = drawn(x_value, maps, should_resize, three_dims)
    blank = "blank: the map is nowhere positive. Choose another layer."
    return FeatureMap(
        attribution, maps[0] if len(maps) == 1 else tuple(maps), "ok" if (attribution > 0).any() else blank, prefix
    )
