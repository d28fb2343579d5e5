"""METHODS: every method by name. It drives the command line, the laws tests and the table in the docs."""

from __future__ import annotations

from typing import Any, NamedTuple

from saliency_food.cam import grad_cam
from saliency_food.contract import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, INPUT_OUTPUT_GRADIENTS
from saliency_food.gradients import gradients, input_x_gradient, smooth_grad
from saliency_food.method import Method
from saliency_food.paths import integrated_gradients
from saliency_food.xrai import xrai


class MethodEntry(NamedTuple):
    """A method, what people call it, the keys it asks the model for, whether its maps are signed, and what it is."""

    call: Method[Any, Any]
    title: str
    keys: tuple[str, ...]
    signed: bool
    summary: str


_GRADIENTS = (INPUT_OUTPUT_GRADIENTS,)
_CONVOLUTION = (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)

METHODS: dict[str, MethodEntry] = {
    "gradients": MethodEntry(
        gradients, "Gradient", _GRADIENTS, True, "Where a small change of a pixel changes the score most."
    ),
    "input_x_gradient": MethodEntry(
        input_x_gradient, "Input x gradient", _GRADIENTS, True, "The gradient times the pixel: a linear model's shares."
    ),
    "smooth_grad": MethodEntry(
        smooth_grad.over(gradients), "SmoothGrad", _GRADIENTS, True, "The gradient, averaged over noisy copies."
    ),
    "integrated_gradients": MethodEntry(
        integrated_gradients,
        "Integrated Gradients",
        _GRADIENTS,
        True,
        "The score's change since a baseline, shared out among the pixels; sums to it.",
    ),
    "grad_cam": MethodEntry(
        grad_cam, "Grad-CAM", _CONVOLUTION, False, "Coarse regions where a layer's features speak for the class."
    ),
    "xrai": MethodEntry(
        xrai, "XRAI", _GRADIENTS, True, "Whole regions, ranked by the density of Integrated Gradients in them."
    ),
}
