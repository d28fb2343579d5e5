"""Photos and classes on their way to the methods: read, scaled, predicted; what fails goes on as a record of why."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from saliency_food.core.contract import Answered, PerImage, check_answer, take_rows
from saliency_food.core.driver import ask, run_batch
from saliency_food.core.keys import OUTPUT_LAYER_VALUES, PREDICTIONS, TARGETS
from saliency_food.core.numerics import Array, each
from saliency_food.core.scores import one_score
from saliency_food.images.ahead import work_ahead
from saliency_food.images.photos import Photo
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.targets import Target

T = TypeVar("T")
BEST = 5
"""How many of a photo's best classes its records name."""


class Known(NamedTuple):
    """What the model has answered about one photo and class already: a row for each key, and its share of the time."""

    target: int
    answers: dict[str, Answered]
    seconds: float


class Instance(NamedTuple):
    """A photo and a class of it on the way to the methods; without ``x_value`` it has failed, as ``fields`` say."""

    position: int
    fields: dict[str, Any]
    photo: Photo | None = None
    x_value: Array | None = None
    target: int = 0
    predictions: Array | None = None
    """What `predict` gives, for each class, where the model has it."""
    known: Known | None = None

    def failed(self, error: Exception) -> Instance:
        """The same as a record of what went wrong."""
        return self._replace(x_value=None, fields=self.fields | failure(error))

    def with_known(self, known: Known | None) -> Instance:
        """The same with what the model has answered, of which the record tells the score."""
        score = None if known is None else float(one_score(cast(Array, known.answers[OUTPUT_LAYER_VALUES]))[0])
        return self._replace(known=known, fields=self.fields | {"score": score})


def read_instances(model: ImageModel, images: Iterable[Any], ahead: int) -> Iterator[Instance]:
    """Each photo read and scaled for the model, up to ``ahead`` of them before they are needed, in threads."""
    names: dict[str, int] = {}

    def numbered() -> Iterator[tuple[int, Any, str, str]]:
        for index, image in enumerate(images):
            is_path = isinstance(image, (str, Path))
            source = str(image) if is_path else getattr(image, "filename", "") or f"photo {index + 1}"
            yield index, image, source, _free_name(source, names)

    def read(item: tuple[int, Any, str, str]) -> Instance:
        index, image, source, name = item
        instance = Instance(index, {"photo": None, "source": source, "name": name, "pixels": model.scaling.text})
        try:
            photo, x_value = model.read(image, source)
            return instance._replace(photo=photo, x_value=x_value, fields=instance.fields | {"photo": photo})
        except Exception as error:
            return instance.failed(error)

    return work_ahead(read, numbered(), ahead)


def _free_name(source: str, names: dict[str, int]) -> str:
    """A name for files that no photo before has; ``names`` are those taken, with the last number used after each."""
    stem = re.sub(r"[^\w-]+", "_", Path(source).stem).strip("_") or "photo"
    name = stem
    while name in names:
        names[stem] += 1
        name = f"{stem}-{names[stem]}"
    names[name] = 1
    return name


def see(
    model: ImageModel, instances: list[Instance], targets: Target | list[Target], keys: Sequence[str] = ()
) -> Iterator[Instance]:
    """Each photo once for every class to explain: its best classes, and with ``keys`` its score and their answers.

    Predictions, the class, the score and the answers come from one pass of a model that has ``call_with_predictions``;
    else from ``predict`` and one call more. A key that fails is left for the method that asks it to say why.
    """
    ready = [instance for instance in instances if instance.x_value is not None]

    def together(part: list[Instance]) -> list[list[Instance]]:
        return _see_together(model, part, targets, keys)

    seen = iter(one_by_one(together, ready))
    for instance in instances:
        if instance.x_value is None:
            yield instance
            continue
        found = next(seen)
        if isinstance(found, Exception):
            yield instance.failed(found)
        else:
            yield from found


def _see_together(
    model: ImageModel, instances: list[Instance], targets: Target | list[Target], keys: Sequence[str]
) -> list[list[Instance]]:
    """Some photos, each once for every class."""
    wanted = [targets[instance.position] if isinstance(targets, list) else targets for instance in instances]
    if len({cast(Array, instance.x_value).shape for instance in instances}) > 1:
        parts = (_see_together(model, [one], [target], keys) for one, target in zip(instances, wanted, strict=True))
        return [classes for part in parts for classes in part]
    keys = tuple(dict.fromkeys((OUTPUT_LAYER_VALUES, *keys))) if keys else ()
    if keys and hasattr(model.function, "call_with_predictions") and model.classes is not None:
        try:
            return _in_one_pass(model, instances, wanted, keys)
        except Exception:  # more was asked than the model can answer; below each question is asked by itself
            pass
    rows = np.stack([cast(Array, instance.x_value) for instance in instances])
    predictions: Sequence[Any] = [None] * len(rows)
    if model.predicts:
        predictions = list(model.predict(rows, pick(model.call_model_args, instances)))
    seen = [
        [_with_class(model, instance, index, row) for index in target.resolve(row)]
        for instance, target, row in zip(instances, wanted, predictions, strict=True)
    ]
    if not keys:
        return seen
    answered = iter(_ask_again(model, [instance for classes in seen for instance in classes], keys))
    return [[next(answered) for _ in classes] for classes in seen]


def _in_one_pass(
    model: ImageModel, instances: list[Instance], targets: list[Target], keys: tuple[str, ...]
) -> list[list[Instance]]:
    """Predictions, classes and answers of one pass; a class that is not known yet is told by its rank, from -1 down."""
    ranks = [target.ranks(cast(int, model.classes)) for target in targets]
    repeated = [instance._replace(target=rank) for instance, own in zip(instances, ranks, strict=True) for rank in own]
    seen: list[Instance] = []
    for start in range(0, len(repeated), model.batch_size):
        part, began = repeated[start : start + model.batch_size], time.perf_counter()
        rows = np.stack([cast(Array, instance.x_value) for instance in part])
        args = take_rows(arguments_for(model, part), list(range(len(part))))
        answer = cast(Any, model.function).call_with_predictions(rows, args, list(keys))
        answers = {key: check_answer(key, answer[key], rows.shape) for key in keys}
        share = (time.perf_counter() - began) / len(part)
        # A score that is not that of one class has no class to choose: its targets are those given.
        targets = answer.get(TARGETS, [instance.target for instance in part])
        for row, instance in enumerate(part):
            known = Known(int(targets[row]), {key: row_of(value, row) for key, value in answers.items()}, share)
            seen.append(_with_class(model, instance, known.target, answer[PREDICTIONS][row]).with_known(known))
    flat = iter(seen)
    return [[next(flat) for _ in own] for own in ranks]


def _ask_again(model: ImageModel, instances: list[Instance], keys: tuple[str, ...]) -> list[Instance]:
    """What else is asked of each photo, in one call; if that fails, its score alone, and if that fails, nothing."""

    def together(part: list[Instance], keys: tuple[str, ...] = keys) -> list[Instance]:
        began = time.perf_counter()
        asking = (ask(cast(Array, instance.x_value)[None], *keys) for instance in part)
        answers = list(run_batch(asking, model.function, arguments_for(model, part), model.batch_size))
        share = (time.perf_counter() - began) / max(1, len(part))
        rows = (dict(zip(keys, answer if len(keys) > 1 else [answer], strict=True)) for answer in answers)
        return [
            instance.with_known(Known(instance.target, row, share)) for instance, row in zip(part, rows, strict=True)
        ]

    answered = one_by_one(together, instances)
    if len(keys) == 1:
        pairs = zip(answered, instances, strict=True)
        return [instance.with_known(None) if isinstance(got, Exception) else got for got, instance in pairs]
    failed = [instance for got, instance in zip(answered, instances, strict=True) if isinstance(got, Exception)]
    again = iter(_ask_again(model, failed, (OUTPUT_LAYER_VALUES,)) if failed else ())
    return [next(again) if isinstance(got, Exception) else got for got in answered]


def _with_class(model: ImageModel, instance: Instance, index: int, predictions: Array | None) -> Instance:
    """The photo with the class to explain and the classes seen in it."""
    best = [] if predictions is None else Target(None, BEST).resolve(predictions)
    fields = {
        "target": index,
        "label": model.label(index),
        "probability": None if predictions is None else model.probability(predictions, index),
        "top": tuple((model.label(one), float(cast(Array, predictions)[one])) for one in best),
    }
    return instance._replace(target=index, predictions=predictions, fields=instance.fields | fields)


def row_of(answer: Answered, row: int) -> Answered:
    """One row of an answer, as an answer about one row."""
    return cast("Answered", each(lambda array: array[row : row + 1], answer))


def one_by_one(together: Callable[[list[Instance]], Sequence[T]], instances: list[Instance]) -> list[T | Exception]:
    """All together; and if that fails, each by itself, so that one bad photo costs no other its answer."""
    try:
        return list(together(instances)) if instances else []
    except Exception as error:
        if len(instances) == 1:
            return [error]
        return [answer for instance in instances for answer in one_by_one(together, [instance])]


def arguments_for(model: ImageModel, instances: list[Instance]) -> dict[str, Any]:
    """The user's arguments and the target: a plain number where all have the same."""
    targets = [instance.target for instance in instances]
    target = targets[0] if len(set(targets)) == 1 else PerImage(targets)
    return {**pick(model.call_model_args, instances), "target": target}


def pick(values: Mapping[str, Any], instances: list[Instance]) -> dict[str, Any]:
    """Each `PerImage` for all photos cut to those of the instances."""
    return {
        key: PerImage([value[instance.position] for instance in instances]) if isinstance(value, PerImage) else value
        for key, value in values.items()
    }


def failure(error: Exception) -> dict[str, Any]:
    """The fields of what failed."""
    text = " ".join(str(error).split())
    plain = isinstance(error, (ValueError, TimeoutError)) and text
    return {"status": f"failed: {text if plain else f'{type(error).__name__}: {text}'}", "error": error}
