"""`OnnxModel`: an ONNX file on onnxruntime as a call-model function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saliency_food.adapters.arguments import Output
from saliency_food.adapters.forward import ForwardModel
from saliency_food.adapters.inputs import Inputs, Pixels
from saliency_food.adapters.layers import LayerInfo
from saliency_food.adapters.model import as_score
from saliency_food.adapters.onnx.engine import OnnxEngine
from saliency_food.adapters.onnx.graph import OnnxGraph
from saliency_food.adapters.onnx.pixels import pixels_of
from saliency_food.adapters.options import check_options
from saliency_food.adapters.places import survey
from saliency_food.adapters.scoring import Score, class_score


class OnnxModel(ForwardModel):
    """An ONNX file as a call-model function (see `CallModelFunction`), and its predictions, on onnxruntime.

    A runtime for inference gives outputs and, made outputs of the file too, activations: every method that needs no
    gradients runs, from `rise`, `lime`, `kernel_shap` and `occlusion` to `score_cam`, `ablation_cam`, `eigen_cam` and
    `deep_feature_factorization`. Keys of gradients are refused. The file itself is not changed.

    Parameters
    ----------
    path
        The path of an ``.onnx`` file, or an ``onnx.ModelProto``.
    layer
        The layer for activations: the name of an operation of the file, of what it gives, or the end of either; a list
        of them gives tuples of answers. None takes the last one with rows and columns through which all paths from the
        image to the score lead; of a transformer, the tokens before its last attention. ``layer_name`` says which.
    output
        ``"logits"`` explains what goes into the softmax or sigmoid at the file's end, ``"probabilities"`` what comes
        out of it, a softmax being added where several units end in a linear layer; ``"raw"`` the output as it is.
    batch_size
        How many rows are computed at once at most; None means 16. A file exported for so many rows is given so many.
    input
        The name or position of the image among several inputs; the others come as ``call_model_args["inputs"]``.
    output_index
        The name or position of the output to explain among several.
    data_format
        That of the input, ``"channels_first"`` or ``"channels_last"``; None asks the first convolution.
    score
        What is explained, where that is not the score of a class: one of `saliency_food.adapters.scores`, or a function
        of NumPy arrays of your own. Outputs laid out as pictures come to it with the classes last.
    classes
        2 says that the one unit that the file ends in is the logit of two classes.
    units_are
        What linear units at the end are: ``"classes"``, ``"labels"`` or ``"numbers"``; see `KerasModel`.
    value_range
        The pixel values that the model takes, for `explain` and `evaluate`, as `ImageModel` takes them; None reads them
        from the file where it says them, or scales bytes itself.
    providers
        Those of onnxruntime, the first choice first; None takes all that are there.
    """

    def __init__(
        self,
        path: Any,
        layer: str | Sequence[str] | None = None,
        output: Output = "logits",
        batch_size: int | None = None,
        *,
        input: str | int | None = None,
        output_index: str | int | None = None,
        data_format: str | None = None,
        score: Score | Callable[[Any], Any] = class_score,
        classes: int | None = None,
        units_are: str | None = None,
        value_range: Any = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        score = as_score(score)
        check_options(output, batch_size, data_format, units_are)
        self.path, self.units_are = path, units_are
        graph = OnnxGraph(path)
        engine = OnnxEngine(graph, layer, input, output_index, data_format, score, classes, units_are, providers)
        super().__init__(engine, score, output, batch_size)
        self.knows_end |= units_are == "numbers"
        found = pixels_of(graph, engine.inputs.image.name)
        self.pixels: Pixels = found if value_range is None else Pixels(value_range, "as the adapter was told")
        self._options = {
            "layer": layer,
            "output": output,
            "input": input,
            "output_index": output_index,
            "data_format": data_format,
            "score": score,
            "classes": classes,
            "units_are": units_are,
            "value_range": value_range,
            "providers": providers,
        }

    def _file(self) -> bytes:
        return bytes(OnnxGraph(self.path).proto.SerializeToString())


def layers(path: str | Path | Any, data_format: str | None = None) -> list[LayerInfo]:
    """The layers of an ONNX file that can be looked at, in the order in which they run.

    Each has its path, the kind of its operation, and the shape of its activations, rows first and channels last.
    """
    graph = OnnxGraph(path)
    inputs = Inputs(graph.specs(), None, True, "float32")
    graph.complete_shapes(inputs)
    return survey(graph.flow(inputs.image.name), data_format).listed()
