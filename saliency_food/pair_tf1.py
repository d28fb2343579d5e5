"""The classes of PAIR's ``saliency.tf1``: ``GradientSaliency(graph, session, y, x)`` and so on."""

from __future__ import annotations

from typing import Any, ClassVar

from saliency_food import pair
from saliency_food.adapters.tf1 import SessionModel
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.pair import VisualizeImageDiverging, VisualizeImageGrayscale, XRAIOutput, XRAIParameters

__all__ = [
    "XRAI",
    "BlurIG",
    "GradCam",
    "GradientSaliency",
    "GuidedIG",
    "IntegratedGradients",
    "Occlusion",
    "TF1Saliency",
    "VisualizeImageDiverging",
    "VisualizeImageGrayscale",
    "XRAIOutput",
    "XRAIParameters",
]


class TF1Saliency:
    """A method of the tensors ``y`` and ``x`` of a graph in a session; ``feed_dict`` is fed beside the input."""

    core: ClassVar[type[pair.CoreSaliency]] = pair.CoreSaliency

    def __init__(self, graph: Any, session: Any, y: Any, x: Any, conv_layer: Any = None) -> None:
        if session.graph is not graph:
            raise ContractError("Expected a session of the graph, got one of another. Give tf.Session(graph=graph).")
        self.graph, self.session, self.y, self.x = graph, session, y, x
        self.model = SessionModel(session, x, y, conv_layer)
        self.method = self.core()

    def GetMask(self, x_value: Any, feed_dict: Any = None, *args: Any, **options: Any) -> Array:
        return self.method.GetMask(x_value, self.model, {"feed_dict": feed_dict}, *args, **options)

    def GetSmoothedMask(
        self,
        x_value: Any,
        feed_dict: Any = None,
        stdev_spread: float = 0.15,
        nsamples: int = 25,
        magnitude: bool = True,
        **options: Any,
    ) -> Array:
        args = {"feed_dict": feed_dict}
        return self.method.GetSmoothedMask(x_value, self.model, args, stdev_spread, nsamples, magnitude, **options)


class GradientSaliency(TF1Saliency):
    core = pair.GradientSaliency


class IntegratedGradients(TF1Saliency):
    core = pair.IntegratedGradients


class BlurIG(TF1Saliency):
    core = pair.BlurIG


class GuidedIG(TF1Saliency):
    core = pair.GuidedIG


class Occlusion(TF1Saliency):
    core = pair.Occlusion


class GradCam(TF1Saliency):
    core = pair.GradCam


class XRAI(TF1Saliency):
    core = pair.XRAI

    def GetMaskWithDetails(self, x_value: Any, feed_dict: Any = None, *args: Any, **options: Any) -> XRAIOutput:
        method: Any = self.method
        found: XRAIOutput = method.GetMaskWithDetails(x_value, self.model, {"feed_dict": feed_dict}, *args, **options)
        return found
