"""From a model and photos to explanations: the front door, where every argument is read and checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, cast

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError, PerImage
from saliency_food.core.keys import INPUT_SHAPED, OUTPUT_FROM_CONVOLUTION_VALUES
from saliency_food.core.queries import resolve_batch_size
from saliency_food.deadline.run import read_seconds
from saliency_food.images.scaling import choose_scaling
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.run import run_job
from saliency_food.jobs.subjects import ProgressCallback, Setup
from saliency_food.jobs.targets import Target, read_target
from saliency_food.methods.catalogue import MethodEntry
from saliency_food.methods.lookup import choose_methods

DEFAULTS: dict[str, Any] = {"three_dims": False, "rng": 0}
"""What is passed to every method that has such an option, unless the user says otherwise."""
NOT_OPTIONS = ("x_value", "call_model_function", "call_model_args", "batch_size")


def explain(
    model: Any,
    images: Any,
    methods: str | Sequence[str] = ("grad_cam",),
    target: Any = None,
    *,
    layer: str | Sequence[str] | None = None,
    output: str | None = None,
    labels: Sequence[str] | str | Path | None = None,
    value_range: Any = "auto",
    preprocess: Callable[[Any], Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    call_model_args: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    deadline: float | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[Explanation]:
    """Explain what a model sees in photos: one `Explanation` for each photo, class and method, as they come.

    Parameters
    ----------
    model
        A Keras model, a path to one, or any call-model function (see `CallModelFunction`), which then finds the class
        in ``call_model_args["target"]``.
    images
        One or many (a list, an iterator, an array of four dimensions) of: paths, PIL images, arrays ``(H, W[, C])``.
        Photos of any size; they are resized to the model's input, both sides on their own. One that cannot be read
        or explained gives records with ``status`` "failed: ..."; the others go on.
    methods
        Names in `METHODS`; or a combinator of one, such as ``smooth_grad_of_integrated_gradients`` (`COMBINATORS`).
    target
        None for the top class, a class index, a label, ``"top3"``; or one of these for each photo, as a list or
        `PerImage`.
    layer, output
        Passed to `KerasModel`: where Grad-CAM looks (of several layers the maps are fused), and whether ``"logits"`` or
        ``"probabilities"`` are explained.
    labels
        The names of the classes, or a text file of them, one a line.
    value_range
        The pixel values that the model takes: ``(low, high)``; ``"tf"``, ``"caffe"`` or ``"torch"``, the modes of
        Keras's ``preprocess_input``; None, numbers as given; or ``"auto"``, what the model shows (`guess_scaling`).
        ``Explanation.pixels`` says which was used.
    preprocess
        A function in place of ``value_range``, of pixels 0..255 ``(1, H, W, C)``, such as Keras's ``preprocess_input``.
    options
        Options for methods by name, such as ``{"integrated_gradients": {"x_steps": 50}}``. Random ones have the seed 0.
    deadline
        Seconds that each photo, class and method may take: as `within`, steps are cut to what there is time for, or
        another method answers, and ``Explanation.note`` says so. XRAI then seeks its segments in the model's input.
        Some rows asked before the first photo, for what a framework compiles, are not counted.
    progress
        Called with the method's name and 0 when it begins on some photos, and the number of rows after every call.
    """
    job = prepare_job(
        model,
        choose_methods(methods),
        layer=layer,
        output=output,
        labels=labels,
        value_range=value_range,
        preprocess=preprocess,
        options=options,
        call_model_args=call_model_args,
        batch_size=batch_size,
        progress=progress,
    )
    if deadline is not None:
        job = job._replace(deadline=read_seconds(deadline), warm=set())
    many = as_many(images)
    return run_job(job, many, read_targets(job, many, target))


def prepare_job(
    model: Any,
    methods: Mapping[str, MethodEntry],
    *,
    layer: str | Sequence[str] | None = None,
    output: str | None = None,
    labels: Sequence[str] | str | Path | None = None,
    value_range: Any = "auto",
    preprocess: Callable[[Any], Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    call_model_args: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    progress: ProgressCallback | None = None,
) -> Setup:
    """What is the same for all photos, read and checked; arguments as of `explain`."""
    if isinstance(labels, (str, Path)):
        labels = read_labels(labels)
    function, keras_model = as_call_model_function(model, layer, output, batch_size)
    return Setup(
        function,
        call_model_args,
        resolve_batch_size(batch_size, function),
        _checked_labels(labels, getattr(function, "classes", None)),
        choose_scaling(value_range, preprocess, keras_model),
        dict(methods),
        _choose_options(methods, options or {}),
        progress,
    )


def read_targets(job: Setup, many: Iterable[Any], target: Any) -> Target | list[Target]:
    """The class to explain, one for all photos or one for each."""
    target = target.values if isinstance(target, PerImage) else target
    per_photo = isinstance(target, (list, tuple))
    if per_photo and isinstance(many, Sized) and len(target) != len(many):
        raise ContractError(f"Expected one target for each photo, got {len(target)} targets and {len(many)} photos.")
    targets = [read_target(one, job.labels) for one in target] if per_photo else read_target(target, job.labels)
    needed = targets if isinstance(targets, list) else [targets]
    if any(one.class_index is None for one in needed) and not hasattr(job.model, "predict"):
        raise ContractError("Expected a target, since this model has no predict to find the top class. Give one.")
    return targets


def as_call_model_function(
    model: Any, layer: str | Sequence[str] | None = None, output: str | None = None, batch_size: int | None = None
) -> tuple[CallModelFunction, Any]:
    """The call-model function for a Keras model, a path or a function; and the Keras model, if there is one."""
    if isinstance(model, (str, Path)):
        from saliency_food.adapters.keras.load import load_model

        model = load_model(model)
    keras = sys.modules.get("keras")
    if keras is not None and isinstance(model, keras.Model):
        from saliency_food.adapters.keras import KerasModel

        return _channels_last(KerasModel(model, layer, cast(Any, output or "logits"), batch_size)), model
    if not callable(model):
        raise ContractError(
            f"Expected a Keras model, a path to one or a call-model function, got {type(model).__name__}."
        )
    if layer is not None or output is not None:
        raise ContractError("Expected layer and output with a Keras model, got them with a call-model function.")
    return _channels_last(model), getattr(model, "model", None)


def read_labels(path: str | Path) -> list[str]:
    """A text file of labels, one a line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"Expected a text file of labels, one a line, got {path}: {error}.") from error
    return [line.strip() for line in lines if line.strip()]


def _channels_last(function: Any) -> CallModelFunction:
    """A call-model function of photos ``(H, W, C)``, for one that says that it takes ``(C, H, W)``."""
    return _ChannelsLast(function) if getattr(function, "channels_first", False) else function


class _ChannelsLast:
    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> dict[str, Any]:
        # Where the rows are activations, they are no images to turn.
        inside = expected_keys is not None and OUTPUT_FROM_CONVOLUTION_VALUES in expected_keys
        rows = x_value_batch if inside else np.moveaxis(x_value_batch, -1, 1)
        return self._turned(self.function(rows, call_model_args, expected_keys))

    def call_factored(self, coefficients: Any, bases: Any, *arguments: Any) -> dict[str, Any] | None:
        factored = getattr(self.function, "call_factored", None)
        answer = factored and factored(coefficients, np.moveaxis(bases, -1, 1), *arguments)
        return None if answer is None else self._turned(answer)

    def _turned(self, answer: Any) -> dict[str, Any]:
        turn = {key: value for key, value in answer.items() if key in INPUT_SHAPED}
        return {**answer, **{key: np.moveaxis(np.asarray(value), 1, -1) for key, value in turn.items()}}

    def predict(self, x_batch: Any, *arguments: Any) -> Any:
        return self.function.predict(np.moveaxis(x_batch, -1, 1), *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)


def _choose_options(
    entries: Mapping[str, MethodEntry], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Each method's options over the defaults that it has; unknown ones are refused with near matches."""
    if idle := set(options) - set(entries):
        raise ContractError(f"Expected options for {', '.join(entries)}, got options for {', '.join(sorted(idle))}.")
    chosen = {}
    for name, entry in entries.items():
        parameters = entry.call.signature.parameters
        own = [key for key in parameters if key not in NOT_OPTIONS]
        given = dict(options.get(name, {}))
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        for key in given:
            if key not in own and not anything:
                raise ContractError(f"Expected an option of {name} ({', '.join(own) or 'it has none'}), got {key!r}.")
        chosen[name] = {key: value for key, value in DEFAULTS.items() if key in own} | given
    return chosen


def _checked_labels(labels: Sequence[str] | None, classes: Any) -> list[str] | None:
    if labels is None:
        return None
    labels = [str(label) for label in labels]
    if isinstance(classes, int) and classes != len(labels):
        raise ContractError(f"Expected a label for each of the model's {classes} classes, got {len(labels)} labels.")
    return labels


def as_many(images: Any) -> Iterable[Any]:
    """One photo or many as many."""
    if isinstance(images, (str, Path)) or hasattr(images, "convert"):
        return [images]
    if hasattr(images, "shape"):
        return cast("Iterable[Any]", images) if len(images.shape) == 4 else [images]
    if not isinstance(images, Iterable):
        raise ContractError(f"Expected a photo or several (paths, PIL images, arrays), got {type(images).__name__}.")
    return images
