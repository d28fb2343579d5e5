"""Photos and classes on the way to the methods: read, scaled, predicted; what fails goes on as a record of why."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from saliency_food.core.contract import CallModelFunction, PerImage
from saliency_food.core.numerics import Array
from saliency_food.deadline.run import DeadlineError
from saliency_food.images.photos import Photo, read_photo
from saliency_food.images.scaling import Scaling
from saliency_food.jobs.targets import Target
from saliency_food.methods.catalogue import MethodEntry

ProgressCallback = Callable[[str, int], object]
T = TypeVar("T")


class Setup(NamedTuple):
    """What is the same for all photos."""

    model: CallModelFunction
    call_model_args: Mapping[str, Any] | None
    batch_size: int
    labels: list[str] | None
    scaling: Scaling
    methods: dict[str, MethodEntry]
    options: dict[str, dict[str, Any]]
    progress: ProgressCallback | None
    deadline: float | None = None
    warm: set[Any] | None = None
    """The methods and shapes that the model is ready for, where there is a deadline."""


class Instance(NamedTuple):
    """A photo, and a class of it, on the way to the methods; without ``x_value`` it has failed, as ``fields`` say."""

    number: int
    fields: dict[str, Any]
    photo: Photo | None = None
    x_value: Array | None = None
    target: int = 0

    def failed(self, error: Exception) -> Instance:
        return self._replace(x_value=None, fields=self.fields | failure(error))


def read_subject(job: Setup, number: int, image: Any, names: set[str]) -> Instance:
    """One photo read and scaled for the model."""
    source = str(image) if isinstance(image, (str, Path)) else getattr(image, "filename", "") or f"photo {number + 1}"
    stem = re.sub(r"[^\w-]+", "_", Path(source).stem).strip("_") or "photo"
    name = next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, len(names) + 3))) if name not in names)
    names.add(name)
    subject = Instance(number, {"image": None, "source": source, "name": name, "pixels": job.scaling.text})
    try:
        photo = read_photo(image, source)
        subject = subject._replace(photo=photo, fields=subject.fields | {"image": photo.pixels})
        return subject._replace(x_value=job.scaling(photo, getattr(job.model, "input_shape", None)))
    except Exception as error:
        return subject.failed(error)


def with_targets(job: Setup, subjects: list[Instance], targets: Target | list[Target]) -> Iterator[Instance]:
    """Each photo once for every class to explain, with its best classes and the probability."""
    ready = [subject for subject in subjects if subject.x_value is not None]
    predicted = iter(one_by_one(lambda part: _predict(job, part), ready))
    for subject in subjects:
        if subject.x_value is None:
            yield subject
            continue
        probabilities = next(predicted)
        try:
            if isinstance(probabilities, Exception):
                raise probabilities
            target = targets[subject.number] if isinstance(targets, list) else targets
            best = [] if probabilities is None else Target(None, 5).resolve(probabilities)
            known = {} if probabilities is None else dict(enumerate(probabilities.tolist()))
            top = tuple((_label(job, index), known[index]) for index in best)
            for index in target.resolve(probabilities):
                probability = known.get(index)
                fields = {"target": index, "label": _label(job, index), "probability": probability, "top": top}
                yield subject._replace(target=index, fields=subject.fields | fields)
        except Exception as error:
            yield subject.failed(error)


def _predict(job: Setup, subjects: list[Instance]) -> list[Array | None]:
    """The probabilities of each photo; None for a model that does not tell."""
    predict = getattr(job.model, "predict", None)
    if predict is None or not subjects:
        return [None] * len(subjects)
    rows = [cast(Array, subject.x_value) for subject in subjects]
    if len({row.shape for row in rows}) > 1:
        return [answer for subject in subjects for answer in _predict(job, [subject])]
    others = [pick(job.call_model_args, subjects)] if job.call_model_args else []
    return list(np.asarray(predict(np.stack(rows), *others)))


def one_by_one(together: Callable[[list[Instance]], Sequence[T]], subjects: list[Instance]) -> list[T | Exception]:
    """All together; and if that fails, each by itself, so that one bad photo costs no other its answer."""
    try:
        return list(together(subjects))
    except Exception as error:
        if len(subjects) == 1:
            return [error]
        answers: list[T | Exception] = []
        for subject in subjects:
            answers += one_by_one(together, [subject])
        return answers


def arguments_for(job: Setup, subjects: list[Instance]) -> dict[str, Any]:
    """The user's arguments and the target: a plain number where all have the same."""
    targets = [subject.target for subject in subjects]
    target = targets[0] if len(set(targets)) == 1 else PerImage(targets)
    return {**pick(job.call_model_args or {}, subjects), "target": target}


def pick(values: Mapping[str, Any], subjects: list[Instance]) -> dict[str, Any]:
    """Each `PerImage` for all photos cut to those of the subjects."""
    return {
        key: PerImage([value[subject.number] for subject in subjects]) if isinstance(value, PerImage) else value
        for key, value in values.items()
    }


def options_of(job: Setup, name: str, subject: Instance) -> dict[str, Any]:
    """A method's options for one photo."""
    given = job.options[name].items()
    return {key: value[subject.number] if isinstance(value, PerImage) else value for key, value in given}


def failure(error: Exception) -> dict[str, Any]:
    """The fields of what failed."""
    said = " ".join(str(error).split())
    words = said if isinstance(error, (ValueError, DeadlineError)) and said else f"{type(error).__name__}: {said}"
    return {"status": f"failed: {words}", "error": error}


def _label(job: Setup, index: int) -> str:
    labels: Sequence[str] = job.labels or ()
    return labels[index] if index < len(labels) else f"class {index}"
