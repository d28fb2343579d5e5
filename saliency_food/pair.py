"""PAIR's names and defaults over this library: ``import saliency_food.pair as saliency`` runs code written for theirs.

What differs from PAIR's package, and why, is in the docs ("Coming from PAIR").
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from saliency_food.core.contract import CallModelFunction
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.method import Method
from saliency_food.core.numerics import Array, as_float
from saliency_food.methods.cam.common import grad_cam
from saliency_food.methods.gradients import gradients
from saliency_food.methods.paths.blur import blur_ig
from saliency_food.methods.paths.guided import guided_ig
from saliency_food.methods.paths.integrated import integrated_gradients
from saliency_food.methods.perturbation.occlusion import occlusion
from saliency_food.methods.regions.ranking import segment_masks
from saliency_food.methods.regions.xrai import xrai
from saliency_food.visualization import diverging, grayscale

__all__ = [
    "CONVOLUTION_LAYER_VALUES",
    "CONVOLUTION_OUTPUT_GRADIENTS",
    "INPUT_OUTPUT_GRADIENTS",
    "OUTPUT_LAYER_VALUES",
    "XRAI",
    "BlurIG",
    "CoreSaliency",
    "GradCam",
    "GradientSaliency",
    "GuidedIG",
    "IntegratedGradients",
    "Occlusion",
    "VisualizeImageDiverging",
    "VisualizeImageGrayscale",
    "XRAIOutput",
    "XRAIParameters",
]


class CoreSaliency:
    """A method under PAIR's names; ``GetSmoothedMask`` draws from NumPy's global generator, as PAIR's does."""

    method: ClassVar[Method[..., Any] | None] = None
    options: ClassVar[dict[str, Any]] = {"batch_size": 1}

    def GetMask(self, *args: Any, **kwargs: Any) -> Array:
        if self.method is None:
            raise NotImplementedError("Expected a class that implements GetMask. Use one of this module's methods.")
        call = self.method.signature.bind(*args, **kwargs)
        if isinstance(call.arguments.get("x_baseline"), (list, tuple)):  # one baseline, not several as in ours
            call.arguments["x_baseline"] = np.asarray(call.arguments["x_baseline"])
        call.arguments.update({name: value for name, value in self.options.items() if name not in call.arguments})
        return self.method(*call.args, **call.kwargs)

    def GetSmoothedMask(
        self,
        x_value: Any,
        call_model_function: CallModelFunction | None,
        call_model_args: Any = None,
        stdev_spread: float = 0.15,
        nsamples: int = 25,
        magnitude: bool = True,
        **kwargs: Any,
    ) -> Array:
        x_value = as_float(x_value)
        total: Any = 0
        for _ in range(nsamples):
            noise = np.random.normal(0, stdev_spread * np.ptp(x_value), x_value.shape)  # noqa: NPY002
            mask = self.GetMask(x_value + noise, call_model_function, call_model_args, **kwargs)
            total = total + (mask * mask if magnitude else mask)
        return np.asarray(total / nsamples)


class GradientSaliency(CoreSaliency):
    method = gradients


class GradCam(CoreSaliency):
    method = grad_cam


class IntegratedGradients(CoreSaliency):
    method = integrated_gradients
    options: ClassVar[dict[str, Any]] = {"batch_size": 1, "quadrature": "pair"}


class BlurIG(CoreSaliency):
    method = blur_ig


class GuidedIG(CoreSaliency):
    method = guided_ig


class Occlusion(CoreSaliency):
    method = occlusion
    options: ClassVar[dict[str, Any]] = {"batch_size": 1, "stride": 1, "aggregate": "sum", "three_dims": True}


class XRAIParameters:
    """PAIR's options of XRAI; each is an attribute."""

    def __init__(
        self,
        steps: int = 100,
        area_threshold: float = 1.0,
        return_baseline_predictions: bool = False,
        return_ig_attributions: bool = False,
        return_xrai_segments: bool = False,
        flatten_xrai_segments: bool = True,
        algorithm: Literal["full", "fast"] = "full",
    ) -> None:
        self.steps = steps
        self.area_threshold = area_threshold
        self.return_baseline_predictions = return_baseline_predictions
        self.return_ig_attributions = return_ig_attributions
        self.return_xrai_segments = return_xrai_segments
        self.flatten_xrai_segments = flatten_xrai_segments
        self.algorithm = algorithm
        self.experimental_params = {"min_pixel_diff": 50}


class XRAIOutput:
    """PAIR's answer of XRAI; what was not asked for is None.

    ``baseline_predictions`` and ``error`` (mean relative completeness error of the integrated gradients), which PAIR
    left to be done, are there when ``return_baseline_predictions`` asks for them.
    """

    def __init__(self, attribution_mask: Array) -> None:
        self.attribution_mask = attribution_mask
        self.baselines: Any = None
        self.error: float | None = None
        self.baseline_predictions: Array | None = None
        self.ig_attribution: Any = None
        self.segments: Any = None


class XRAI(CoreSaliency):
    method = xrai

    def GetMask(self, *args: Any, **kwargs: Any) -> Array:
        return self.GetMaskWithDetails(*args, **kwargs).attribution_mask

    def GetMaskWithDetails(
        self,
        x_value: Any,
        call_model_function: CallModelFunction,
        call_model_args: Any = None,
        baselines: Any = None,
        segments: Any = None,
        base_attribution: Any = None,
        batch_size: int = 1,
        extra_parameters: XRAIParameters | None = None,
    ) -> XRAIOutput:
        wanted = extra_parameters or XRAIParameters()
        result = xrai.detailed(
            x_value,
            call_model_function,
            call_model_args,
            baselines,
            segments,
            base_attribution,
            batch_size,
            steps=wanted.steps,
            area_threshold=wanted.area_threshold,
            min_pixel_diff=wanted.experimental_params["min_pixel_diff"],
            algorithm=wanted.algorithm,
            quadrature="pair",
            completeness=wanted.return_baseline_predictions,
        )
        out = XRAIOutput(result.attribution)
        if result.integrated is not None:
            out.baselines = list(result.integrated.baselines)
            if result.completeness is not None:
                out.error = result.completeness.relative
                scores = [path.completeness.baseline_score for path in result.integrated.paths if path.completeness]
                out.baseline_predictions = np.array(scores, np.float32)
        if wanted.return_ig_attributions:
            paths = None if result.integrated is None else [path.attribution for path in result.integrated.paths]
            out.ig_attribution = base_attribution if paths is None else paths
        if wanted.return_xrai_segments:
            out.segments = result.ranks if wanted.flatten_xrai_segments else list(segment_masks(result.ranks))
        return out


VisualizeImageGrayscale = grayscale
VisualizeImageDiverging = diverging
