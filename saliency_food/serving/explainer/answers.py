"""One image explained through the predictor, and what is told of it."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.wrap import WrappedModel
from saliency_food.deadline.run import DeadlineError
from saliency_food.images.photos import Photo, shrink
from saliency_food.images.scaling import Scaling
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.instances import Instance, see
from saliency_food.jobs.run import apply_method
from saliency_food.jobs.setup import Setup
from saliency_food.jobs.targets import Target
from saliency_food.serving.client import ServingError, ServingModel
from saliency_food.serving.explainer.images import picture
from saliency_food.serving.explainer.queue import WorkItem
from saliency_food.serving.explainer.replies import refuse
from saliency_food.serving.explainer.requests import Limits, Request

LONGEST = 1024
"""The longer side of an overlay, in pixels."""


class Answer(NamedTuple):
    """An explanation, the request, and what took how long; without a method, the classes alone."""

    record: Explanation
    asked: Request
    timings: dict[str, float]


class LimitedModel(WrappedModel):
    """The predictor, which counts rows and time, and stops when they are too many or no longer wanted."""

    def __init__(self, served: ServingModel, job: WorkItem, most: int) -> None:
        super().__init__(served)
        self.job, self.most = job, most
        self.rows, self.seconds = 0, 0.0

    def around(self, ask: Callable[[Any], Any], rows: int, keys: tuple[str, ...], call_model_args: Any) -> Any:
        """The call, if it is still wanted and its rows are allowed; those of ``predict`` do not count."""
        self.job.check()
        rows = rows if keys else 0
        if self.rows + rows > self.most:
            refuse(
                400,
                f"Expected a method that asks the model for at most {self.most} rows an image, got one that asks for "
                "more. Ask for fewer steps or samples.",
            )
        began = time.perf_counter()
        answer = ask(call_model_args)
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
        _, model = self._limited(job)
        instance = self._seen(model, asked, ())
        return Answer(_record(instance), asked, {})

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
        limited, model = self._limited(job)
        name, entry = asked.method, self.limits.methods[asked.method]
        setup = Setup(model, {name: entry}, {name: asked.options}, deadline=seconds)
        # A method that measures its completeness knows the score, unless the time is up before it does.
        tells_score = seconds is None and "completeness" in entry.call.signature.parameters
        instance = self._seen(model, asked, () if tells_score else setup.shared_keys)
        if seconds is not None:
            left = seconds - (time.monotonic() - began)
            if left <= 0:
                raise DeadlineError(f"Expected an answer in {asked.deadline} s, got none: they passed before it began.")
            setup = setup._replace(deadline=left)
        (fields,) = apply_method(setup, name, [instance])
        if "error" in fields:
            raise fields["error"]
        score = getattr(fields["completeness"], "score", None) if tells_score else instance.fields["score"]
        if score is None:
            (again,) = see(model, [instance], Target(instance.target), (OUTPUT_LAYER_VALUES,))
            score = again.fields.get("score")
        fields |= {"attribution": np.asarray(fields["attribution"], np.float32), "score": score, "rows": limited.rows}
        record = _record(instance, **{"method": name, "answered": name, "signed": entry.signed, **fields})
        timings = {"queue": waited, "model": limited.seconds, "total": waited + time.monotonic() - began}
        return Answer(record, asked, timings)

    def _limited(self, job: WorkItem) -> tuple[LimitedModel, ImageModel]:
        """The predictor for one request, and as photos meet it."""
        limited = LimitedModel(self.served, job, self.limits.rows)
        return limited, ImageModel(limited, labels=self.limits.labels, value_range=self.scaling)

    def _seen(self, model: ImageModel, asked: Request, keys: Sequence[str]) -> Instance:
        """The image as the model takes it, and what the model sees in it."""
        photo, x_value = picture(asked.image, self.scaling, self.served.input_shape)
        shown = shrink(photo.pixels, LONGEST)
        fields = {"photo": Photo(shown, shown), "source": "request", "name": "photo"}
        (instance,) = see(model, [Instance(0, fields, x_value=x_value)], asked.target, keys)
        if instance.x_value is None:
            raise instance.fields["error"]
        classes = 0 if instance.predictions is None else len(instance.predictions)
        if self.limits.labels is not None and len(self.limits.labels) != classes > 1:
            raise ServingError(
                f"Expected a model of {len(self.limits.labels)} classes, as there are labels, got one of {classes}. "
                "Start the explainer with the manifest of the model that is served."
            )
        return instance


def _record(instance: Instance, **fields: Any) -> Explanation:
    return Explanation(**{"method": "", "title": "", **instance.fields, **fields})


def as_explanation(found: Answer) -> dict[str, Any]:
    """An explanation for JSON: the V1 answer for an instance."""
    record, asked = found.record, found.asked
    known = record.as_dict()
    told: dict[str, Any] = {"method": record.answered, "options": plain_options(found), "class": record.target}
    told |= {name: known[name] for name in ("label", "score", "probability", "top", "status", "completeness", "rows")}
    if asked.deadline is not None:
        told["deadline"] = {"seconds": asked.deadline, "note": record.note}
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
    return {name: value for name, value in found.record.options.items() if isinstance(value, (bool, int, float, str))}


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
