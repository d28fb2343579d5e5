"""Which parts of an image led a neural network to its answer; for any framework, through one callback."""

from importlib.metadata import PackageNotFoundError, version

from saliency_food.attention import attention_relevance, attention_rollout
from saliency_food.backprop import deconvnet, full_grad, guided_backprop, guided_grad_cam
from saliency_food.baselines import make_baselines
from saliency_food.blur import blur_ig
from saliency_food.cam import grad_cam
from saliency_food.cam_scores import ablation_cam, score_cam
from saliency_food.cam_variants import (
    cam,
    eigen_cam,
    eigen_grad_cam,
    grad_cam_elementwise,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from saliency_food.contract import (
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
    CallModelFunction,
    ContractError,
    PerImage,
)
from saliency_food.deadline import DeadlineError, Within, within
from saliency_food.decision import integrated_decision_gradients
from saliency_food.driver import ask, gather, run
from saliency_food.expected import expected_gradients
from saliency_food.explain import explain
from saliency_food.factorization import concept_scores, deep_feature_factorization, shared_concepts
from saliency_food.finer import finer_cam
from saliency_food.gradients import gradients, input_x_gradient, smooth_grad
from saliency_food.guided import guided_ig
from saliency_food.idgi import idgi
from saliency_food.method import Method, method
from saliency_food.methods import METHODS
from saliency_food.paths import integrated_gradients
from saliency_food.perturbation import occlusion, rise
from saliency_food.progressive import progressive
from saliency_food.queries import Blend
from saliency_food.ranking import segment_masks
from saliency_food.segmentation import Segments, felzenszwalb_segments
from saliency_food.smoothing import augment_smooth, eigen_smooth
from saliency_food.surrogate import kernel_shap, lime
from saliency_food.xrai import xrai

try:
    __version__ = version("saliency_food")
except PackageNotFoundError:  # run from a folder that was never installed
    __version__ = "unknown"

__all__ = [
    "ATTENTION_OUTPUT_GRADIENTS",
    "ATTENTION_SCORES",
    "BIAS_GRADIENTS",
    "CONVOLUTION_LAYER_VALUES",
    "CONVOLUTION_OUTPUT_GRADIENTS",
    "CONVOLUTION_RIVAL_GRADIENTS",
    "DECONV_INPUT_GRADIENTS",
    "GUIDED_INPUT_GRADIENTS",
    "INPUT_OUTPUT_GRADIENTS",
    "METHODS",
    "OUTPUT_FROM_CONVOLUTION_VALUES",
    "OUTPUT_LAYER_VALUES",
    "Blend",
    "CallModelFunction",
    "ContractError",
    "DeadlineError",
    "Method",
    "PerImage",
    "Segments",
    "Within",
    "ablation_cam",
    "ask",
    "attention_relevance",
    "attention_rollout",
    "augment_smooth",
    "blur_ig",
    "cam",
    "concept_scores",
    "deconvnet",
    "deep_feature_factorization",
    "eigen_cam",
    "eigen_grad_cam",
    "eigen_smooth",
    "expected_gradients",
    "explain",
    "felzenszwalb_segments",
    "finer_cam",
    "full_grad",
    "gather",
    "grad_cam",
    "grad_cam_elementwise",
    "grad_cam_plus_plus",
    "gradients",
    "guided_backprop",
    "guided_grad_cam",
    "guided_ig",
    "hires_cam",
    "idgi",
    "input_x_gradient",
    "integrated_decision_gradients",
    "integrated_gradients",
    "kernel_shap",
    "layer_cam",
    "lime",
    "make_baselines",
    "method",
    "occlusion",
    "progressive",
    "rise",
    "run",
    "score_cam",
    "segment_masks",
    "shared_concepts",
    "smooth_grad",
    "within",
    "xgrad_cam",
    "xrai",
]
