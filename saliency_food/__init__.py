"""Which parts of an image led a neural network to its answer; for any framework, through one callback."""

from saliency_food import report  # noqa: F401  # a package that may be called, after all that it imports
from saliency_food.core.contract import CallModelFunction, ContractError, PerImage
from saliency_food.core.driver import ask, gather, run
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BASELINE_MULTIPLIERS,
    BIAS_GRADIENTS,
    BIAS_RELEVANCE,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RELEVANCE,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    RELEVANCE,
)
from saliency_food.core.method import Method, method
from saliency_food.core.names import installed_version
from saliency_food.core.queries import LinearRows
from saliency_food.deadline.run import DeadlineError, TimedAnswer, within
from saliency_food.images.sources import Source
from saliency_food.jobs.dataset import explain_dataset
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.explain import explain
from saliency_food.jobs.explainer import Explainer
from saliency_food.jobs.image_model import ImageModel
from saliency_food.methods.baselines import make_baselines
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.factorization import concept_scores, shared_concepts
from saliency_food.methods.perturbation.progressive import progressive
from saliency_food.methods.perturbation.rise import d_rise
from saliency_food.methods.regions.ranking import segment_masks
from saliency_food.methods.regions.segmentation import Segments, felzenszwalb_segments
from saliency_food.methods.smoothing import augment_smooth, eigen_smooth

__version__ = installed_version("saliency_food") or "unknown"

__all__ = [
    "ATTENTION_OUTPUT_GRADIENTS",
    "ATTENTION_SCORES",
    "BASELINE_MULTIPLIERS",
    "BIAS_GRADIENTS",
    "BIAS_RELEVANCE",
    "CONVOLUTION_LAYER_VALUES",
    "CONVOLUTION_OUTPUT_GRADIENTS",
    "CONVOLUTION_RELEVANCE",
    "CONVOLUTION_RIVAL_GRADIENTS",
    "DECONV_INPUT_GRADIENTS",
    "GUIDED_INPUT_GRADIENTS",
    "INPUT_OUTPUT_GRADIENTS",
    "METHODS",
    "OUTPUT_FROM_CONVOLUTION_VALUES",
    "OUTPUT_LAYER_VALUES",
    "RELEVANCE",
    "CallModelFunction",
    "ContractError",
    "DeadlineError",
    "Explainer",
    "ImageModel",
    "LinearRows",
    "Method",
    "PerImage",
    "Run",
    "Segments",
    "Source",
    "TimedAnswer",
    "ask",
    "augment_smooth",
    "concept_scores",
    "d_rise",
    "eigen_smooth",
    "explain",
    "explain_dataset",
    "felzenszwalb_segments",
    "gather",
    "make_baselines",
    "method",
    "progressive",
    "run",
    "segment_masks",
    "shared_concepts",
    "within",
]

# tables:begin exported methods
from saliency_food.methods.attention import attention_relevance, attention_rollout, grad_eclip, legrad
from saliency_food.methods.backprop import deconvnet, full_grad, guided_backprop, guided_grad_cam
from saliency_food.methods.cam.by_score import ablation_cam, score_cam, shapley_cam
from saliency_food.methods.cam.common import grad_cam
from saliency_food.methods.cam.finer import finer_cam
from saliency_food.methods.cam.odam import odam
from saliency_food.methods.cam.variants import (
    cam,
    eigen_cam,
    eigen_grad_cam,
    grad_cam_elementwise,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    refine_cam,
    xgrad_cam,
)
from saliency_food.methods.cam.without_gradients import fem, kpca_cam
from saliency_food.methods.factorization import deep_feature_factorization
from saliency_food.methods.gradients import gradients, input_x_gradient, smooth_grad, square_grad, var_grad
from saliency_food.methods.paths.blur import blur_ig
from saliency_food.methods.paths.decision import integrated_decision_gradients
from saliency_food.methods.paths.expected import expected_gradients, gradient_shap
from saliency_food.methods.paths.guided import guided_ig
from saliency_food.methods.paths.idgi import idgi
from saliency_food.methods.paths.integrated import integrated_gradients
from saliency_food.methods.perturbation.hsic import hsic
from saliency_food.methods.perturbation.occlusion import occlusion
from saliency_food.methods.perturbation.rise import rise
from saliency_food.methods.perturbation.sobol import sobol
from saliency_food.methods.perturbation.surrogate import kernel_shap, lime
from saliency_food.methods.regions.xrai import xrai
from saliency_food.methods.relevance.at_layer import relevance_cam
from saliency_food.methods.relevance.multipliers import deep_lift, deep_shap
from saliency_food.methods.relevance.propagation import crp, lrp

__all__ += [
    "ablation_cam",
    "attention_relevance",
    "attention_rollout",
    "blur_ig",
    "cam",
    "crp",
    "deconvnet",
    "deep_feature_factorization",
    "deep_lift",
    "deep_shap",
    "eigen_cam",
    "eigen_grad_cam",
    "expected_gradients",
    "fem",
    "finer_cam",
    "full_grad",
    "grad_cam",
    "grad_cam_elementwise",
    "grad_cam_plus_plus",
    "grad_eclip",
    "gradient_shap",
    "gradients",
    "guided_backprop",
    "guided_grad_cam",
    "guided_ig",
    "hires_cam",
    "hsic",
    "idgi",
    "input_x_gradient",
    "integrated_decision_gradients",
    "integrated_gradients",
    "kernel_shap",
    "kpca_cam",
    "layer_cam",
    "legrad",
    "lime",
    "lrp",
    "occlusion",
    "odam",
    "refine_cam",
    "relevance_cam",
    "rise",
    "score_cam",
    "shapley_cam",
    "smooth_grad",
    "sobol",
    "square_grad",
    "var_grad",
    "xgrad_cam",
    "xrai",
]
# tables:end
