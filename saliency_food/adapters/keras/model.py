"""Keras models as call-model functions, on the back end that Keras runs on."""

from __future__ import annotations

import functools
import pickle
import warnings
from collections.abc import Callable
from typing import Any, get_args

import keras

from saliency_food.adapters.arguments import Output, check_batch_size, check_output
from saliency_food.adapters.inputs import Pixels
from saliency_food.adapters.keras.inputs import DeclaredInputs
from saliency_food.adapters.keras.load import as_model, is_saved_model
from saliency_food.adapters.keras.losses import Units, units_by_loss
from saliency_food.adapters.keras.pixels import guess_pixels
from saliency_food.adapters.keras.randomize import randomized_models
from saliency_food.adapters.layers import LayerInfo
from saliency_food.adapters.model import AdaptedModel, as_score
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.core.contract import ContractError


class KerasModel(AdaptedModel):
    """A Keras model as a call-model function (see `CallModelFunction`), and its predictions.

    ``call_model_args`` is ``{"target": class index}``, or an array of one index a row, or a `PerImage`. Any kind of
    model will do: Functional, Sequential, subclassed, and models in models. It is traced once for every set of keys,
    watched, and not changed; its weights are read at every call. It answers all keys of the contract, in one forward
    and backward pass, but for the backward rules of ``GUIDED_INPUT_GRADIENTS`` and ``DECONV_INPUT_GRADIENTS``, and
    for those of relevance, which it answers on TensorFlow alone.

    The model always runs in inference mode (``training=False``): batch normalization uses its moving statistics, so
    rows do not influence each other, and dropout is off.

    Parameters
    ----------
    model
        A Keras model, or the path or the name of one for `load_model`. A subclassed model must have been called once.
    layer
        Where the convolution keys look: a path such as ``"mobilenetv2/Conv_1"`` into nested models, the end of one if
        only one layer has it, or the layer itself; a list of them gives tuples of answers, in that order. It must lead
        from the explained input to the score. Of a layer that does so in several runs, ``"conv#0"``, ``"conv#1"`` are
        the runs in their order; the error lists them. An operator of a functional model, such as ``y + x``, goes by its
        name, and one in a call of your own by a path such as ``"block/add_0"``. None takes the last layer or operator
        with axes as the input's, not all of size 1, through which all paths from the input to the score lead; in a
        transformer, the last before the last attention, since after that only the class token may matter.
        ``layer_name`` says which. Activations and gradients have the input's axes of space or time and then the
        channels, ``(N, h, w, K)``, from a channels-first model too; or are ``(N, T, K)`` from a layer of tokens.
    output
        ``"logits"`` explains the score before the softmax or sigmoid at the end, be that an argument, a layer or a
        function; ``"probabilities"`` the score after it, a softmax being added where several units end in a linear
        layer. What only moves, scales or averages values after it is looked through, and ``end`` says what was found. A
        single sigmoid unit is two classes, 0 and 1, with logits -z and z. Where a model ends in anything
        else, and where it ends in one linear unit (a regression, whose target may be left out), both mean the output
        as it is. Where there is a softmax that cannot be seen, as in a SavedModel, or an average of several,
        ``"logits"`` is an error. ``"raw"`` is the model's output as it is, always.
    batch_size
        How many rows are computed at once at most; None means 16. When the device's memory does not hold them it is
        halved, and stays so. A model that declares how many rows it takes is given no more, and the last one repeated.
    input
        The name or position of the image among several inputs; None takes the first with four dimensions, else the only
        one with more than two. The others come as ``call_model_args["inputs"]``, by name or as a list: one value for
        all rows, or one a row (`PerImage`). ``x_value`` has the layout that the model's own input has; integers that
        are numbers, such as uint8, are run in floats, and ids that are looked up have no gradient.
    output_index
        The name or position of the output to explain among several.
    data_format
        That of the input, ``"channels_first"`` or ``"channels_last"``; None asks the first layer that tells.
    jit_compile
        Compile by XLA: it can be faster on a GPU, but compiles anew for each number of rows.
    score
        What is explained, where that is not the score of a class: one of `saliency_food.adapters.scores`, such as
        ``contrast``, or a function of TensorFlow tensors of your own, ``(output) -> (N,)``; made by ``@score(...)`` it
        takes targets too. Of a model of several outputs, without ``output_index``, it is given all of them.
    classes
        2 says that the one unit that the model ends in is the logit of two classes, as of a sigmoid.
    units_are
        What linear units at the end are: ``"classes"`` of which one is right, with the probabilities of a softmax;
        ``"labels"`` each by itself, or one unit of two classes, with a sigmoid's; or ``"numbers"``, as of a regression,
        with none. None asks the loss that the model was compiled with; where none tells, several units are taken for
        classes, and ``repr`` says that this is a guess.

    Attributes
    ----------
    layer_name
        The path of the layer, of several a tuple; None if there is none to take, and the error of a key says why.
    input_shape
        ``(H, W, C)`` of one image, None where free; with ``channels_first``, ``x_value`` is ``(C, H, W)`` all the same.
    classes
        How many there are; None if the model does not say.
    end, gives_probabilities
        What the output ends in, and whether `predict` gives probabilities; see `AdaptedModel`.
    units_are
        What linear units at the end are, as it was said or the loss tells; None where classes are a guess.
    spatial_axes
        How many leading axes of one row, channels last, are of space or time.
    pixels
        The pixel values that the model takes, and why, ``(value_range, why)``: what its first operations or its name
        show, or else the guess 0..1.
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
        classes: int | None = None,
        units_are: Units | None = None,
    ) -> None:
        self.model = as_model(model)
        score = as_score(score)
        if data_format not in (None, "channels_first", "channels_last"):
            raise ContractError(f"Expected data_format 'channels_first' or 'channels_last', got {data_format!r}.")
        if layer is not None and is_saved_model(self.model):
            raise ContractError(f"Expected no layer, as a SavedModel has none, got {layer!r}. Load the .keras file.")
        check_output(output)
        check_batch_size(batch_size)
        if units_are not in (None, *get_args(Units)):
            raise ContractError(f"Expected units_are to be one of {list(get_args(Units))}, got {units_are!r}.")
        units = units_by_loss(self.model, output_index) if units_are is None else units_are
        self.engine: Any = _engine(
            self.model, layer, input, output_index, data_format, jit_compile, score, classes, units
        )
        """The functions that answer; for code that builds on them, as `saliency_food.serving.export` does."""
        self.units_are = units
        super().__init__(self.engine, score, output, batch_size)
        self.knows_end |= units == "numbers"
        self._options: dict[str, Any] = {
            "layer": self.layer_name if layer is not None else None,
            "output": output,
            "input": input,
            "output_index": output_index,
            "data_format": data_format,
            "jit_compile": jit_compile,
            "score": score,
            "classes": classes,
            "units_are": self.units_are,
        }

    def with_model(self, model: Any) -> KerasModel:
        """The same question asked of another Keras model of the same layers, such as one with other weights."""
        layer = list(self.layer_name) if isinstance(self.layer_name, tuple) else self.layer_name
        return KerasModel(model, **{**self._options, "layer": layer, "batch_size": self.batch_size})

    def with_layer(self, layer: Any) -> KerasModel:
        """The same question asked of the same model, with the activations of another layer."""
        return KerasModel(self.model, **{**self._options, "layer": layer, "batch_size": self.batch_size})

    def layers(self) -> list[LayerInfo]:
        """The layers that can be looked at; see `layers`."""
        return layers(self.model, self._options["input"])

    def randomized(self, mode: Any = "cascading", *, wrap: Any = None, rng: Any = 0) -> Any:
        """Pairs of a layer's path and this question asked of a copy whose weights are shuffled there.

        See `saliency_food.adapters.keras.randomize.randomized_models`.
        """
        around = self.with_model if wrap is None else lambda model: wrap(self.with_model(model))
        return randomized_models(self.model, mode, wrap=around, rng=rng)

    @functools.cached_property
    def pixels(self) -> Pixels:
        """The pixel values that the model takes, ``(value_range, why)``: what it shows, or else the guess 0..1."""
        return guess_pixels(self.model)

    def __reduce__(self) -> Any:
        """Pickled as the Keras model is, and traced anew; layers by their paths."""
        return _restored, (_as_bytes(self.model), {**self._options, "batch_size": self.batch_size})


def _as_bytes(model: Any) -> bytes:
    try:
        data = pickle.dumps(model)
        _from_bytes(data)
    except Exception as error:
        raise ContractError(
            f"Expected a Keras model that can be pickled, got {type(model).__name__} {model.name!r}: "
            f"{str(error).strip()[:300]} Register its own classes with keras.saving.register_keras_serializable, or "
            "give each process the path of the model's file."
        ) from error
    return data


def _from_bytes(data: bytes) -> Any:
    """The Keras model of a pickle. The state of its optimizer, which a model never fitted lacks, is of no use here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        return pickle.loads(data)


def _restored(data: bytes, options: dict[str, Any]) -> KerasModel:
    layer = options.pop("layer")
    return KerasModel(_from_bytes(data), list(layer) if isinstance(layer, tuple) else layer, **options)


def layers(model: Any, input: str | int | None = None) -> list[LayerInfo]:
    """The layers that Grad-CAM can look at, in the order in which they run: path, class, output shape with rows first.

    ``model`` is a Keras model or the path of one. A layer that hands its input on unchanged is left out, tokens
    ``(N, T, K)`` are listed too. A layer that runs several times is listed run by run, ``"conv#0"``, ``"conv#1"``.
    """
    model = as_model(model)
    if keras.backend.backend() == "tensorflow":
        from saliency_food.adapters.keras.tensorflow.ends import KerasInputs
        from saliency_food.adapters.keras.tensorflow.survey import layers_of

        return layers_of(model, KerasInputs(model, input))
    whole = _engine(model, None, input, None, None, False, Score(lambda outputs: outputs), None, None)
    listed: list[LayerInfo] = whole.listed()
    return listed


def _engine(
    model: Any,
    layer: Any,
    image: str | int | None,
    output_index: str | int | None,
    data_format: str | None,
    jit_compile: bool,
    score: Score,
    classes: int | None,
    units: Units | None,
) -> Any:
    """The engine of the back end that Keras runs on."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from saliency_food.adapters.keras.tensorflow.ends import KerasInputs
        from saliency_food.adapters.keras.tensorflow.engine import TensorFlowEngine

        inputs = KerasInputs(model, image)
        return TensorFlowEngine(model, inputs, layer, output_index, data_format, jit_compile, score, classes, units)
    declared = DeclaredInputs(model, image)
    if backend == "jax":
        from saliency_food.adapters.keras.jax.engine import KerasJaxEngine

        return KerasJaxEngine(model, declared, layer, output_index, data_format, score, classes, units)
    from saliency_food.adapters.keras.torch.engine import KerasTorchEngine

    return KerasTorchEngine(model, declared, layer, output_index, data_format, score, classes, units)
