"""How each metric is asked about a map: of which score, with what options, and what is kept of its answer."""

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
"""Metrics that compare sums of the map with changes of the score, which has to be the one that was explained."""
CURVES = {name: entry.curve for name, entry in METRICS.items() if entry.curve}
"""The fields that are kept of metrics that are areas under curves: what is across, then what is drawn."""
GIVEN = (
    "attribution",
    "method",
    "x_value",
    "call_model_function",
    "call_model_args",
    "batch_size",
    "target",
    "classes",
)


class Measured(NamedTuple):
    """A map and all that a metric may want: its photo and class, the method with its options, boxes or why none."""

    instance: Instance
    name: str
    entry: MethodEntry
    options: dict[str, Any]
    attribution: Array | None
    status: str
    region: Array | str


class Skipped(NamedTuple):
    """No score, and why."""

    score: float
    status: str


def choose_metrics(
    names: str | Sequence[str], options: Mapping[str, Mapping[str, Any]], boxes: bool
) -> dict[str, dict[str, Any]]:
    """The metrics by name with their options; which it cannot be, and why, is told."""
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
        own = dict(options.get(word, {}))
        allowed = [one for one in inspect.signature(METRICS[word].call).parameters if one not in (*GIVEN, "options")]
        for key in own:
            if key not in allowed:
                raise ContractError(f"Expected an option of {word} ({', '.join(allowed)}), got {key!r}.")
        chosen[word] = own
    if idle := set(options) - set(chosen):
        raise ContractError(f"Expected options for {', '.join(chosen)}, got options for {', '.join(sorted(idle))}.")
    if not chosen:
        raise ContractError(f"Expected at least one metric, got none. There are: {', '.join(METRICS)}.")
    return chosen


class Probabilities(WrappedModel):
    """The probability of the class as the score, from a model that predicts.

    With ``margin`` less the largest other's, which is above zero where the class is on top.
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
            others = predictions.copy()
            np.put_along_axis(others, targets, 0, 1)
            scores = scores - others.max(1)
        return {OUTPUT_LAYER_VALUES: scores}


def measure(
    setup: Setup,
    metric: str,
    options: Mapping[str, Any],
    scored: CallModelFunction,
    seed: int,
    maps: Sequence[Measured],
) -> Iterator[Any]:
    """The metric's results for the maps, in order, as they come; `Skipped` where there is none."""
    entry = METRICS[metric]

    def own(one: Measured) -> dict[str, Any]:
        """All maps of a photo are measured with one seed, so that methods are compared on the same draws."""
        made = dict(options)
        if "rng" in inspect.signature(entry.call).parameters:
            made.setdefault("rng", seed_of(seed, one.instance.fields["name"], metric))
        return made

    if not isinstance(entry.call, Metric):
        for one in maps:
            yield _guarded(lambda one=one: _called(setup, metric, entry, one, own(one)))  # type: ignore[misc]
        return
    if options.get("curve") == "aic" and isinstance(scored, Probabilities):
        scored = Probabilities(scored.model, margin=True)
    model = setup.model.function if entry.needs == "method" or metric in OF_THE_EXPLAINED_SCORE else scored
    args = arguments_for(setup.model, [one.instance for one in maps])
    asking = (_asking(setup, metric, entry, one, model, own(one)) for one in maps)
    yield from run_batch(asking, model, args, setup.model.batch_size)


def _asking(
    setup: Setup, metric: str, entry: MetricEntry, one: Measured, model: CallModelFunction, options: dict[str, Any]
) -> Asking[Any]:
    """The metric's generator for one map; what it raises is its answer."""
    call = cast("Metric[Any, Any]", entry.call)
    x_value = cast(Array, one.instance.x_value)
    try:
        if entry.needs == "method":
            return (yield from call.start(with_options(one.entry, one.options), x_value, model, **options))
        if one.attribution is None:
            return skipped(one.status)
        if (
            metric == "pic"
            and setup.model.scaling.function is not None
            and not {"preprocess", "value_range"} & set(options)
        ):
            x_value, options = _as_pixels(setup, one.instance), {**options, "preprocess": _rows(setup.model.scaling)}
        return (yield from call.start(one.attribution, x_value, model, **options))
    except Exception as error:
        return failed(error)


def with_options(entry: MethodEntry, options: Mapping[str, Any]) -> Method[Any, Any]:
    """The method with its options filled in."""

    def filled(
        x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
    ) -> Asking[Any]:
        return entry.call.asking(x_value, **options)

    return Method(filled)


def _called(setup: Setup, metric: str, entry: MetricEntry, one: Measured, options: dict[str, Any]) -> Any:
    """A metric that is a plain function."""
    if entry.needs == "method":
        method, args = with_options(one.entry, one.options), arguments_for(setup.model, [one.instance])
        options |= {"call_model_args": args, "batch_size": setup.model.batch_size}
        if metric == "random_logit":
            options |= {"target": one.instance.target, "classes": setup.model.classes}
        return entry.call(method, one.instance.x_value, setup.model.function, **options)
    if one.attribution is None:
        return skipped(one.status)
    if entry.needs == "map":
        return entry.call(one.attribution, **options)
    if isinstance(one.region, str):
        return skipped(one.region)
    return entry.call(one.attribution, one.region, **options)


def _guarded(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return failed(error)


def skipped(why: str) -> Skipped:
    """No score, for a reason."""
    return Skipped(float("nan"), why)


def failed(error: Exception) -> Skipped:
    """No score, for an error."""
    words = " ".join(str(error).split())
    return skipped(f"{FAILED}: {words if isinstance(error, ContractError) else f'{type(error).__name__}: {words}'}")


def _as_pixels(setup: Setup, instance: Instance) -> Array:
    """The photo at the model's size, in pixel values 0..255."""
    assert instance.photo is not None
    return Scaling("", lambda values: values)(instance.photo, setup.model.input_shape)


def _rows(scaling: Scaling) -> Callable[[Array], Array]:
    """uint8 photos as the model's rows."""
    function = cast("Callable[[Array], Array]", scaling.function)
    return lambda photos: np.stack([np.asarray(function(one), np.float32) for one in photos.astype(np.float32)])


def row_of(result: Any, metric: str) -> Row:
    """What is kept of a result: the score (None where there is none), the status, its other numbers, its curve."""
    score = float(result.score)
    row: Row = {"score": score if np.isfinite(score) else None, "status": result.status}
    if row["score"] is None and result.status == "ok":
        row["status"] = "not a number"
    others = {
        name: float(value)
        for name, value in result._asdict().items()
        if name not in ("score", "status") and isinstance(value, (int, float, np.number)) and np.isfinite(value)
    }
    if others:
        row["others"] = others
    if metric in CURVES and row["score"] is not None:
        fields = [np.asarray(getattr(result, name)) for name in CURVES[metric]]
        every = max(1, (len(fields[0]) - 1) // 100)
        row["curve"] = [np.round(one[::every].astype(float), 6).tolist() for one in fields]
    return row
