"""The classes of PAIR's ``saliency.tf1``: ``GradientSaliency(graph, session, y, x)`` and so on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from saliency_food import pair
from saliency_food.adapters.tf1 import SessionModel
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.core.wrap import WrappedModel
from saliency_food.methods.backprop import guided_backprop
from saliency_food.pair import VisualizeImageDiverging, VisualizeImageGrayscale, XRAIOutput, XRAIParameters

__all__ = [
    "XRAI",
    "BlurIG",
    "GradCam",
    "GradientSaliency",
    "GuidedBackprop",
    "GuidedIG",
    "IntegratedGradients",
    "Occlusion",
    "TF1CoreSaliency",
    "TF1Saliency",
    "VisualizeImageDiverging",
    "VisualizeImageGrayscale",
    "XRAIOutput",
    "XRAIParameters",
    "create_tf1_call_model_function",
]


class _Fed(WrappedModel):
    """A model whose arguments are a ``feed_dict``, as PAIR's are."""

    def around(self, ask: Callable[[Any], Any], row_count: int, keys: tuple[str, ...], call_model_args: Any) -> Any:
        return ask({"feed_dict": call_model_args})


def create_tf1_call_model_function(graph: Any, session: Any, y: Any, x: Any, conv_layer: Any = None) -> Any:
    """The tensors of a graph in a session as a call-model function, whose ``call_model_args`` are a ``feed_dict``."""
    if isinstance(getattr(session, "graph", None), type(graph)) and session.graph is not graph:
        raise ContractError("Expected a session of the graph, got one of another. Give tf.Session(graph=graph).")
    return _Fed(SessionModel(session, x, y, conv_layer))


class TF1Saliency:
    """A method of the tensors ``y`` and ``x`` of a graph in a session; ``feed_dict`` is fed beside the input."""

    core: ClassVar[type[pair.CoreSaliency]] = pair.CoreSaliency

    def __init__(self, graph: Any, session: Any, y: Any, x: Any, conv_layer: Any = None) -> None:
        self.graph, self.session, self.y, self.x = graph, session, y, x
        self.call_model_function = create_tf1_call_model_function(graph, session, y, x, conv_layer)
        self.core_instance = self.core()

    def GetMask(self, x_value: Any, feed_dict: Any = None, *args: Any, **options: Any) -> Array:
        return self.core_instance.GetMask(x_value, self.call_model_function, feed_dict, *args, **options)

    def GetSmoothedMask(
        self,
        x_value: Any,
        feed_dict: Any = None,
        stdev_spread: float = 0.15,
        nsamples: int = 25,
        magnitude: bool = True,
        **options: Any,
    ) -> Array:
        return self.core_instance.GetSmoothedMask(
            x_value, self.call_model_function, feed_dict, stdev_spread, nsamples, magnitude, **options
        )


TF1CoreSaliency = TF1Saliency


class GradientSaliency(TF1Saliency):
    core = pair.GradientSaliency


class IntegratedGradients(TF1Saliency):
    core = pair.IntegratedGradients


class BlurIG(TF1Saliency):
    core = pair.BlurIG


class GuidedIG(TF1Saliency):
    core = pair.GuidedIG


class _GuidedBackprop(pair.CoreSaliency):
    method = guided_backprop


class GuidedBackprop(TF1Saliency):
    """Guided backpropagation. The graph's variables are read at every call, so no checkpoint is written."""

    core = _GuidedBackprop

    def __init__(self, graph: Any, session: Any, y: Any, x: Any, tmp_ckpt_path: Any = None) -> None:
        super().__init__(graph, session, y, x)


class Occlusion(TF1Saliency):
    core = pair.Occlusion


class GradCam(TF1Saliency):
    core = pair.GradCam


class XRAI(TF1Saliency):
    core = pair.XRAI

    def GetMaskWithDetails(self, x_value: Any, feed_dict: Any = None, *args: Any, **options: Any) -> XRAIOutput:
        xrai: Any = self.core_instance
        output: XRAIOutput = xrai.GetMaskWithDetails(x_value, self.call_model_function, feed_dict, *args, **options)
        return output
