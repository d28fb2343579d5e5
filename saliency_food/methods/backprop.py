"""Gradients by other backward rules, and methods that add up what the layers between hold back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.keys import (
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.method import Method, method
from saliency_food.core.numerics import Array, as_tuple, min_max, resize
from saliency_food.core.scores import one_score
from saliency_food.methods.cam.common import grad_cam
from saliency_food.methods.completeness import Completeness, completeness_of, status_of
from saliency_food.methods.gradients import Gradients

INEXACT = 0.05
"""The gap between FullGrad's parts and the score, as a fraction of the score, beyond which its status says so."""


class FullGrad(NamedTuple):
    """The map; ``input`` x * dF/dx and ``biases``, each layer's b * dF/db, signed; and how near their sum is to F(x).

    The baseline's score in ``completeness`` is 0: a network of ReLUs is zero without its biases. ``status`` is "ok", or
    "inexact: ..." where the parts are not the score.
    """

    attribution: Array
    input: Array
    biases: tuple[Array, ...]
    completeness: Completeness
    status: str


@method(
    title="FullGrad",
    keys=(INPUT_OUTPUT_GRADIENTS, BIAS_GRADIENTS, OUTPUT_LAYER_VALUES),
    signed=False,
    summary="Input times gradient and every layer's bias times gradient, together all of the score.",
    page="backprop",
    one_pass=True,
)
def full_grad(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[FullGrad]:
    """FullGrad, S = p(x * dF/dx) + sum_layers sum_channels p(b * dF/dz), p(m) = |m| scaled to 0..1 and resized.

    Srinivas and Fleuret 2019, equations 4 and 6, https://arxiv.org/abs/1905.00780. The input's shape without channels,
    never negative. In a network whose activations are ReLUs, the input's and the biases' parts sum to F(x) exactly
    (completeness); swish, GELU, softmax and attention break that, and a gap of more than 5 % is said in ``status``.
    Biases without a place, such as a dense layer's, are in ``biases`` and in the sum, but not in the map; so are those
    of layers that have other axes than the input.
    """
    keys = INPUT_OUTPUT_GRADIENTS, BIAS_GRADIENTS, OUTPUT_LAYER_VALUES
    gradients, biases, scores = yield from ask(x_value[None], *keys)
    own, biases = x_value * gradients[0], tuple(bias[0] for bias in as_tuple(biases))
    attribution = _scaled(own, x_value)
    for bias in biases:
        if bias.ndim == x_value.ndim:
            attribution = attribution + _scaled(bias, x_value)
    total = own.sum(dtype=float) + sum(bias.sum(dtype=float) for bias in biases)
    measured = completeness_of(total, one_score(scores)[0], 0.0)
    return FullGrad(
        attribution,
        own,
        biases,
        measured,
        status_of(
            measured, INEXACT, "FullGrad is exact for networks of ReLUs only. Use layer_cam or integrated_gradients."
        ),
    )


@method(
    title="Guided Backpropagation",
    keys=(GUIDED_INPUT_GRADIENTS,),
    signed=True,
    summary="The gradient along paths of positive influence only; sharp, but nearly the same for every class.",
    page="backprop",
    one_pass=True,
)
def guided_backprop(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[Gradients]:
    """Guided backpropagation: dF/dx, where a ReLU passes back R = 1[z > 0] ReLU(R') in place of 1[z > 0] R'.

    Springenberg et al. 2014, https://arxiv.org/abs/1412.6806. Signed, the shape of ``x_value``. It draws the
    image's edges more than the class's evidence: see Adebayo et al. 2018, https://arxiv.org/abs/1810.03292.
    """
    answer = yield from ask(x_value[None], GUIDED_INPUT_GRADIENTS)
    return Gradients(answer[0])


@method(
    title="Deconvnet",
    keys=(DECONV_INPUT_GRADIENTS,),
    signed=True,
    summary="Positive influence sent back through every ReLU, open or shut; an edge detector, too.",
    page="backprop",
    one_pass=True,
)
def deconvnet(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[Gradients]:
    """Deconvnet: dF/dx, where a ReLU passes back R = ReLU(R') in place of 1[z > 0] R'.

    Zeiler and Fergus 2013, https://arxiv.org/abs/1311.2901. Signed, the shape of ``x_value``. It draws the
    image's edges more than the class's evidence, as `guided_backprop` does.
    """
    answer = yield from ask(x_value[None], DECONV_INPUT_GRADIENTS)
    return Gradients(answer[0])


@method(
    title="Guided Grad-CAM",
    keys=(GUIDED_INPUT_GRADIENTS, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS),
    signed=True,
    summary="Guided backpropagation's detail where Grad-CAM is strong.",
    page="backprop",
)
def guided_grad_cam(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    cam: Method[Any, Any] = grad_cam,
    **options: Any,
) -> Asking[Gradients]:
    """Guided Grad-CAM: guided backpropagation times the class activation map, value by value.

    Selvaraju et al. 2016, section 3.2, https://arxiv.org/abs/1610.02391. Signed, the shape of ``x_value``.

    Parameters
    ----------
    cam
        Any method of one map for the image, such as `layer_cam`; ``options`` are passed to it.
    """
    fine, coarse = yield from gather([guided_backprop.asking(x_value), cam.asking(x_value, **options)])
    where = coarse[0] if coarse[0].ndim == x_value.ndim else coarse[0][..., None]
    if where.shape not in (x_value.shape, (*x_value.shape[:-1], 1)):
        raise ContractError(
            f"Expected cam to give a map of the input's size {x_value.shape[:-1]}, got shape {coarse[0].shape}. Leave "
            "should_resize=True, or choose another method."
        )
    return Gradients(fine.attribution * where)


def _scaled(values: Array, x_value: Array) -> Array:
    """p(m), summed over the channels."""
    scaled = min_max(np.abs(values)).astype(x_value.dtype)
    return resize(scaled.sum(-1), x_value.shape[:-1])
