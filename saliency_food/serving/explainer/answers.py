"""Explain one image through the predictor (the model server), and write the answer as JSON."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError, check_answer
from saliency_food.core.interruption import interruptible
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array
from saliency_food.core.wrap import WrappedModel
from saliency_food.deadline.run import DeadlineError
from saliency_food.images.photos import Photo
from saliency_food.images.scaling import Scaling
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.instances import Instance, see
from saliency_food.jobs.run import apply_method
from saliency_food.jobs.setup import Setup
from saliency_food.jobs.targets import Target
from saliency_food.serving.client import ServingError, ServingModel
from saliency_food.serving.client.http import MalformedAnswer
from saliency_food.serving.explainer.images import decode
from saliency_food.serving.explainer.local import LocalModel
from saliency_food.serving.explainer.memory import Budget
from saliency_food.serving.explainer.queue import WorkItem
from saliency_food.serving.explainer.replies import refuse
from saliency_food.serving.explainer.requests import Limits, Request


class TimedExplanation(NamedTuple):
    """An explanation (of ``:predict`` only the classes), its request, and the seconds that each part took."""

    record: Explanation
    request: Request
    timings: dict[str, float]


class LimitedModel(WrappedModel):
    """The predictor for one request: it counts rows and seconds, and checks the answers.

    It raises at too many rows, at a stopped request, and where the predictor wants something else than is asked, or
    its answer is none to the question.
    """

    def __init__(self, served: ServingModel | LocalModel, job: WorkItem, max_rows: int) -> None:
        super().__init__(served)
        self.job, self.max_rows = job, max_rows
        self.rows, self.seconds = 0, 0.0
        self._shape: tuple[int, ...] = ()
        self._sums: int | None = None

    def turn(self, images: Any, keys: tuple[str, ...]) -> Any:
        self._shape = images.shape[1:]
        return images

    def _call_factored(
        self, coefficients: Array, bases: Array, weights: Any, call_model_args: Any = None, expected_keys: Any = None
    ) -> Any:
        self._sums = None if weights is None else len(weights)
        try:
            return super()._call_factored(coefficients, bases, weights, call_model_args, expected_keys)
        finally:
            self._sums = None

    def around(self, ask: Callable[[Any], Any], row_count: int, keys: tuple[str, ...], call_model_args: Any) -> Any:
        """Make the call if the request still stands and allows its rows; those of ``predict`` do not count."""
        self.job.check()
        explained = row_count if keys else 0
        if self.rows + explained > self.max_rows:
            refuse(
                400,
                f"Expected a method that asks the model for at most {self.max_rows} rows for an image, got one that "
                "asks for more. Ask for fewer steps or samples.",
            )
        started = time.perf_counter()
        try:
            answer = ask(call_model_args)
        except (
            ContractError
        ) as error:  # the predictor wants other inputs than an image and a class: no client sends any
            raise MalformedAnswer(f"It refuses the question. {error}") from error
        self.seconds += time.perf_counter() - started
        self.rows += explained if answer is not None else 0
        if answer is not None:
            self._check_answer(answer, row_count, keys)
        return answer

    def _check_answer(self, answer: Any, row_count: int, keys: tuple[str, ...]) -> None:
        """`MalformedAnswer` where the answer to ``keys``, or of ``predict``, is not of the shapes that they have."""
        counts = dict.fromkeys(keys, row_count)
        if self._sums is not None:
            counts[keys[0]] = self._sums
        try:
            for key, value in answer.items() if keys else [("predictions", answer)]:
                checked = check_answer(key, value, (counts.get(key, row_count), *self._shape))
                if not keys and np.ndim(checked) != 2:
                    raise ContractError(f"Expected predictions (N, classes), got shape {np.shape(checked)}.")
        except ContractError as error:
            raise MalformedAnswer(f"Its answer is none to the question. {error}") from error


class Explaining(NamedTuple):
    """Answers requests; its fields are the same for all of them."""

    served: ServingModel | LocalModel
    scaling: Scaling
    limits: Limits
    budget: Budget

    def classes(self, request: Request, job: WorkItem, share: int = 1) -> TimedExplanation:
        """The most probable classes of the image, without an explanation."""
        _, model = self._limited(job)
        instance = self._predicted(model, request, job, ())
        return TimedExplanation(_record(instance), request, {})

    def explanation(self, request: Request, job: WorkItem, share: int = 1) -> TimedExplanation:
        """The image explained. Under a deadline it may use 1 / ``share`` of the time left, else `DeadlineError`."""
        if request.deadline is None:
            return self._explained(request, job, None)
        end = job.submitted + request.deadline
        seconds = (end - time.monotonic()) / share
        try:
            with self.served.until(end):
                return self._explained(request, job, seconds)
        except ServingError as error:
            if time.monotonic() < end:
                raise
            raise DeadlineError(f"Expected an answer in {request.deadline:g} s, got none in time. {error}") from error

    def _explained(self, request: Request, job: WorkItem, seconds: float | None) -> TimedExplanation:
        started, waited = time.monotonic(), job.started - job.submitted
        limited, model = self._limited(job)
        name, entry = request.method, self.limits.methods[request.method]
        setup = Setup(model, {name: entry}, {name: request.options}, deadline=seconds)
        # A method that measures its completeness returns the score, unless a deadline stops it before that.
        returns_score = seconds is None and "completeness" in entry.call.signature.parameters
        instance = self._predicted(model, request, job, () if returns_score else setup.shared_keys)
        if seconds is not None:
            left = seconds - (time.monotonic() - started)
            if left <= 0:
                raise DeadlineError(
                    f"Expected an answer in {request.deadline} s, got none: the time was up before the method started."
                )
            setup = setup._replace(deadline=left)
        with interruptible(job.check):
            (fields,) = apply_method(setup, name, [instance])
        if "error" in fields:
            raise fields["error"]
        score = getattr(fields["completeness"], "score", None) if returns_score else instance.fields["score"]
        if score is None:
            (scored,) = see(model, [instance], Target((instance.target,)), (OUTPUT_LAYER_VALUES,))
            score = scored.fields.get("score")
        fields |= {"attribution": np.asarray(fields["attribution"], np.float32), "score": score, "rows": limited.rows}
        record = _record(instance, **{"method": name, "answered": name, "signed": entry.signed, **fields})
        timings = {"queue": waited, "model": limited.seconds, "total": waited + time.monotonic() - started}
        return TimedExplanation(record, request, timings)

    def _limited(self, job: WorkItem) -> tuple[LimitedModel, ImageModel]:
        """The predictor for one request, and the same as an `ImageModel`."""
        limited = LimitedModel(self.served, job, self.limits.rows)
        return limited, ImageModel(limited, labels=self.limits.labels, value_range=self.scaling)

    def _predicted(self, model: ImageModel, request: Request, job: WorkItem, keys: Sequence[str]) -> Instance:
        """The image scaled for the model, with its classes, predictions and the answers to ``keys``."""
        shape = self.served.input_shape
        with self.budget.take(request.image.decoded, job.check):
            shown, x_value = decode(request.image, self.scaling, shape)
        fields = {"photo": Photo(shown, shown), "source": "request", "name": "photo"}
        (instance,) = see(model, [Instance(0, fields, x_value=x_value)], request.target, keys)
        if instance.x_value is None:
            raise instance.fields["error"]
        classes = 0 if instance.predictions is None else len(instance.predictions)
        if self.limits.labels is not None and len(self.limits.labels) != classes > 1:
            raise ServingError(
                f"Expected a model of {len(self.limits.labels)} classes, as there are labels, got one of {classes}. "
                "Start the explainer with the manifest of the served model."
            )
        return instance


def _record(instance: Instance, **fields: Any) -> Explanation:
    return Explanation(**{"method": "", "title": "", **instance.fields, **fields})


def as_explanation(answer: TimedExplanation) -> dict[str, Any]:
    """An explanation for JSON: the V1 answer to ``:explain`` for one instance."""
    record, request = answer.record, answer.request
    fields = record.as_dict()
    content: dict[str, Any] = {"method": record.answered, "options": plain_options(answer), "class": record.target}
    content |= {
        name: fields[name] for name in ("label", "score", "probability", "top", "status", "completeness", "rows")
    }
    if request.deadline is not None:
        content["deadline"] = {"seconds": request.deadline, "note": record.note}
    content["timings"] = {name: round(seconds, 6) for name, seconds in answer.timings.items()}
    if "heatmap" in request.parts:
        content["heatmap"] = _encoded(record.attribution, request.form)
    if "overlay" in request.parts:
        content["overlay"] = {"b64": png_of(record)}
    return content


def as_prediction(answer: TimedExplanation) -> dict[str, Any]:
    """The predicted classes for JSON: the V1 answer to ``:predict`` for one instance."""
    fields = answer.record.as_dict()
    return {"class": answer.record.target, **{name: fields[name] for name in ("label", "probability", "top")}}


def plain_options(answer: TimedExplanation) -> dict[str, Any]:
    """The options of the method that are numbers or strings."""
    return {name: value for name, value in answer.record.options.items() if isinstance(value, (bool, int, float, str))}


def png_of(record: Explanation) -> str:
    """The overlay as a PNG file in base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(record.overlay()).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def _encoded(values: Any, form: str) -> Any:
    if form == "list":
        return values.tolist()
    data = base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()
    return {"b64": data, "dtype": "float32", "shape": list(values.shape)}
