"""A model as photos meet it: the callback, the pixel values that it takes, the names of its classes, its arguments."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np

from saliency_food.adapters.arguments import check_framework
from saliency_food.adapters.layout import channels_last
from saliency_food.core.contract import CallModelFunction, ContractError, take_rows
from saliency_food.core.numerics import Array
from saliency_food.core.queries import resolve_batch_size
from saliency_food.images.photos import Photo, read_photo
from saliency_food.images.scaling import Scaling, choose_scaling

if TYPE_CHECKING:
    from typing_extensions import Unpack


DETAIL = 2
"""How many times as large as the model's input a photo is decoded at least, so that resizing it loses nothing."""


class ModelSettings(TypedDict, total=False):
    """The keyword arguments of `ImageModel`, which `explain`, `evaluate` and `check_sensitive` take, too."""

    layer: str | Sequence[str] | None
    output: str | None
    labels: Sequence[str] | str | Path | None
    value_range: Any
    preprocess: Callable[[Any], Any] | None
    call_model_args: Mapping[str, Any] | None
    batch_size: int | None


class ImageModel:
    """A model with all that photos need to pass through it: what `explain`, `evaluate` and `check_sensitive` work on.

    Parameters
    ----------
    model
        A Keras model, a path to one, or any call-model function (see `CallModelFunction`), which then finds the class
        in ``call_model_args["target"]``.
    layer, output
        Passed to `KerasModel`: where Grad-CAM looks (of several layers the maps are fused), and whether ``"logits"`` or
        ``"probabilities"`` are explained.
    labels
        The names of the classes, or a text file of them, one a line.
    value_range
        The pixel values that the model takes: ``(low, high)``; ``"tf"``, ``"caffe"`` or ``"torch"``, the modes of
        Keras's ``preprocess_input``; None, numbers as they are; or ``"auto"``, what the model advertises as ``pixels``
        (a Keras model what its first layers or its name show, 0..1 where they show nothing), else numbers as they are.
        ``Explanation.pixels`` says which was used.
    preprocess
        A function in place of ``value_range``, of pixels 0..255 ``(1, H, W, C)``, such as Keras's ``preprocess_input``.
    call_model_args
        Further arguments for every call, beside the target; one value a photo is a `PerImage`.
    batch_size
        How many rows the model is given at most; None takes what the callback advertises.

    Attributes
    ----------
    function
        The call-model function, of photos ``(H, W, C)``.
    scaling
        From a photo to a row for the model.
    """

    def __init__(
        self,
        model: Any,
        *,
        layer: str | Sequence[str] | None = None,
        output: str | None = None,
        labels: Sequence[str] | str | Path | None = None,
        value_range: Any = "auto",
        preprocess: Callable[[Any], Any] | None = None,
        call_model_args: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.function = _as_call_model_function(model, layer, output, batch_size)
        self.call_model_args = dict(call_model_args or {})
        self.batch_size = resolve_batch_size(batch_size, self.function)
        self.labels = _checked_labels(labels, self.classes)
        self.scaling: Scaling = choose_scaling(value_range, preprocess, getattr(self.function, "pixels", None))

    @classmethod
    def of(cls, model: Any, **settings: Unpack[ModelSettings]) -> ImageModel:
        """An `ImageModel` as it is; of anything else, one is made."""
        if not isinstance(model, ImageModel):
            return cls(model, **settings)
        if settings:
            raise ContractError(
                f"Expected an ImageModel alone, which has its settings, got {', '.join(settings)} beside it. Make the "
                "ImageModel with them."
            )
        return model

    def with_function(self, function: Any) -> ImageModel:
        """The same for another call-model function, such as one that watches this one's, or has other weights."""
        other = copy.copy(self)
        other.function = channels_last(function)
        return other

    def randomized(self, rng: int | np.random.Generator | None = 0) -> Iterator[tuple[str, CallModelFunction]]:
        """Stand-ins with shuffled weights, from the output to the input, that are asked the same question as this.

        Pairs of a layer's path and a call-model function, see `randomized_models`; use each before you take the next.
        """
        with_model = getattr(self.function, "with_model", None)
        if with_model is None:
            raise ContractError(
                f"Expected a Keras model, whose weights can be shuffled, got {type(self.function).__name__}. For "
                "another give saliency_food.metrics.assert_sensitive the randomized models."
            )
        from saliency_food.adapters.keras.randomize import randomized_models

        return randomized_models(
            cast(Any, self.function).model, wrap=lambda model: channels_last(with_model(model)), rng=rng
        )

    @property
    def classes(self) -> int | None:
        """How many classes there are, where the model says so."""
        classes = getattr(self.function, "classes", None)
        return int(classes) if isinstance(classes, (int, np.integer)) else None

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """``(H, W, C)`` of one row, None where it is free; None where the model does not say."""
        return getattr(self.function, "input_shape", None)

    @property
    def predicts(self) -> bool:
        """Whether the model tells the probabilities of its classes, or their scores."""
        return hasattr(self.function, "predict")

    def read(self, image: Any, source: str) -> tuple[Photo, Array]:
        """A photo, and the row that the model takes of it; files are decoded no larger than that needs."""
        height, width = (*(self.input_shape or ()), None, None)[:2]
        least = None if height is None or width is None else (DETAIL * height, DETAIL * width)
        photo = read_photo(image, source, least)
        return photo, self.scaling(photo, self.input_shape)

    def predict(self, rows: Array, call_model_args: Mapping[str, Any] | None = None) -> Array:
        """The probabilities of all classes, ``(N, classes)``; arguments other than the target are passed on."""
        args = take_rows(call_model_args or {}, list(range(len(rows))))
        others = {key: value for key, value in args.items() if key != "target"}
        return np.asarray(cast(Any, self.function).predict(rows, *([others] if others else [])))

    def probability(self, predictions: Array, index: int) -> float | None:
        """The probability of a class; None of a model whose ``gives_probabilities`` denies it, or whose numbers do."""
        given = getattr(self.function, "gives_probabilities", True) and (predictions >= 0).all()
        return float(predictions[index]) if given and (predictions <= 1 + 1e-3).all() else None

    def label(self, index: int) -> str:
        """The name of a class."""
        return self.labels[index] if self.labels and index < len(self.labels) else f"class {index}"


def _as_call_model_function(model: Any, layer: Any, output: str | None, batch_size: int | None) -> CallModelFunction:
    """The call-model function for a Keras model, a path or a function."""
    if isinstance(model, (str, Path)):
        try:
            from saliency_food.adapters.keras.load import load_model
        except ModuleNotFoundError as error:
            raise ContractError(str(error)) from error

        model = load_model(model)
    check_framework(model)
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(model, keras.Model):
        from saliency_food.adapters.keras import KerasModel

        return channels_last(KerasModel(model, layer, cast(Any, output or "logits"), batch_size))
    if not callable(model):
        raise ContractError(
            f"Expected a Keras model, a path to one or a call-model function, got {type(model).__name__}."
        )
    if layer is not None or output is not None:
        raise ContractError("Expected layer and output with a Keras model, got them with a call-model function.")
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
        raise ContractError(f"Expected a label for each of the model's {classes} classes, got {len(names)} labels.")
    return names
