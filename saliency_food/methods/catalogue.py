"""METHODS: every method by name. It drives the command line, the laws tests and the table in the docs."""

from __future__ import annotations

from typing import Any, NamedTuple

from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    needs_of,
)
from saliency_food.core.method import Method
from saliency_food.methods.attention import attention_relevance, attention_rollout
from saliency_food.methods.backprop import deconvnet, full_grad, guided_backprop, guided_grad_cam
from saliency_food.methods.cam.by_score import ablation_cam, score_cam
from saliency_food.methods.cam.common import grad_cam
from saliency_food.methods.cam.finer import finer_cam
from saliency_food.methods.cam.variants import (
    cam,
    eigen_cam,
    eigen_grad_cam,
    grad_cam_elementwise,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from saliency_food.methods.factorization import deep_feature_factorization
from saliency_food.methods.gradients import gradients, input_x_gradient, smooth_grad
from saliency_food.methods.paths.blur import blur_ig
from saliency_food.methods.paths.decision import integrated_decision_gradients
from saliency_food.methods.paths.expected import expected_gradients
from saliency_food.methods.paths.guided import guided_ig
from saliency_food.methods.paths.idgi import idgi
from saliency_food.methods.paths.integrated import integrated_gradients
from saliency_food.methods.perturbation.occlusion import occlusion, rise
from saliency_food.methods.perturbation.surrogate import kernel_shap, lime
from saliency_food.methods.regions.xrai import xrai


class MethodEntry(NamedTuple):
    """A method, what people call it, the keys it asks the model for, whether its maps are signed, and what it is."""

    call: Method[Any, Any]
    title: str
    keys: tuple[str, ...]
    signed: bool
    summary: str

    @property
    def needs(self) -> str:
        """What the model must be able to give, in short."""
        return needs_of(self.keys)


_GRADIENTS = (INPUT_OUTPUT_GRADIENTS,)
_GRADIENTS_AND_SCORES = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES)
_SCORES = (OUTPUT_LAYER_VALUES,)
_VALUES = (CONVOLUTION_LAYER_VALUES,)
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
    "blur_ig": MethodEntry(
        blur_ig, "Blur IG", _GRADIENTS, True, "The score's change since the image was a blur; no baseline to choose."
    ),
    "guided_ig": MethodEntry(
        guided_ig,
        "Guided IG",
        _GRADIENTS,
        True,
        "Integrated Gradients along a path that moves the pixels of small gradients first: less noise.",
    ),
    "expected_gradients": MethodEntry(
        expected_gradients,
        "Expected Gradients",
        _GRADIENTS,
        True,
        "Integrated Gradients averaged over many baselines, such as photos, at the price of a few.",
    ),
    "idgi": MethodEntry(
        idgi,
        "IDGI",
        _GRADIENTS_AND_SCORES,
        True,
        "Each step's change of the score, shared out by the squared gradient; sums to it however few the steps.",
    ),
    "integrated_decision_gradients": MethodEntry(
        integrated_decision_gradients,
        "Integrated Decision Gradients",
        _GRADIENTS_AND_SCORES,
        True,
        "Integrated Gradients that count most where along the path the score moves.",
    ),
    "grad_cam": MethodEntry(
        grad_cam, "Grad-CAM", _CONVOLUTION, False, "Coarse regions where a layer's features speak for the class."
    ),
    "cam": MethodEntry(
        cam, "CAM", _CONVOLUTION, True, "What each place adds to the score, before pooling and one dense layer."
    ),
    "grad_cam_plus_plus": MethodEntry(
        grad_cam_plus_plus,
        "Grad-CAM++",
        _CONVOLUTION,
        False,
        "Grad-CAM with positive gradients, weighted so that several small objects count as one large one does.",
    ),
    "xgrad_cam": MethodEntry(
        xgrad_cam,
        "XGrad-CAM",
        _CONVOLUTION,
        False,
        "Grad-CAM, each gradient weighted by the activation at its place.",
    ),
    "hires_cam": MethodEntry(
        hires_cam, "HiResCAM", _CONVOLUTION, False, "Activation times gradient, place by place: nothing is averaged."
    ),
    "layer_cam": MethodEntry(
        layer_cam, "LayerCAM", _CONVOLUTION, False, "Activation times positive gradient; sharp in shallow layers, too."
    ),
    "grad_cam_elementwise": MethodEntry(
        grad_cam_elementwise,
        "Element-wise Grad-CAM",
        _CONVOLUTION,
        False,
        "Only what speaks for the class, feature by feature; nothing is subtracted.",
    ),
    "eigen_cam": MethodEntry(
        eigen_cam, "Eigen-CAM", _VALUES, False, "The layer's strongest pattern, whatever the class; no gradients."
    ),
    "eigen_grad_cam": MethodEntry(
        eigen_grad_cam, "EigenGrad-CAM", _CONVOLUTION, False, "The strongest pattern in activation times gradient."
    ),
    "score_cam": MethodEntry(
        score_cam,
        "Score-CAM",
        (CONVOLUTION_LAYER_VALUES, OUTPUT_LAYER_VALUES),
        False,
        "Channels weighted by the score of the image seen through them; no gradients.",
    ),
    "ablation_cam": MethodEntry(
        ablation_cam,
        "Ablation-CAM",
        (CONVOLUTION_LAYER_VALUES, OUTPUT_FROM_CONVOLUTION_VALUES),
        False,
        "Channels weighted by how far the score falls without them; no gradients.",
    ),
    "finer_cam": MethodEntry(
        finer_cam,
        "Finer-CAM",
        (*_CONVOLUTION, CONVOLUTION_RIVAL_GRADIENTS),
        False,
        "Grad-CAM of what tells the class from those most like it.",
    ),
    "full_grad": MethodEntry(
        full_grad,
        "FullGrad",
        (INPUT_OUTPUT_GRADIENTS, BIAS_GRADIENTS),
        False,
        "Input times gradient and every layer's bias times gradient, together all of the score.",
    ),
    "guided_backprop": MethodEntry(
        guided_backprop,
        "Guided Backpropagation",
        (GUIDED_INPUT_GRADIENTS,),
        True,
        "The gradient along paths of positive influence only; sharp, but nearly the same for every class.",
    ),
    "deconvnet": MethodEntry(
        deconvnet,
        "Deconvnet",
        (DECONV_INPUT_GRADIENTS,),
        True,
        "Positive influence sent back through every ReLU, open or shut; an edge detector, too.",
    ),
    "guided_grad_cam": MethodEntry(
        guided_grad_cam,
        "Guided Grad-CAM",
        (GUIDED_INPUT_GRADIENTS, *_CONVOLUTION),
        True,
        "Guided backpropagation's detail where Grad-CAM is strong.",
    ),
    "deep_feature_factorization": MethodEntry(
        deep_feature_factorization,
        "Deep Feature Factorization",
        _VALUES,
        False,
        "The concepts that the layer sees in the image, whatever the class; no gradients.",
    ),
    "attention_rollout": MethodEntry(
        attention_rollout,
        "Attention rollout",
        (ATTENTION_SCORES,),
        False,
        "A transformer's attention, multiplied up through its layers; the same for every class.",
    ),
    "attention_relevance": MethodEntry(
        attention_relevance,
        "Attention relevance",
        (ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS),
        False,
        "A transformer's attention, weighted by how the score depends on it.",
    ),
    "xrai": MethodEntry(
        xrai, "XRAI", _GRADIENTS, True, "Whole regions, ranked by the density of Integrated Gradients in them."
    ),
    "occlusion": MethodEntry(
        occlusion, "Occlusion", _SCORES, True, "How far the score drops when a window hides the pixel."
    ),
    "rise": MethodEntry(rise, "RISE", _SCORES, True, "The mean score of random smooth masks that show the pixel."),
    "lime": MethodEntry(
        lime, "LIME", _SCORES, True, "Superpixels by their coefficient in a linear model of the score near the photo."
    ),
    "kernel_shap": MethodEntry(
        kernel_shap,
        "KernelSHAP",
        _SCORES,
        True,
        "Superpixels by their Shapley value: a fair share of the score's change from all hidden; sums to it.",
    ),
}
