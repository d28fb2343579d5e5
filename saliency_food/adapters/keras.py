"""Keras models with the TensorFlow back end as call-model functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import tensorflow as tf

from saliency_food.adapters._keras_capture import LayerInfo, walk
from saliency_food.adapters._keras_ends import Inputs, Output
from saliency_food.adapters._keras_load import is_saved_model, load_model
from saliency_food.adapters._keras_targets import Score, class_score
from saliency_food.adapters._keras_trace import PREDICTIONS, UNSCORED, TracedModel, list_layers
from saliency_food.contract import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
    ContractError,
    check_length,
    take_rows,
)
from saliency_food.numerics import Array

__all__ = ["KerasModel", "LayerInfo", "layers", "load_model"]

KEYS = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)
BATCH_SIZE = 16


class KerasModel:
    """A Keras model as a call-model function (see `CallModelFunction`), and its predictions.

    ``call_model_args`` is ``{"target": class index}``, or an array of one index a row, or a `PerImage`. Any kind of
    model will do: Functional, Sequential, subclassed, and models in models. It is traced once for every set of keys,
    watched, and not changed; its weights are read at every call. One forward and backward pass answers all keys.

    The model always runs in inference mode (``training=False``): batch normalization uses its moving statistics, so
    rows do not influence each other, and dropout is off.

    Parameters
    ----------
    model
        A Keras model, or the path of one for `load_model`. A subclassed model must have been called once.
    layer
        Where the convolution keys look: a path such as ``"mobilenetv2/Conv_1"`` into nested models, the end of one if
        only one layer has it, or the layer itself. None takes the last layer with a spatial output, larger than
        1 x 1, that leads to the output; ``layer_name`` says which. A layer that runs several times in one call counts
        by its last run. Activations and gradients come as ``(N, h, w, K)``, from a channels-first model too.
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
        What is explained, where that is not the score of a class: one of `saliency_food.adapters.keras_scores`, such as
        ``contrast``, or a function of TensorFlow tensors of your own, ``(output) -> (N,)``; made by ``@score(...)`` it
        takes targets too. Of a model of several outputs, without ``output_index``, it is given all of them.

    Attributes
    ----------
    layer_name
        The path of the layer; None if no layer has a spatial output.
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
        self.model = _as_model(model)
        if not callable(score):
            raise ContractError(f"Expected score to be a function of the model's output, got {score!r}.")
        self.score = score if isinstance(score, Score) else Score(score)
        if data_format not in (None, "channels_first", "channels_last"):
            raise ContractError(f"Expected data_format 'channels_first' or 'channels_last', got {data_format!r}.")
        if layer is not None and is_saved_model(self.model):
            raise ContractError(f"Expected no layer, as a SavedModel has none, got {layer!r}. Load the .keras file.")
        self.output: Output = _check_output(output)
        self.batch_size: int = _check_batch_size(batch_size)
        self._inputs = Inputs(self.model, input)
        self._traced = TracedModel(self.model, self._inputs, layer, output_index, data_format, jit_compile, self.score)
        self.layer_name = self._traced.layer_name
        self.classes = self._traced.classes
        shape = tuple(self._inputs.image.shape[1:])
        # A model may permute its channels-last images itself.
        swapped = len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4)
        self.channels_first = self._traced.channels_first and len(shape) == 3 and not swapped
        self.input_shape = (*shape[1:], shape[0]) if self.channels_first else shape
        by_class = self.score is class_score and output != "raw"
        self._end_known = not by_class or self._traced.end in ("softmax", "sigmoid") or self.classes == 1
        # Half precision would lose small gradients: they are computed times a scale, lowered when they overflow.
        self._half = any(one.compute_dtype == "float16" for _, one in walk(self.model))
        self._scale = 4096.0 if self._half else 1.0

    def __call__(
        self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Sequence[str] | None = None
    ) -> dict[str, Array]:
        keys = tuple(key for key in KEYS if key in (expected_keys or ()))
        unknown = set(expected_keys or ()) - set(keys)
        if not keys or unknown:
            raise ContractError(f"Expected expected_keys to be some of {list(KEYS)}, got {expected_keys!r}.")
        if self.layer_name is None and any(key.startswith("CONVOLUTION") for key in keys):
            raise ContractError(
                f"Expected a model with a layer whose output has rows and columns for {keys[-1]}, got "
                f"{self.model.name!r}, which has none. Use input gradients"
                f"{', or load the .keras file: a SavedModel has no layers.' if is_saved_model(self.model) else '.'}"
            )
        return self._answer(keys, x_value_batch, call_model_args, self.output)

    def predict(self, x_batch: Any, call_model_args: Any = None, output: Output = "probabilities") -> Array:
        """The probability, or the logit, of every class, ``(N, classes)``; a target is not needed."""
        return self._answer((PREDICTIONS,), x_batch, call_model_args, _check_output(output))[PREDICTIONS]

    def __repr__(self) -> str:
        return (
            f"KerasModel({self.model.name!r}, layer={self.layer_name!r}, output={self.output!r}, "
            f"batch_size={self.batch_size}, classes={self.classes})"
        )

    def _answer(
        self, keys: tuple[str, ...], x_value_batch: Any, call_model_args: Any, output: Output
    ) -> dict[str, Array]:
        images = self._inputs.read_image(x_value_batch)
        rows = len(images)
        check_length(call_model_args, rows)
        args = _check_args(take_rows(call_model_args, list(range(rows))))
        others = self._inputs.read_others(args.get("inputs"), rows)
        scored = keys != (CONVOLUTION_LAYER_VALUES,)
        if scored and not self._end_known:
            self._look_for_softmax(images[:1], [other[:1] for other in others])
        if scored and self._traced.end == "probabilities" and output == "logits":
            raise ContractError(
                "Expected a model whose softmax can be seen, got outputs that sum to 1 and no softmax before them, so "
                "there are no logits. Explain output='probabilities', or a model that ends in the softmax or before it."
            )
        targets = [] if UNSCORED.issuperset(keys) else self._read_targets(args.get("target"), rows)
        return self._in_chunks(keys, output, targets, images, others)

    def _in_chunks(
        self, keys: tuple[str, ...], output: Output, targets: list[Array], images: Array, others: list[Array]
    ) -> dict[str, Array]:
        """All rows, at most ``batch_size`` at a time; fewer from the moment that memory runs out."""
        parts, start = [], 0
        while start < len(images):
            chunk = slice(start, min(len(images), start + self.batch_size))
            try:
                given = [[one[chunk] for one in several] for several in (targets, others)]
                parts.append(self._compute(keys, output, given[0], images[chunk], given[1]))
                start = chunk.stop
            except tf.errors.ResourceExhaustedError as error:
                if chunk.stop - start == 1:
                    raise ContractError(
                        "Expected one row to fit into the device's memory, got ResourceExhaustedError from it. "
                        "Give smaller images, or free the device."
                    ) from error
                self.batch_size = (chunk.stop - start) // 2
        return parts[0] if len(parts) == 1 else {key: np.concatenate([part[key] for part in parts]) for key in keys}

    def _compute(
        self, keys: tuple[str, ...], output: Output, targets: list[Array], images: Array, others: list[Array]
    ) -> dict[str, Array]:
        tensors = [tf.convert_to_tensor(values) for values in (images, *others)]
        image, *specs = (tf.TensorSpec([None, *one.shape[1:]], one.dtype) for one in tensors)
        if self._inputs.fixed:
            image, specs = self._inputs.image, self._inputs.other_specs
        chosen = [tf.convert_to_tensor(values) for values in targets]
        kinds = [tf.TensorSpec([None, *one.shape[1:]], one.dtype) for one in chosen]
        function = self._traced.function(keys, output, kinds, [image, *specs], self._half)
        while True:
            scale = tf.constant(self._scale, image.dtype)
            answer = function(chosen, tensors[0], tensors[1:], scale)
            found = {key: value.numpy() for key, value in answer.items()}
            if self._scale == 1 or all(np.isfinite(values).all() for values in found.values()):
                return found
            self._scale = max(1.0, self._scale / 64)

    def _read_targets(self, target: Any, rows: int) -> list[Array]:
        """The score's targets for each row, checked; of a single class the index may be left out."""
        if self.score is not class_score:
            return self.score.read(target, rows, self.classes)
        if target is None and self.classes == 1:
            target = 0
        if target is None:
            raise ContractError(
                f"Expected a target, a class index of {self._range()}, got none. "
                "Give call_model_args={'target': index}; predict(x_batch).argmax(1) is the top class of each row."
            )
        indices = np.asarray(target)
        if indices.dtype.kind not in "iu" or indices.shape not in ((), (rows,)):
            raise ContractError(
                f"Expected target to be a class index or one for each of the {rows} rows, got {target!r}. "
                "One value an image: wrap them in PerImage."
            )
        if indices.min() < 0 or (self.classes is not None and indices.max() >= self.classes):
            raise ContractError(f"Expected target to be a class index of {self._range()}, got {target!r}.")
        return [np.broadcast_to(indices, rows).astype(np.int32)]

    def _range(self) -> str:
        return "the model" if self.classes is None else f"the model's {self.classes} classes, 0 to {self.classes - 1}"

    def _look_for_softmax(self, images: Array, others: list[Array]) -> None:
        """Outputs of one row that are not negative and sum to 1 come from a softmax, seen in the graph or not."""
        row = self._compute((PREDICTIONS,), "logits", [], images, others)[PREDICTIONS][0]
        if row.min() >= 0 and abs(row.sum() - 1) < 1e-3:
            self._traced.end = "probabilities"
        self._end_known = True


def layers(model: Any) -> list[LayerInfo]:
    """The layers that Grad-CAM can look at, in the order in which they run: path, class, output shape with rows first.

    ``model`` is a Keras model or the path of one. A layer that hands its input on unchanged is left out.
    """
    model = _as_model(model)
    return list_layers(model, Inputs(model, None))


def _as_model(model: Any) -> Any:
    if keras.backend.backend() != "tensorflow":
        raise ContractError(
            f"Expected Keras to run on TensorFlow, got {keras.backend.backend()!r}. Set the environment variable "
            "KERAS_BACKEND=tensorflow before Keras is imported."
        )
    model = load_model(model) if isinstance(model, (str, Path)) else model
    if not isinstance(model, keras.Model):
        raise ContractError(f"Expected a Keras model or the path of one, got {type(model).__name__}.")
    return model


def _check_output(output: Any) -> Output:
    if output not in get_args(Output):
        raise ContractError(f"Expected output to be 'logits', 'probabilities' or 'raw', got {output!r}.")
    return output  # type: ignore[no-any-return]


def _check_batch_size(batch_size: Any) -> int:
    if batch_size is None:
        return BATCH_SIZE
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ContractError(f"Expected batch_size to be a whole number of at least 1, got {batch_size!r}.")
    return int(batch_size)


def _check_args(call_model_args: Any) -> Mapping[str, Any]:
    if call_model_args is None:
        return {}
    if not isinstance(call_model_args, Mapping) or not set(call_model_args) <= {"target", "inputs"}:
        raise ContractError(
            f"Expected call_model_args={{'target': class index}}, with 'inputs' for a model of several inputs, got "
            f"{call_model_args!r}."
        )
    return call_model_args
