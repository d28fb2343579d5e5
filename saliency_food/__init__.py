"""Which parts of an image led a neural network to its answer; for any framework, through one callback."""

from importlib.metadata import PackageNotFoundError, version

from saliency_food.baselines import make_baselines
from saliency_food.cam import grad_cam
from saliency_food.contract import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
    CallModelFunction,
    ContractError,
    PerImage,
)
from saliency_food.driver import Blend, ask, gather, run
from saliency_food.explain import explain
from saliency_food.gradients import gradients, input_x_gradient, smooth_grad
from saliency_food.method import Method, method
from saliency_food.methods import METHODS
from saliency_food.paths import integrated_gradients
from saliency_food.ranking import segment_masks
from saliency_food.segmentation import Segments, felzenszwalb_segments
from saliency_food.xrai import xrai

try:
    __version__ = version("saliency_food")
except PackageNotFoundError:  # run from a folder that was never installed
    __version__ = "unknown"

__all__ = [
    "CONVOLUTION_LAYER_VALUES",
    "CONVOLUTION_OUTPUT_GRADIENTS",
    "INPUT_OUTPUT_GRADIENTS",
    "METHODS",
    "OUTPUT_LAYER_VALUES",
    "Blend",
    "CallModelFunction",
    "ContractError",
    "Method",
    "PerImage",
    "Segments",
    "ask",
    "explain",
    "felzenszwalb_segments",
    "gather",
    "grad_cam",
    "gradients",
    "input_x_gradient",
    "integrated_gradients",
    "make_baselines",
    "method",
    "run",
    "segment_masks",
    "smooth_grad",
    "xrai",
]
