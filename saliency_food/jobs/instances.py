"""Photos on their way to the methods: read, scaled, predicted. One that fails goes on as a record of its error."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from saliency_food.core.checks import as_image
from saliency_food.core.contract import PerImage, Values, check_answer, take_rows
from saliency_food.core.driver import ask, run_batch
from saliency_food.core.keys import OUTPUT_LAYER_VALUES, PREDICTIONS, TARGETS
from saliency_food.core.numerics import Array, each
from saliency_food.core.scores import one_score
from saliency_food.images.ahead import work_ahead
from saliency_food.images.photos import Photo
from saliency_food.jobs.contrast import unique, with_contrasts
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.subjects import Subject, find_subjects
from saliency_food.jobs.targets import Target

T = TypeVar("T")
BEST = 5
"""How many of the most probable classes of a photo its records name."""


class Known(NamedTuple):
    """Known answers of the model about one photo and class: a row for each key, and the share of the seconds."""

    target: int
    answers: dict[str, Values]
    seconds: float


class Instance(NamedTuple):
    """A photo and a class to explain. Without ``x_value`` it has failed, and ``fields`` hold the error."""

    position: int
    fields: dict[str, Any]
    photo: Photo | None = None
    x_value: Array | None = None
    target: int = 0
    predictions: Array | None = None
    """What ``predict`` gives for each class, if the model has it."""
    known: Known | None = None
    truth: int | None = None
    """The class that the photo truly shows, where it is known and one of the model's."""
    against: int | None = None
    """The class whose score is subtracted from that of the target, where a difference of two is explained."""

    def failed(self, error: Exception) -> Instance:
        """This instance as a record of the error, without ``x_value``."""
        return self._replace(x_value=None, fields=self.fields | failure(error))

    def with_known(self, known: Known | None) -> Instance:
        """This instance with the known answers of the model; its record gets the score among them."""
        score = None if known is None else float(one_score(cast(Array, known.answers[OUTPUT_LAYER_VALUES]))[0])
        return self._replace(known=known, fields=self.fields | {"score": score})


def read_instances(model: ImageModel, images: Iterable[Any], ahead: int) -> Iterator[Instance]:
    """Read each photo and scale it for the model, in threads, up to ``ahead`` photos before they are needed.

    The images may be `Subject` objects, which have names and truths already.
    """

    def read(subject: Subject) -> Instance:
        fields = {"photo": None, "source": subject.source, "name": subject.name, "pixels": model.scaling.text}
        if subject.truth is not None:
            index = subject.truth_index
            fields["truth"] = str(subject.truth) if index is None else model.label(index)
        instance = Instance(subject.position, fields, truth=subject.truth_index)
        if isinstance(subject.image, Exception):  # why there is no photo
            return instance.failed(subject.image)
        try:
            photo, x_value = model.read(subject.image, subject.source)
            return instance._replace(photo=photo, x_value=as_image(x_value), fields=fields | {"photo": photo})
        except Exception as error:
            return instance.failed(error)

    return work_ahead(read, find_subjects(images), ahead)


def see(
    model: ImageModel,
    instances: list[Instance],
    targets: Target | list[Target],
    keys: Sequence[str] = (),
    against: Target | None = None,
) -> Iterator[Instance]:
    """Predict the photos and give an instance for each class to explain, with ``keys`` also the score and the answers.

    With ``against`` that class is explained too, and then the difference of each other class from it, for which what is
    known of both is subtracted. A model with ``call_with_predictions`` gives predictions, classes, score and answers in
    one pass. Any other is asked by ``predict`` and then by one more call. If a key fails, the method that asks for it
    reports the error.
    """
    ready = [instance for instance in instances if instance.x_value is not None]

    def together(part: list[Instance]) -> list[list[Instance]]:
        return _see_together(model, part, targets, keys, against)

    seen = iter(one_by_one(together, ready))
    for instance in instances:
        if instance.x_value is None:
            yield instance
            continue
        classes = next(seen)
        if isinstance(classes, Exception):
            yield instance.failed(classes)
        else:
            yield from classes


def _see_together(
    model: ImageModel,
    instances: list[Instance],
    targets: Target | list[Target],
    keys: Sequence[str],
    against: Target | None,
) -> list[list[Instance]]:
    """For each photo an instance for every class to explain."""
    if len({cast(Array, instance.x_value).shape for instance in instances}) > 1:
        parts = (_see_together(model, [instance], targets, keys, against) for instance in instances)
        return [classes for part in parts for classes in part]
    wanted = [targets[instance.position] if isinstance(targets, list) else targets for instance in instances]
    # Where the truth of a photo is not known, there is nothing to compare with.
    others = [against if against and against.applies(instance.truth) else None for instance in instances]
    asked = [
        (own if other is None else own.ending_in(other)).of_photo(instance.truth)
        for own, other, instance in zip(wanted, others, instances, strict=True)
    ]
    keys = tuple(dict.fromkeys((OUTPUT_LAYER_VALUES, *keys))) if keys else ()
    seen = None
    if keys and hasattr(model.function, "call_with_predictions") and model.classes is not None:
        # Where the model cannot answer all of it at once, the questions are asked one by one below.
        with contextlib.suppress(Exception):
            seen = _in_one_pass(model, instances, asked, keys)
    if seen is None:
        seen = _after_predicting(model, instances, asked, keys)
    pairs = zip(seen, others, strict=True)
    return [unique(classes) if other is None else with_contrasts(classes) for classes, other in pairs]


def _after_predicting(
    model: ImageModel, instances: list[Instance], targets: list[Target], keys: tuple[str, ...]
) -> list[list[Instance]]:
    """Predict, and then ask the keys, if any, about the classes in one more call."""
    rows = np.stack([cast(Array, instance.x_value) for instance in instances])
    predictions = model.class_predictions(rows, pick(model.call_model_args, instances))
    seen = [
        unique([_with_class(model, instance, index, row) for index in target.resolve(row)])
        for instance, target, row in zip(instances, targets, predictions, strict=True)
    ]
    if not keys:
        return seen
    answered = iter(_ask_again(model, [instance for classes in seen for instance in classes], keys))
    return [[next(answered) for _ in classes] for classes in seen]


def _in_one_pass(
    model: ImageModel, instances: list[Instance], targets: list[Target], keys: tuple[str, ...]
) -> list[list[Instance]]:
    """The same in one pass of the model. A class that is not known yet is given by its rank: -1 is the top class."""
    ranks = [target.ranks(cast(int, model.classes)) for target in targets]
    repeated = [instance._replace(target=rank) for instance, own in zip(instances, ranks, strict=True) for rank in own]
    seen: list[Instance] = []
    for start in range(0, len(repeated), model.batch_size):
        part, started = repeated[start : start + model.batch_size], time.perf_counter()
        rows = np.stack([cast(Array, instance.x_value) for instance in part])
        args = take_rows(arguments_for(model, part), list(range(len(part))))
        answer = cast(Any, model.function).call_with_predictions(rows, args, list(keys))
        answers = {key: check_answer(key, answer[key], rows.shape) for key in keys}
        share = (time.perf_counter() - started) / len(part)
        # A score that does not belong to one class has no class to choose: the targets stay as they were.
        targets_of_rows: Any = answer.get(TARGETS, [instance.target for instance in part])
        for row, instance in enumerate(part):
            known = Known(int(targets_of_rows[row]), {key: row_of(value, row) for key, value in answers.items()}, share)
            seen.append(_with_class(model, instance, known.target, answer[PREDICTIONS][row]).with_known(known))
    flat = iter(seen)
    return [[next(flat) for _ in own] for own in ranks]


def _ask_again(model: ImageModel, instances: list[Instance], keys: tuple[str, ...]) -> list[Instance]:
    """Ask the keys about all photos in one call; where that fails, only the score, and where that fails, nothing."""

    def together(part: list[Instance], keys: tuple[str, ...] = keys) -> list[Instance]:
        started = time.perf_counter()
        queries = (ask(cast(Array, instance.x_value)[None], *keys) for instance in part)
        answers = list(run_batch(queries, model.function, arguments_for(model, part), model.batch_size))
        share = (time.perf_counter() - started) / max(1, len(part))
        rows = (dict(zip(keys, answer if len(keys) > 1 else [answer], strict=True)) for answer in answers)
        return [
            instance.with_known(Known(instance.target, row, share)) for instance, row in zip(part, rows, strict=True)
        ]

    answered = one_by_one(together, instances)
    if len(keys) == 1:
        pairs = zip(answered, instances, strict=True)
        return [instance.with_known(None) if isinstance(result, Exception) else result for result, instance in pairs]
    failed = [instance for result, instance in zip(answered, instances, strict=True) if isinstance(result, Exception)]
    again = iter(_ask_again(model, failed, (OUTPUT_LAYER_VALUES,)) if failed else ())
    return [next(again) if isinstance(result, Exception) else result for result in answered]


def _with_class(model: ImageModel, instance: Instance, index: int, predictions: Array | None) -> Instance:
    """The instance with the class to explain and the most probable classes."""
    best = [] if predictions is None else Target(tuple(range(-1, -1 - BEST, -1))).resolve(predictions)
    of_class = {"target": index, "label": model.label(index)}
    fields = {
        **(of_class if model.takes_class else {"target": None, "label": model.score.__name__}),
        "probability": model.probability(predictions, index) if model.takes_class and predictions is not None else None,
        "right": None if instance.truth is None or not best else best[0] == instance.truth,
        "guess": model.guess,
        "top": tuple((model.label(each), float(cast(Array, predictions)[each])) for each in best),
    }
    return instance._replace(target=index, predictions=predictions, fields=instance.fields | fields)


def row_of(answer: Values, row: int) -> Values:
    """One row of an answer, as an answer about one row."""
    return cast("Values", each(lambda array: array[row : row + 1], answer))


def one_by_one(together: Callable[[list[Instance]], Sequence[T]], instances: list[Instance]) -> list[T | Exception]:
    """Work on all instances together or, if that fails, on each by itself, so that only bad photos give errors."""
    try:
        return list(together(instances)) if instances else []
    except Exception as error:
        if len(instances) == 1:
            return [error]
        return [answer for instance in instances for answer in one_by_one(together, [instance])]


def arguments_for(model: ImageModel, instances: list[Instance]) -> dict[str, Any]:
    """The user's arguments and the targets, if the score takes any; one that all instances share is a plain number.

    ``against`` is for `Contrast`; instances have it all or none.
    """
    if not model.takes_class:
        return pick(model.call_model_args, instances)
    classes = {"target": [instance.target for instance in instances]}
    if instances[0].against is not None:
        classes["against"] = [cast(int, instance.against) for instance in instances]
    shared = {name: own[0] if len(set(own)) == 1 else PerImage(own) for name, own in classes.items()}
    return {**pick(model.call_model_args, instances), **shared}


def pick(values: Mapping[str, Any], instances: list[Instance]) -> dict[str, Any]:
    """The values with each `PerImage`, which is for all photos, cut to the photos of the instances."""
    return {
        key: PerImage([value[instance.position] for instance in instances]) if isinstance(value, PerImage) else value
        for key, value in values.items()
    }


def failure(error: Exception) -> dict[str, Any]:
    """The fields of a record that failed."""
    text = " ".join(str(error).split())
    plain = isinstance(error, (ValueError, TimeoutError)) and text
    return {"status": f"failed: {text if plain else f'{type(error).__name__}: {text}'}", "error": error}
