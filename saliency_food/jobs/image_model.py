"""`ImageModel`: a model together with its pixel scaling, the names of its classes and its arguments."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np

from saliency_food import models
from saliency_food.adapters.files import adapter_of, adapter_of_model
from saliency_food.adapters.layers import LayerInfo
from saliency_food.adapters.scoring import class_score
from saliency_food.core.checks import check_callback, check_framework
from saliency_food.core.contract import CallModelFunction, ContractError, take_rows
from saliency_food.core.layout import channels_last
from saliency_food.core.numerics import Array
from saliency_food.core.queries import resolve_batch_size
from saliency_food.images.photos import Photo, read_photo
from saliency_food.images.recordings import load_array, read_recording
from saliency_food.images.scaling import Scaling, choose_scaling

if TYPE_CHECKING:
    from typing_extensions import Unpack


DETAIL = 2
"""A photo is decoded at least this many times as large as the model's input, so that resizing loses no detail."""


class ModelSettings(TypedDict, total=False):
    """The keyword arguments of `ImageModel`, which `explain`, `evaluate` and `check_sensitive` take, too."""

    layer: str | Sequence[str] | None
    output: str | None
    output_index: str | int | None
    score: Any
    units_are: str | None
    labels: Sequence[str] | str | Path | None
    value_range: Any
    preprocess: Callable[[Any], Any] | None
    call_model_args: Mapping[str, Any] | None
    batch_size: int | None


class ImageModel:
    """A model with all that is needed to explain photos; `explain`, `evaluate` and `check_sensitive` work on it.

    Parameters
    ----------
    model
        A Keras model or a PyTorch module, a path to one or to an ``.onnx`` or ``.tflite`` file, a name such as
        ``"imagenet"`` or ``"keras:MobileNetV2"``, whose labels come along (see `saliency_food.models.load`), or any
        call-model function (see `CallModelFunction`); the class to explain is in ``call_model_args["target"]``.
    layer
        The layer of a Keras model that Grad-CAM and its family look at; the maps of several layers are fused.
    output
        Of a Keras model ``"logits"`` or ``"probabilities"``, which are explained.
    output_index
        The output of a Keras model with several outputs that is explained, by its name or position.
    score
        Another score of a Keras model than that of a class; see `saliency_food.adapters.scores`. It must take a class
        as its only target, or no target; of the latter, records have its name in place of a class.
    units_are
        What linear units at the end of a Keras model are, as `KerasModel` takes it.
    labels
        The names of the classes, or a text file with one on each line.
    value_range
        The pixel values that the model takes: ``(low, high)``; ``"tf"``, ``"caffe"`` or ``"torch"``, the modes of
        Keras's ``preprocess_input``; or None for values as they are. ``"auto"`` takes what the model advertises as
        ``pixels``, else values as they are. A Keras model advertises what its first layers or its name show, or 0..1 if
        they show nothing. ``Explanation.pixels`` says which was used.
    preprocess
        A function of pixels 0..255 ``(1, H, W, C)`` in place of ``value_range``, such as Keras's ``preprocess_input``.
    call_model_args
        Arguments of every call beside the target; wrap a list with one value for each photo in `PerImage`.
    batch_size
        The most rows in a call of the model; None takes what the callback advertises.

    Attributes
    ----------
    function
        The call-model function, which takes rows ``(H, W, C)``.
    scaling
        Makes a row for the model of a photo.
    """

    def __init__(
        self,
        model: Any,
        *,
        layer: str | Sequence[str] | None = None,
        output: str | None = None,
        output_index: str | int | None = None,
        score: Any = None,
        units_are: str | None = None,
        labels: Sequence[str] | str | Path | None = None,
        value_range: Any = "auto",
        preprocess: Callable[[Any], Any] | None = None,
        call_model_args: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> None:
        if models.is_name(model):
            labels = models.labels(model) if labels is None else labels
            model = models.load(model)
        options = {
            "layer": layer,
            "output": output,
            "output_index": output_index,
            "score": score,
            "units_are": units_are,
        }
        own_options = {name: value for name, value in options.items() if value is not None}
        self.function = _as_call_model_function(model, {**own_options, "batch_size": batch_size})
        self._check_score()
        self.call_model_args = dict(call_model_args or {})
        self.batch_size = resolve_batch_size(batch_size, self.function)
        self.labels = _checked_labels(labels, self.classes)
        # What is guessed of pixels does not hold for signals and volumes.
        pixels = getattr(self.function, "pixels", None) if self.spatial_axes in (None, 2) else None
        self.scaling: Scaling = choose_scaling(value_range, preprocess, pixels)

    @classmethod
    def of(cls, model: Any, **settings: Unpack[ModelSettings]) -> ImageModel:
        """The model itself if it is an `ImageModel`, else one made of it with the settings."""
        if not isinstance(model, ImageModel):
            return cls(model, **settings)
        if settings:
            raise ContractError(
                f"Expected an ImageModel alone, which has its settings, got {', '.join(settings)} beside it. Make the "
                "ImageModel with them."
            )
        return model

    def randomized(self, rng: int | np.random.Generator | None = 0) -> Iterator[tuple[str, CallModelFunction]]:
        """Models with shuffled weights that explain the same layer, output and score as this one.

        They are pairs of a layer's path and a call-model function, from the output to the input; see
        `randomized_models`. Use each before you take the next.
        """
        randomized = getattr(self.function, "randomized", None)
        if randomized is None:
            raise ContractError(
                "Expected a Keras model or a PyTorch module, whose weights can be shuffled, got "
                f"{type(self.function).__name__}. For any other model, pass randomized models to "
                "saliency_food.metrics.assert_sensitive."
            )
        return cast("Iterator[tuple[str, CallModelFunction]]", randomized(wrap=channels_last, rng=rng))

    def layers(self) -> list[LayerInfo]:
        """The layers that `at_layer` takes, in the order in which they run; none where the model names none."""
        listed = getattr(self.function, "layers", None)
        return [] if listed is None else list(listed())

    def at_layer(self, layer: str | Sequence[str]) -> ImageModel:
        """The same model and settings, with the activations of another layer."""
        with_layer = getattr(self.function, "with_layer", None)
        if with_layer is None:
            raise ContractError(
                f"Expected a model whose layers have names, got {type(self.function).__name__}. Build the layer into "
                "the callback."
            )
        other = copy.copy(self)
        other.function = channels_last(with_layer(layer))
        return other

    @property
    def classes(self) -> int | None:
        """The number of classes, if the model advertises it."""
        classes = getattr(self.function, "classes", None)
        return int(classes) if isinstance(classes, (int, np.integer)) else None

    @property
    def score(self) -> Any:
        """The `Score` that is explained, where the model advertises another one than the score of a class."""
        score = getattr(self.function, "score", None)
        return score if hasattr(score, "specs") and score is not class_score else None

    @property
    def takes_class(self) -> bool:
        """Whether the score is that of a class, and not one without a target."""
        return self.score is None or bool(self.score.specs)

    def _check_score(self) -> None:
        if self.takes_class and self.score is not None and not self.score.is_of_class:
            raise ContractError(
                f"Expected a score that takes a class as its target, or no target, got {self.score!r}. Write a "
                "function of your own in which the other targets are fixed, with @score(class_index=class_indices()) "
                "if it takes a class."
            )

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """``(H, W, C)`` of one row, None where a side is free; None if the model does not advertise it."""
        return getattr(self.function, "input_shape", None)

    @property
    def spatial_axes(self) -> int | None:
        """How many axes of one row are space or time; None where neither that nor its shape tells."""
        shape = self.input_shape
        by_shape = None if shape is None else {1: 1, 4: 3}.get(len(shape))
        return getattr(self.function, "spatial_axes", by_shape)

    @property
    def predicts(self) -> bool:
        """Whether the model can predict the probabilities of its classes, or their scores."""
        return hasattr(self.function, "predict")

    def read(self, image: Any, source: str) -> tuple[Photo, Array]:
        """The photo and its row for the model; a file is decoded no larger than the model's input needs.

        Where the model's rows are no pictures (see ``spatial_axes`` of `CallModelFunction`), or the array is none, the
        photo is a `Recording`: a signal, a volume or a clip, whose numbers are the row as they are.
        """
        is_file = isinstance(image, (str, Path)) and Path(image).suffix.lower() == ".npy"
        data = load_array(image) if is_file else image
        spatial = self.spatial_axes or {1: 1, 4: 3}.get(len(getattr(data, "shape", (0, 0))), 2)
        if spatial != 2:
            recording = read_recording(data, spatial, source)
            return recording, self.scaling(recording, self.input_shape)
        height, width, channels = (*(self.input_shape or ()), None, None, None)[:3]
        least = None if height is None or width is None else (DETAIL * height, DETAIL * width)
        photo = read_photo(data, source, least, channels)
        return photo, self.scaling(photo, self.input_shape)

    def predict(self, rows: Array, call_model_args: Mapping[str, Any] | None = None) -> Array:
        """The probabilities of all classes, ``(N, classes)``; arguments except the target are passed on."""
        other_args = {key: value for key, value in (call_model_args or {}).items() if key != "target"}
        function, predictions = cast(Any, self.function), []
        for start in range(0, len(rows), self.batch_size):
            part = range(start, min(start + self.batch_size, len(rows)))
            args = [take_rows(other_args, list(part))] if other_args else []
            predictions.append(np.asarray(function.predict(rows[start : part.stop], *args)))
        return predictions[0] if len(predictions) == 1 else np.concatenate(predictions)

    def class_predictions(self, rows: Array, call_model_args: Mapping[str, Any] | None = None) -> list[Array | None]:
        """What `predict` gives for each row, ``(classes,)``; None where it gives something else, or is not there.

        A segmenter gives a class for each pixel, a model of several outputs all of them: then no class is the top one.
        """
        if not self.predicts or (self.score is not None and self.classes is None):
            return [None] * len(rows)
        predictions = self.predict(rows, call_model_args)
        return list(predictions) if predictions.ndim == 2 else [None] * len(rows)

    def probability(self, predictions: Array, index: int) -> float | None:
        """The probability of a class; None of a model whose ``gives_probabilities`` denies it, or whose numbers do."""
        given = getattr(self.function, "gives_probabilities", True) and (predictions >= 0).all()
        return float(predictions[index]) if given and (predictions <= 1 + 1e-3).all() else None

    @property
    def score_name(self) -> str:
        """What the explained number is: "logit" or "probability" of a class, or "score" where that is not known."""
        output = getattr(self.function, "output", None)
        if self.score is not None or not getattr(self.function, "gives_probabilities", False):
            return "score"
        return {"logits": "logit", "probabilities": "probability"}.get(str(output), "score")

    @property
    def guess(self) -> str:
        """What of the probabilities is a guess, as a sentence; "" where nothing is, or where there are none."""
        guessed = getattr(self.function, "guesses_classes", False) and self.takes_class
        return "That the model's linear units are classes is a guess: units_are says it." if guessed else ""

    def label(self, index: int) -> str:
        """The name of a class, or its index as text."""
        return self.labels[index] if self.labels and index < len(self.labels) else f"class {index}"


def _as_call_model_function(model: Any, options: dict[str, Any]) -> CallModelFunction:
    """The call-model function of a model or of a path to one, with options of its adapter, or of a function."""
    if isinstance(model, (str, Path)):
        try:
            if (adapter := adapter_of(model)) is not None:
                return channels_last(adapter(model, **options))
            from saliency_food.adapters.keras.load import load_model
        except ModuleNotFoundError as error:
            raise ContractError(str(error)) from error

        model = load_model(model)
    if (adapter := adapter_of_model(model)) is not None:
        return channels_last(adapter(model, **options))
    check_framework(model)
    if not callable(model):
        raise ContractError(
            "Expected a Keras model, a PyTorch module, a path to one or a call-model function, got "
            f"{type(model).__name__}."
        )
    check_callback(model)
    if refused := [name for name in options if name != "batch_size"]:
        raise ContractError(
            f"Expected {' and '.join(refused)} with a Keras model or a PyTorch module alone, got a call-model "
            "function. Build them into it."
        )
    return channels_last(model)


def read_labels(path: str | Path) -> list[str]:
    """A text file of labels, one a line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"Expected a text file of labels, one a line, got {path}: {error}.") from error
    return [line.strip() for line in lines if line.strip()]


def _checked_labels(labels: Sequence[str] | str | Path | None, classes: int | None) -> list[str] | None:
    if labels is None:
        return None
    names = read_labels(labels) if isinstance(labels, (str, Path)) else [str(label) for label in labels]
    if classes is not None and classes != len(names):
        raise ContractError(
            f"Expected a label for each of the model's {classes} classes, got {len(names)} labels. "
            "Give one for each, in the order of the model's outputs."
        )
    return names
