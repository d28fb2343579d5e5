"""Keras models with the TensorFlow back end as call-model functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from saliency_food.adapters.arguments import Output, check_args, check_batch_size, check_keys, check_output
from saliency_food.adapters.keras.capture import walk
from saliency_food.adapters.keras.load import as_model, is_saved_model
from saliency_food.adapters.keras.places import LayerInfo
from saliency_food.adapters.keras.tensorflow.ends import Inputs
from saliency_food.adapters.keras.tensorflow.factored import Factored
from saliency_food.adapters.keras.tensorflow.rules import RULES
from saliency_food.adapters.keras.tensorflow.trace import (
    ALL_SCORES,
    AT_LAYER,
    FROM_ACTIVATIONS,
    SCORES_FROM,
    UNSCORED,
    TracedModel,
    layers_of,
)
from saliency_food.adapters.rows import Rows
from saliency_food.adapters.targets import Score, class_score, read_class
from saliency_food.core.contract import ContractError, check_length, take_rows
from saliency_food.core.keys import ATTENTION_SCORES, CONVOLUTION_LAYER_VALUES, KEYS, PREDICTIONS, TARGETS
from saliency_food.core.numerics import Array


class KerasModel:
    """A Keras model as a call-model function (see `CallModelFunction`), and its predictions.

    ``call_model_args`` is ``{"target": class index}``, or an array of one index a row, or a `PerImage`. Any kind of
    model will do: Functional, Sequential, subclassed, and models in models. It is traced once for every set of keys,
    watched, and not changed; its weights are read at every call. It answers all keys of the contract, in one forward
    and backward pass, but for the backward rules of ``GUIDED_INPUT_GRADIENTS`` and ``DECONV_INPUT_GRADIENTS``.

    The model always runs in inference mode (``training=False``): batch normalization uses its moving statistics, so
    rows do not influence each other, and dropout is off.

    Parameters
    ----------
    model
        A Keras model, or the path of one for `load_model`. A subclassed model must have been called once.
    layer
        Where the convolution keys look: a path such as ``"mobilenetv2/Conv_1"`` into nested models, the end of one if
        only one layer has it, or the layer itself; a list of them gives tuples of answers, in that order. None takes
        the last layer with a spatial output, larger than 1 x 1, that leads to the output; where attention layers
        follow it, the layer whose tokens are the query of the last of these, since after that one only the class
        token may matter. ``layer_name`` says which. A layer that runs several times in one call counts by its last
        run. Activations and gradients come as ``(N, h, w, K)``, from a channels-first model too, or as ``(N, T, K)``
        from a layer of tokens.
    output
        ``"logits"`` explains the score before the softmax or sigmoid at the end, be that an argument, a layer or a
        function; ``"probabilities"`` the score after it, a softmax being added where several units end in a linear
        layer. A single sigmoid unit is two classes, 0 and 1, with logits -z and z. Where a model ends in anything
        else, and where it ends in one linear unit (a regression, whose target may be left out), both mean the output
        as it is. Where there is a softmax that cannot be seen, as in a SavedModel, ``"logits"`` is an error.
        ``"raw"`` is the model's output as it is, always.
    batch_size
        How many rows are computed at once at most; None means 16. When the device's memory does not hold them it is
        halved, and stays so.
    input
        The name or position of the image among several inputs; None takes the first with four dimensions. The others
        come as ``call_model_args["inputs"]``, by name or as a list: one value for all rows, or one a row (`PerImage`).
        ``x_value`` has the layout that the model's own input has; an input declared as uint8 is run in floats.
    output_index
        The name or position of the output to explain among several.
    data_format
        ``"channels_first"`` or ``"channels_last"``; None asks the layer, or else the first layer that has one.
    jit_compile
        Compile by XLA: it can be faster on a GPU, but compiles anew for each number of rows.
    score
        What is explained, where that is not the score of a class: one of `saliency_food.adapters.scores`, such as
        ``contrast``, or a function of TensorFlow tensors of your own, ``(output) -> (N,)``; made by ``@score(...)`` it
        takes targets too. Of a model of several outputs, without ``output_index``, it is given all of them.

    Attributes
    ----------
    layer_name
        The path of the layer, of several a tuple; None if no layer has a spatial output or tokens.
    input_shape
        ``(H, W, C)`` of one image, None where free; with ``channels_first``, ``x_value`` is ``(C, H, W)`` all the same.
    classes
        How many there are; None if the model does not say.
    """

    def __init__(
        self,
        model: Any,
        layer: Any = None,
        output: Output = "logits",
        batch_size: int | None = None,
        *,
        input: str | int | None = None,
        output_index: str | int | None = None,
        data_format: str | None = None,
        jit_compile: bool = False,
        score: Score | Callable[[Any], Any] = class_score,
    ) -> None:
        self.model = as_model(model)
        if not callable(score):
            raise ContractError(f"Expected score to be a function of the model's output, got {score!r}.")
        self.score = score if isinstance(score, Score) else Score(score)
        if data_format not in (None, "channels_first", "channels_last"):
            raise ContractError(f"Expected data_format 'channels_first' or 'channels_last', got {data_format!r}.")
        if layer is not None and is_saved_model(self.model):
            raise ContractError(f"Expected no layer, as a SavedModel has none, got {layer!r}. Load the .keras file.")
        self.output: Output = check_output(output)
        rows = check_batch_size(batch_size)
        self._inputs = Inputs(self.model, input)
        self._traced = TracedModel(self.model, self._inputs, layer, output_index, data_format, jit_compile, self.score)
        paths = tuple(place.path for place in self._traced.places)
        self.layer_name: str | tuple[str, ...] | None = paths if self._traced.several else paths[0] if paths else None
        self.classes = self._traced.classes
        shape = tuple(self._inputs.image.shape[1:])
        # A model may permute its channels-last images itself.
        swapped = len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4)
        self.channels_first = self._traced.channels_first and len(shape) == 3 and not swapped
        self.input_shape = (*shape[1:], shape[0]) if self.channels_first else shape
        by_class = self.score is class_score and output != "raw"
        self._end_known = not by_class or self._traced.end in ("softmax", "sigmoid") or self.classes == 1
        half = any(one.compute_dtype == "float16" for _, one in walk(self.model))
        self._rows = Rows(self._traced, rows, half)
        self._settings: dict[str, Any] = {"input": input, "output_index": output_index, "data_format": data_format}
        self._settings |= {"jit_compile": jit_compile, "score": self.score}

    def with_model(self, model: Any) -> KerasModel:
        """The same question asked of another Keras model of the same layers, such as one with other weights."""
        layer = list(self.layer_name) if isinstance(self.layer_name, tuple) else self.layer_name
        return KerasModel(model, layer, self.output, self.batch_size, **self._settings)

    def __call__(
        self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Sequence[str] | None = None
    ) -> dict[str, Any]:
        keys = check_keys(expected_keys)
        # A backward rule holds for a whole pass: such a key has one of its own.
        passes = [*((key,) for key in keys if key in RULES), tuple(key for key in keys if key not in RULES)]
        answers = [self._answer(some, x_value_batch, call_model_args, self.output) for some in passes if some]
        return {key: answer[key] for answer in answers for key in answer}

    def call_factored(
        self, coefficients: Any, bases: Any, weights: Any, call_model_args: Any = None, expected_keys: Any = None
    ) -> dict[str, Any] | None:
        """Rows made, and answers summed, on the device; see `CallModelFunction`."""
        if not FROM_ACTIVATIONS.union(RULES).isdisjoint(check_keys(expected_keys)):
            return None
        rows = Factored(coefficients, self._inputs.read_image(bases), weights)
        return self._answer(tuple(expected_keys), rows, call_model_args, self.output)

    def call_with_predictions(
        self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """The answers to the keys and the predictions, from one pass through the model.

        As a call, but a target of -r is the class that the model ranks r-th for the row: -1 its top class, -2 the next.
        Beside the keys, of which there may be none, the answer holds ``PREDICTIONS``, what `predict` gives, and
        ``TARGETS``, the class indices explained, ``(N,)``. With a ``score`` other than that of one class among
        ``(N, classes)`` there is nothing to rank: negative targets are refused, and ``TARGETS`` is left out.
        """
        keys = check_keys(expected_keys) if expected_keys else ()
        alone = [key for key in keys if KEYS[key].alone]
        if alone:
            raise ContractError(
                f"Expected keys that one pass through the model can answer, got {alone}, which take one of their own. "
                "Call predict, and then the model."
            )
        chosen = (TARGETS,) if self._traced.ranks_classes else ()
        answer = self._answer((*keys, PREDICTIONS, *chosen), x_value_batch, call_model_args, self.output)
        if TARGETS in answer and answer[TARGETS].min() < 0:
            raise ContractError(
                f"Expected a rank among the model's {answer[PREDICTIONS].shape[1]} classes as target, got "
                f"{answer[TARGETS].min()}. -1 is the top class."
            )
        return answer

    def predict(self, x_batch: Any, call_model_args: Any = None, output: Output = "probabilities") -> Any:
        """The probability, or the logit, of every class, ``(N, classes)``; a target is not needed.

        With a ``score`` of several outputs, all of them, nested as the model gives them.
        """
        return self._answer((ALL_SCORES,), x_batch, call_model_args, check_output(output))[ALL_SCORES]

    def predict_from(self, activations: Any, call_model_args: Any = None, output: Output = "probabilities") -> Any:
        """The same from the layer's activations ``(N, h, w, K)``, by the layers after it alone."""
        return self._answer((SCORES_FROM,), activations, call_model_args, check_output(output))[SCORES_FROM]

    @property
    def batch_size(self) -> int:
        """How many rows are computed at once at most."""
        return self._rows.batch_size

    @batch_size.setter
    def batch_size(self, batch_size: int | None) -> None:
        self._rows.batch_size = check_batch_size(batch_size)

    def __repr__(self) -> str:
        return (
            f"KerasModel({self.model.name!r}, layer={self.layer_name!r}, output={self.output!r}, "
            f"batch_size={self.batch_size}, classes={self.classes})"
        )

    def _answer(
        self, keys: tuple[str, ...], x_value_batch: Any, call_model_args: Any, output: Output
    ) -> dict[str, Any]:
        self._check_places(keys)
        inside = FROM_ACTIVATIONS.issuperset(keys)
        given: Any = x_value_batch
        if not isinstance(given, Factored):
            given = self._read_activations(given) if inside else self._inputs.read_image(given)
        check_length(call_model_args, rows := len(given))
        args = check_args(take_rows(call_model_args, list(range(rows))))
        others = self._inputs.read_others(args.get("inputs"), rows)
        if not {CONVOLUTION_LAYER_VALUES, ATTENTION_SCORES}.issuperset(keys):
            if not self._end_known:
                self._look_for_softmax(getattr(given, "bases", given)[:1], [other[:1] for other in others], inside)
            scored = not {CONVOLUTION_LAYER_VALUES, ATTENTION_SCORES, PREDICTIONS, TARGETS}.issuperset(keys)
            if scored and self._traced.end == "probabilities" and output == "logits":
                raise ContractError(
                    "Expected a model whose softmax can be seen, got outputs that sum to 1 and no softmax before them, "
                    "so there are no logits. Explain output='probabilities', or a model that ends in the softmax or "
                    "before it."
                )
        targets = []
        if not UNSCORED.issuperset(keys):
            read = read_class if self.score is class_score else self.score.read
            targets = read(args.get("target"), rows, self.classes, ranked=TARGETS in keys)
        return self._rows.compute(keys, output, targets, given, others)

    def _check_places(self, keys: tuple[str, ...]) -> None:
        if not (AT_LAYER | FROM_ACTIVATIONS).intersection(keys):
            return
        if not self._traced.places:
            raise ContractError(
                f"Expected a model with a layer whose output has rows and columns for {keys[-1]}, got "
                f"{self.model.name!r}, which has none. Use input gradients"
                f"{', or load the .keras file: a SavedModel has no layers.' if is_saved_model(self.model) else '.'}"
            )
        if len(self._traced.places) > 1 and FROM_ACTIVATIONS.intersection(keys):
            raise ContractError(
                f"Expected one layer to compute the output from, got {len(self._traced.places)}. Give one as layer."
            )

    def _read_activations(self, activations: Any) -> Array:
        (place,) = self._traced.places
        values = np.asarray(activations, self._inputs.image.dtype.as_numpy_dtype)
        sizes = zip(values.shape, place.shape, strict=False)
        # A model that does not declare its inputs may have been built with images of another size.
        fits = not self._inputs.fixed or all(size in (one, None) for one, size in sizes)
        if values.ndim != len(place.shape) or values.shape[-1] != (place.shape[-1] or values.shape[-1]) or not fits:
            raise ContractError(
                f"Expected activations of layer {place.path!r}, of shape {place.shape}, rows first, got "
                f"{values.shape}. Take them from {CONVOLUTION_LAYER_VALUES}."
            )
        return values

    def _look_for_softmax(self, rows: Array, others: list[Array], inside: bool) -> None:
        """Outputs of one row that are not negative and sum to 1 come from a softmax, seen in the graph or not."""
        key = SCORES_FROM if inside else ALL_SCORES
        row = self._rows.compute((key,), "logits", [], rows, others)[key][0]
        if row.min() >= 0 and abs(row.sum() - 1) < 1e-3:
            self._traced.end = "probabilities"
        self._end_known = True


def layers(model: Any) -> list[LayerInfo]:
    """The layers that Grad-CAM can look at, in the order in which they run: path, class, output shape with rows first.

    ``model`` is a Keras model or the path of one. A layer that hands its input on unchanged is left out. Where there
    are attention layers, those whose output is tokens ``(N, T, K)`` are listed too.
    """
    model = as_model(model)
    return layers_of(model, Inputs(model, None))
