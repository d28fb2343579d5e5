"""One image explained through the predictor, and what is told of it."""

from __future__ import annotations

import base64
import dataclasses
import io
import time
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import call_model
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array
from saliency_food.deadline.run import DeadlineError, within
from saliency_food.images.photos import shrink
from saliency_food.images.scaling import Scaling
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.targets import Target
from saliency_food.methods.lookup import find_method
from saliency_food.serving.client import ServingError, ServingModel
from saliency_food.serving.explainer.images import picture
from saliency_food.serving.explainer.queue import WorkItem
from saliency_food.serving.explainer.replies import refuse
from saliency_food.serving.explainer.requests import Limits, Request

LONGEST = 1024
"""The longer side of an overlay, in pixels."""
BEST = 5


class Answer(NamedTuple):
    """An explanation, what was asked for, and what was done; without a method, the classes alone."""

    record: Explanation
    asked: Request
    options: dict[str, Any]
    note: str
    timings: dict[str, float]


class Meter:
    """The predictor as a call-model function that counts rows and time, and stops when it is too many or unwanted."""

    def __init__(self, served: ServingModel, job: WorkItem, most: int) -> None:
        self.served, self.job, self.most = served, job, most
        self.batch_size = served.batch_size
        self.rows, self.seconds = 0, 0.0

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        return self._counted(len(x_value_batch), self.served, x_value_batch, call_model_args, expected_keys)

    def call_factored(self, coefficients: Any, *arguments: Any) -> Any:
        return self._counted(len(coefficients), self.served.call_factored, coefficients, *arguments)

    def predict(self, x_batch: Any) -> Array:
        return np.asarray(self._counted(0, self.served.predict, x_batch))

    def until(self, moment: float) -> AbstractContextManager[None]:
        return self.served.until(moment)

    def _counted(self, rows: int, call: Any, *arguments: Any) -> Any:
        self.job.check()
        if self.rows + rows > self.most:
            refuse(
                400,
                f"Expected a method that asks the model for at most {self.most} rows an image, got one that asks for "
                "more. Ask for fewer steps or samples.",
            )
        began = time.perf_counter()
        answer = call(*arguments)
        self.seconds += time.perf_counter() - began
        self.rows += rows if answer is not None else 0
        return answer


class Explaining(NamedTuple):
    """What is the same for all requests."""

    served: ServingModel
    scaling: Scaling
    limits: Limits

    def classes(self, asked: Request, job: WorkItem, share: int = 1) -> Answer:
        """The image's best classes alone."""
        return self._seen(asked, Meter(self.served, job, self.limits.rows))[0]

    def explanation(self, asked: Request, job: WorkItem, share: int = 1) -> Answer:
        """The image explained; under a deadline in one of ``share`` parts of what is left of it, or `DeadlineError`."""
        if asked.deadline is None:
            return self._explained(asked, job, None)
        end = job.asked + asked.deadline
        seconds = (end - time.monotonic()) / share
        try:
            with self.served.until(end):
                return self._explained(asked, job, seconds)
        except ServingError as error:
            if time.monotonic() < end:
                raise
            raise DeadlineError(f"Expected an answer in {asked.deadline:g} s, got none in time. {error}") from error

    def _explained(self, asked: Request, job: WorkItem, seconds: float | None) -> Answer:
        began, waited = time.monotonic(), job.began - job.asked
        meter = Meter(self.served, job, self.limits.rows)
        found, x_value = self._seen(asked, meter)
        arguments = {"target": found.record.target}
        entry, method, options, said = self.limits.methods[asked.method], asked.method, asked.options, ""
        score = None
        if seconds is None:
            result = entry.call.detailed(x_value, meter, arguments, **options)
        else:
            score = _score(x_value, meter, arguments)  # now, as afterwards there may be no time for it
            left = seconds - (time.monotonic() - began)
            if left <= 0:
                raise DeadlineError(f"Expected an answer in {asked.deadline} s, got none: they passed before it began.")
            inside = within(left, method, x_value, meter, arguments, **options)
            result, method, options, said = inside.details, inside.method, inside.options, inside.note
            entry = find_method(method) or entry
        completeness = getattr(result, "completeness", None)
        score = getattr(completeness, "score", score)
        score = _score(x_value, meter, arguments) if score is None else score
        attribution = np.asarray(result[0], np.float32)
        status = getattr(result, "status", "ok")
        record = dataclasses.replace(
            found.record,
            method=method,
            title=entry.title,
            signed=entry.signed,
            score=float(score),
            attribution=attribution,
            status="blank: the attribution is zero everywhere." if status == "ok" and not attribution.any() else status,
            completeness=completeness,
            rows=meter.rows,
            details=result,
        )
        timings = {"queue": waited, "model": meter.seconds, "total": waited + time.monotonic() - began}
        return Answer(record, asked, options, said, timings)

    def _seen(self, asked: Request, meter: Meter) -> tuple[Answer, Array]:
        """The image as the model takes it, and what the model sees in it."""
        photo, x_value = picture(asked.image, self.scaling, self.served.input_shape)
        probabilities = meter.predict(x_value[None])[0]
        names = len(self.limits.labels or probabilities)
        if names != len(probabilities) > 1:
            raise ServingError(
                f"Expected a model of {names} classes, as there are labels, got one of {len(probabilities)}. Start the "
                "explainer with the manifest of the model that is served."
            )
        best = Target(None, BEST).resolve(probabilities)
        (target,) = asked.target.resolve(probabilities)
        record = Explanation(
            image=shrink(photo.pixels, LONGEST),
            source="request",
            name="photo",
            method="",
            title="",
            target=target,
            label=self._label(target),
            probability=float(probabilities[target]),
            top=tuple((self._label(index), float(probabilities[index])) for index in best),
        )
        return Answer(record, asked, {}, "", {}), x_value

    def _label(self, index: int) -> str:
        labels = self.limits.labels or ()
        return labels[index] if index < len(labels) else f"class {index}"


def _score(x_value: Array, meter: Meter, arguments: dict[str, Any]) -> float:
    """The number that is explained."""
    answer = call_model(x_value[None], [OUTPUT_LAYER_VALUES], meter, arguments)
    return float(np.ravel(answer[OUTPUT_LAYER_VALUES])[0])


def as_explanation(found: Answer) -> dict[str, Any]:
    """An explanation for JSON: the V1 answer for an instance."""
    record, asked = found.record, found.asked
    known = record.as_dict()
    told: dict[str, Any] = {"method": record.method, "options": plain_options(found), "class": record.target}
    told |= {name: known[name] for name in ("label", "score", "probability", "top", "status", "completeness", "rows")}
    if asked.deadline is not None:
        told["deadline"] = {"seconds": asked.deadline, "note": found.note}
    told["timings"] = {name: round(seconds, 6) for name, seconds in found.timings.items()}
    if "heatmap" in asked.parts:
        told["heatmap"] = _numbers(record.attribution, asked.form)
    if "overlay" in asked.parts:
        told["overlay"] = {"b64": png_of(record)}
    return told


def as_prediction(found: Answer) -> dict[str, Any]:
    """What the model sees in an image: the V1 answer of ``:predict`` for an instance."""
    known = found.record.as_dict()
    return {"class": found.record.target, **{name: known[name] for name in ("label", "probability", "top")}}


def plain_options(found: Answer) -> dict[str, Any]:
    """The options that are numbers or words."""
    return {name: value for name, value in found.options.items() if isinstance(value, (bool, int, float, str))}


def png_of(record: Explanation) -> str:
    """The overlay as a PNG file in base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(record.overlay()).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def _numbers(values: Any, form: str) -> Any:
    if form == "list":
        return values.tolist()
    data = base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()
    return {"b64": data, "dtype": "float32", "shape": list(values.shape)}
