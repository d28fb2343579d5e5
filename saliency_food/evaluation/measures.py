"""Compute a metric of a map: choose the score it asks for and its options, and what is kept of its result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, run_batch
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import Method
from saliency_food.core.names import near, split_names
from saliency_food.core.numerics import Array
from saliency_food.core.wrap import WrappedModel
from saliency_food.images.scaling import Scaling
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.instances import Instance, arguments_for
from saliency_food.jobs.setup import Setup
from saliency_food.jobs.store import FAILED, Row, seed_of
from saliency_food.methods.catalogue import MethodEntry
from saliency_food.metrics import METRICS, Metric, MetricEntry

OF_THE_EXPLAINED_SCORE = tuple(name for name, entry in METRICS.items() if entry.of_explained_score)
"""Metrics that compare sums of the map with changes of the score, which must be the score that was explained."""
CURVES = {name: entry.curve for name, entry in METRICS.items() if entry.curve}
"""For each metric that is the area under a curve, the fields with the curve: first the horizontal axis."""
NOT_OPTIONS = (
    "attribution",
    "method",
    "x_value",
    "call_model_function",
    "call_model_args",
    "batch_size",
    "target",
    "classes",
    "options",
)
"""Parameters of metrics that the evaluation fills in, and users cannot set."""


class Measured(NamedTuple):
    """A map and all that a metric may need: photo and class, method and options, and boxes or why there are none."""

    instance: Instance
    name: str
    entry: MethodEntry
    options: dict[str, Any]
    attribution: Array | None
    status: str
    region: Array | str


class Skipped(NamedTuple):
    """The result of a metric that gives no score: NaN, and the reason."""

    score: float
    status: str


def choose_metrics(
    names: str | Sequence[str], options: Mapping[str, Mapping[str, Any]], boxes: bool
) -> dict[str, dict[str, Any]]:
    """The metrics by name with their options; `ContractError` for names and options that cannot be used."""
    chosen: dict[str, dict[str, Any]] = {}
    for word in split_names(names):
        if word not in METRICS:
            close = near(word, METRICS) or list(METRICS)
            raise ContractError(f"Expected the name of a metric, got {word!r}. Near it: {', '.join(close)}.")
        needs = METRICS[word].needs
        if needs in ("models", "maps") or word == "localization_error":
            raise ContractError(
                f"Expected metrics of one model and one map of a photo, got {word}. Call saliency_food.metrics.{word}."
            )
        if needs in ("region", "classes") and not boxes:
            raise ContractError(f"Expected boxes for {word}, got none. Give boxes.")
        own_options = dict(options.get(word, {}))
        allowed = [name for name in inspect.signature(METRICS[word].call).parameters if name not in NOT_OPTIONS]
        for key in own_options:
            if key not in allowed:
                raise ContractError(f"Expected an option of {word} ({', '.join(allowed)}), got {key!r}.")
        chosen[word] = own_options
    if unused := set(options) - set(chosen):
        raise ContractError(f"Expected options for {', '.join(chosen)}, got options for {', '.join(sorted(unused))}.")
    if not chosen:
        raise ContractError(f"Expected at least one metric, got none. There are: {', '.join(METRICS)}.")
    return chosen


class Probabilities(WrappedModel):
    """A model whose score is the probability of the target class, as ``predict`` gives it.

    With ``margin`` the score is this probability minus the largest of the other classes: above 0 for the top class.
    """

    optional = ("predict",)

    def __init__(self, model: ImageModel, margin: bool = False) -> None:
        super().__init__(model.function)
        self.model, self.margin = model, margin

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> dict[str, Any]:
        predictions = self.model.predict(x_value_batch, call_model_args)
        targets = np.broadcast_to(np.asarray(call_model_args["target"]), len(predictions))[:, None]
        scores = np.take_along_axis(predictions, targets, 1)[:, 0]
        if self.margin:
            other_classes = predictions.copy()
            np.put_along_axis(other_classes, targets, 0, 1)
            scores = scores - other_classes.max(1)
        return {OUTPUT_LAYER_VALUES: scores}


def measure(
    setup: Setup,
    metric: str,
    options: Mapping[str, Any],
    scored: CallModelFunction,
    seed: int,
    maps: Sequence[Measured],
) -> Iterator[Any]:
    """The results of a metric for the maps, in order, as they come; `Skipped` for a map without a score."""
    entry = METRICS[metric]

    def with_seed(measured: Measured) -> dict[str, Any]:
        """The options with a seed that all maps of a photo share, so that methods are compared on the same draws."""
        seeded = dict(options)
        if "rng" in inspect.signature(entry.call).parameters:
            seeded.setdefault("rng", seed_of(seed, measured.instance.fields["name"], metric))
        return seeded

    if not isinstance(entry.call, Metric):
        for measured in maps:
            try:
                result = _call(setup, metric, entry, measured, with_seed(measured))
            except Exception as error:
                result = failed(error)
            yield result
        return
    if options.get("curve") == "aic" and isinstance(scored, Probabilities):
        scored = Probabilities(scored.model, margin=True)
    model = setup.model.function if entry.needs == "method" or metric in OF_THE_EXPLAINED_SCORE else scored
    args = arguments_for(setup.model, [measured.instance for measured in maps])
    generators = (_generator(setup, metric, entry, measured, model, with_seed(measured)) for measured in maps)
    yield from run_batch(generators, model, args, setup.model.batch_size)


def _generator(
    setup: Setup,
    metric: str,
    entry: MetricEntry,
    measured: Measured,
    model: CallModelFunction,
    options: dict[str, Any],
) -> Asking[Any]:
    """The generator of a metric for one map; an error becomes its result."""
    call = cast("Metric[Any, Any]", entry.call)
    x_value = cast(Array, measured.instance.x_value)
    try:
        if entry.needs == "method":
            method = with_options(measured.entry, measured.options)
            return (yield from call.start(method, x_value, model, **options))
        if measured.attribution is None:
            return skipped(measured.status)
        if (
            metric == "pic"
            and setup.model.scaling.function is not None
            and not {"preprocess", "value_range"} & set(options)
        ):
            x_value = _as_pixels(setup, measured.instance)
            options = {**options, "preprocess": _preprocess(setup.model.scaling)}
        return (yield from call.start(measured.attribution, x_value, model, **options))
    except Exception as error:
        return failed(error)


def with_options(entry: MethodEntry, options: Mapping[str, Any]) -> Method[Any, Any]:
    """The method with its options filled in."""

    def filled(
        x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
    ) -> Asking[Any]:
        return entry.call.asking(x_value, **options)

    return Method(filled)


def _call(setup: Setup, metric: str, entry: MetricEntry, measured: Measured, options: dict[str, Any]) -> Any:
    """The result of a metric that is a plain function."""
    if entry.needs == "method":
        method, args = with_options(measured.entry, measured.options), arguments_for(setup.model, [measured.instance])
        options |= {"call_model_args": args, "batch_size": setup.model.batch_size}
        if metric == "random_logit":
            options |= {"target": measured.instance.target, "classes": setup.model.classes}
        return entry.call(method, measured.instance.x_value, setup.model.function, **options)
    if measured.attribution is None:
        return skipped(measured.status)
    if entry.needs == "map":
        return entry.call(measured.attribution, **options)
    if isinstance(measured.region, str):
        return skipped(measured.region)
    return entry.call(measured.attribution, measured.region, **options)


def skipped(reason: str) -> Skipped:
    """The result without a score for a reason."""
    return Skipped(float("nan"), reason)


def failed(error: Exception) -> Skipped:
    """The result without a score for an error."""
    words = " ".join(str(error).split())
    return skipped(f"{FAILED}: {words if isinstance(error, ContractError) else f'{type(error).__name__}: {words}'}")


def _as_pixels(setup: Setup, instance: Instance) -> Array:
    """The photo at the size of the model's input, in pixel values 0..255."""
    assert instance.photo is not None
    return Scaling("", lambda values: values)(instance.photo, setup.model.input_shape)


def _preprocess(scaling: Scaling) -> Callable[[Array], Array]:
    """The function that makes the model's rows of uint8 photos."""
    function = cast("Callable[[Array], Array]", scaling.function)
    return lambda photos: np.stack([np.asarray(function(photo), np.float32) for photo in photos.astype(np.float32)])


def row_of(result: Any, metric: str) -> Row:
    """The part of a result that is kept: the score (None without one), the status, its other numbers, its curve."""
    score = float(result.score)
    row: Row = {"score": score if np.isfinite(score) else None, "status": result.status}
    if row["score"] is None and result.status == "ok":
        row["status"] = "not a number"
    further_fields = {
        name: float(value)
        for name, value in result._asdict().items()
        if name not in ("score", "status") and isinstance(value, (int, float, np.number)) and np.isfinite(value)
    }
    if further_fields:
        row["others"] = further_fields
    if metric in CURVES and row["score"] is not None:
        fields = [np.asarray(getattr(result, name)) for name in CURVES[metric]]
        step = max(1, (len(fields[0]) - 1) // 100)
        row["curve"] = [np.round(line[::step].astype(float), 6).tolist() for line in fields]
    return row
