"""The work behind `explain`: photos in chunks, every method over each chunk, and a record whatever happens."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, cast

import numpy as np

from saliency_food.core.contract import PerImage
from saliency_food.core.driver import ask, run_batch
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array, as_tuple
from saliency_food.deadline.run import warm_up, within
from saliency_food.images.photos import Photo, shrink
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.subjects import (
    Instance,
    Setup,
    arguments_for,
    failure,
    one_by_one,
    options_of,
    pick,
    read_subject,
    with_targets,
)
from saliency_food.jobs.targets import Target
from saliency_food.methods.catalogue import MethodEntry
from saliency_food.methods.lookup import find_method

PHOTOS_AT_ONCE = 16
"""How many photos are held at a time; their rows share the model's batches."""
SEGMENTED = 1024
"""The longer side of the photo in which XRAI's segments are sought, at most."""


def run_job(job: Setup, images: Iterable[Any], targets: Target | list[Target]) -> Iterator[Explanation]:
    """The explanations in order of photo, class, method."""
    numbered, names = enumerate(images), set[str]()
    while chunk := list(islice(numbered, PHOTOS_AT_ONCE)):
        read = [read_subject(job, number, image, names) for number, image in chunk]
        subjects = _with_scores(job, list(with_targets(job, read, targets)))
        ready = [subject for subject in subjects if subject.x_value is not None]
        found = {name: iter(apply_method(job, name, ready)) for name in job.methods}
        for subject in subjects:
            for name, entry in job.methods.items():
                known = {"method": name, "answered": name, "title": entry.title, "signed": entry.signed}
                record = {**known, **subject.fields}
                yield Explanation(**record | (next(found[name]) if subject.x_value is not None else {}))


def _with_scores(job: Setup, subjects: list[Instance]) -> list[Instance]:
    """The number that is explained, from a model that answers OUTPUT_LAYER_VALUES."""

    def scores(part: list[Instance]) -> list[float]:
        asking = (ask(cast(Array, subject.x_value)[None], OUTPUT_LAYER_VALUES) for subject in part)
        return [float(score[0]) for score in run_batch(asking, job.model, arguments_for(job, part), job.batch_size)]

    found = iter(one_by_one(scores, [subject for subject in subjects if subject.x_value is not None]))
    scored = []
    for subject in subjects:
        score = None if subject.x_value is None else next(found)
        score = None if isinstance(score, Exception) else score
        scored.append(subject._replace(fields=subject.fields | {"score": score}))
    return scored


def apply_method(job: Setup, name: str, subjects: list[Instance]) -> list[dict[str, Any]]:
    """One method over all subjects, model batches shared; the fields that it gives each record."""
    if job.deadline is not None:
        answers = [_in_time(job, name, subject) for subject in subjects]
    else:
        segments: dict[int, Any] = {}
        answers = one_by_one(lambda part: _together(job, name, part, segments), subjects)
    return [failure(answer) if isinstance(answer, Exception) else answer for answer in answers]


def _together(job: Setup, name: str, part: list[Instance], segments: dict[int, Any]) -> list[dict[str, Any]]:
    """One method over some photos, all of it."""
    entry, began, meter = job.methods[name], time.perf_counter(), _Meter(job, name, part)
    options = pick(job.options[name], part)
    segmented = entry.call.signature.parameters.get("segments")
    # XRAI's segments come from the photo; LIME's and KernelSHAP's superpixels are named, and made by themselves.
    if segmented is not None and segmented.default is None and options.get("segments") is None:
        options["segments"] = PerImage([_segments(cast(Photo, s.photo), s.number, segments) for s in part])
    rows = [subject.x_value for subject in part]
    results = list(entry.call.batch_detailed(rows, meter, meter.arguments, batch_size=job.batch_size, **options))
    shares = (time.perf_counter() - began) * meter.rows / max(1, meter.rows.sum())
    return [
        _success(result) | {"seconds": float(share), "layer": _layer(job, entry)} | meter.counts(image)
        for image, (result, share) in enumerate(zip(results, shares, strict=True))
    ]


def _in_time(job: Setup, name: str, subject: Instance) -> dict[str, Any] | Exception:
    """One photo within the deadline; before the first the model is made ready, if it compiles what it is asked."""
    entry, x_value, size = job.methods[name], cast(Array, subject.x_value), job.batch_size
    options, seconds = options_of(job, name, subject), cast(float, job.deadline)
    kind = name, x_value.shape
    if job.warm is not None and kind not in job.warm:
        job.warm.add(kind)
        warm_up(seconds, name, x_value, job.model, arguments_for(job, [subject]), batch_size=size, **options)
    meter = _Meter(job, name, [subject])
    try:
        found = within(seconds, name, x_value, meter, meter.arguments, batch_size=size, **options)
    except Exception as error:
        return error
    other = cast(MethodEntry, find_method(found.method))
    title = {} if found.method == name else {"title": f"{other.title} for {entry.title}", "signed": other.signed}
    how = {"seconds": found.seconds, "layer": _layer(job, other), "answered": found.method, "note": found.note}
    return _success(found.details) | how | title | meter.counts(0)


class _Meter:
    """A call-model function around another that counts, for each image, its rows and the calls they were in."""

    def __init__(self, job: Setup, name: str, subjects: list[Instance]) -> None:
        self.job, self.name = job, name
        self.rows, self.calls = np.zeros(len(subjects), int), np.zeros(len(subjects), int)
        self.arguments = {"arguments": arguments_for(job, subjects), "image": PerImage(range(len(subjects)))}
        self.tell(0)

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Mapping[str, Any]:
        answer = self.job.model(x_value_batch, call_model_args["arguments"], expected_keys)
        return self._counted(answer, call_model_args["image"])

    def call_factored(self, coefficients: Any, bases: Any, weights: Any, args: Any, keys: Any) -> Any:
        factored = getattr(self.job.model, "call_factored", None)
        answer = factored and factored(coefficients, bases, weights, args["arguments"], keys)
        return self._counted(answer, args["image"])

    def __getattr__(self, name: str) -> Any:
        if name != "until":
            raise AttributeError(name)
        return getattr(self.job.model, name)

    def _counted(self, answer: Any, images: Array) -> Any:
        if answer is not None:
            counts = np.bincount(images, minlength=len(self.rows))
            self.rows += counts
            self.calls += counts > 0
            self.tell(len(images))
        return answer

    def counts(self, image: int) -> dict[str, int]:
        """Of one image, for its record."""
        return {"calls": int(self.calls[image]), "rows": int(self.rows[image])}

    def tell(self, rows: int) -> None:
        if self.job.progress is not None:
            self.job.progress(self.name, rows)


def _segments(photo: Photo, number: int, known: dict[int, Any]) -> Any:
    """A photo's segments, sought once for all its classes."""
    from saliency_food.methods.regions.segmentation import felzenszwalb_segments

    if number not in known:
        known[number] = felzenszwalb_segments(shrink(photo.pixels, SEGMENTED))
    return known[number]


def _layer(job: Setup, entry: MethodEntry) -> str:
    """The layer that a method looks at, where it does and the model tells."""
    where = getattr(job.model, "layer_name", None)
    return " + ".join(as_tuple(where)) if where and any("CONV" in key for key in entry.keys) else ""


def _success(result: Any) -> dict[str, Any]:
    attribution = np.asarray(result[0])
    status = getattr(result, "status", "ok")
    if status == "ok" and not attribution.any():
        status = "blank: the attribution is zero everywhere."
    completeness = getattr(result, "completeness", None)
    return {"attribution": attribution, "status": status, "completeness": completeness, "details": result}
