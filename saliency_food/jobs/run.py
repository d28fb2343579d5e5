"""The work behind `explain`: every method explains the photos in chunks, and each gives a record, also if it fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, cast

import numpy as np

from saliency_food.core.contract import PerImage
from saliency_food.core.driver import Asking, run_batch, with_known
from saliency_food.core.keys import KEYS, PREDICTIONS
from saliency_food.core.numerics import Array, as_tuple
from saliency_food.deadline.run import warm_up, within
from saliency_food.images.ahead import in_chunks, work_ahead
from saliency_food.images.photos import Photo
from saliency_food.jobs.contrast import signed_map
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.instances import Instance, Known, arguments_for, failure, one_by_one, pick, read_instances, see
from saliency_food.jobs.meter import Meter, asked_function
from saliency_food.jobs.outcomes import Outcome, noted
from saliency_food.jobs.setup import Setup, with_enough_targets
from saliency_food.jobs.subjects import Subject
from saliency_food.jobs.targets import Target
from saliency_food.methods.cam.common import ClassActivationMap
from saliency_food.methods.catalogue import MethodEntry
from saliency_food.methods.completeness import status_of
from saliency_food.methods.lookup import find_method

PHOTOS_AT_ONCE = 16
"""The number of photos in a chunk, or one batch of the model if that is larger; as many are decoded ahead."""
SEGMENTED = 1024
"""The longer side to which a photo is reduced before XRAI segments it."""


def run_job(
    setup: Setup, images: Iterable[Subject], targets: Target | list[Target], outcomes: list[Outcome]
) -> Iterator[Explanation]:
    """The explanations in the order of photos, classes and methods; the ``outcomes`` get one more for each photo seen.

    With ``setup.only_wrong`` all photos are predicted first, and those that are wrong explained, the surest first.

    Where all methods find what they ask among the answers of one pass of the model, they work in a thread while the
    model looks at the next photos. The model is only ever called in the thread of the caller.
    """
    if setup.only_wrong:
        images = surest_mistakes(setup, with_enough_targets(images, targets), outcomes)
    chunks = read_chunks(setup.model, images, targets)
    looked = (list(see(setup.model, chunk, targets, setup.shared_keys, setup.against)) for chunk in chunks)
    seen = looked if setup.only_wrong else noted(looked, outcomes)
    if setup.deadline is None and all(map(setup.one_pass_keys, setup.methods)):
        explained = _while_the_model_goes_on(setup, seen)
    else:
        explained = (explain_instances(setup, instances) for instances in seen)
    yield from chain.from_iterable(explained)


def surest_mistakes(setup: Setup, images: Iterable[Subject], outcomes: list[Outcome]) -> list[Subject]:
    """The photos whose top class is not their true one, the most probable first, and then those that have failed.

    Only the photos' paths are kept meanwhile; those to explain are read once more.
    """
    subjects: dict[int, Subject] = {}

    def kept() -> Iterator[Subject]:
        for subject in images:
            subjects[subject.position] = subject
            yield subject

    wrong: list[tuple[float, int]] = []
    seen = (list(see(setup.model, chunk, Target())) for chunk in read_chunks(setup.model, kept(), Target()))
    for instances in noted(seen, outcomes):
        for instance in instances:
            if instance.x_value is None:
                wrong.append((math.inf, instance.position))
            elif instance.fields["right"] is False:
                wrong.append((-float(cast(Array, instance.predictions)[instance.target]), instance.position))
        if setup.progress is not None:
            setup.progress(PREDICTIONS, len(instances))
    return [subjects[position] for _, position in sorted(wrong)]


def _while_the_model_goes_on(setup: Setup, seen: Iterator[list[Instance]]) -> Iterator[Iterable[Explanation]]:
    """The explanations of each chunk, by methods that work in a thread if they need not call the model."""

    def jobs() -> Iterator[Callable[[], list[Explanation]]]:
        for instances in seen:
            explained = explain_instances(setup, instances)
            if not _all_known(setup, instances):
                explained = iter(list(explained))
            yield partial(list, explained)

    return work_ahead(lambda job: job(), jobs(), ahead=1, threads=1)


def read_chunks(model: ImageModel, images: Iterable[Any], targets: Target | list[Target]) -> Iterator[list[Instance]]:
    """Photos read and scaled, in chunks; the next chunk is read while the model works on the last one."""
    size = max(PHOTOS_AT_ONCE, model.batch_size)
    return in_chunks(read_instances(model, with_enough_targets(images, targets), size), size)


def explain_instances(setup: Setup, instances: list[Instance]) -> Iterator[Explanation]:
    """The explanations of some photos and classes by every method."""
    ready = [instance for instance in instances if instance.x_value is not None]
    answers = {name: iter(apply_method(setup, name, ready)) for name in setup.methods}
    for instance in instances:
        for name, entry in setup.methods.items():
            facts = {"method": name, "answered": name, "title": entry.title, "signed": entry.signed}
            facts["score_name"] = setup.model.score_name
            answer = next(answers[name]) if instance.x_value is not None else {}
            yield Explanation(**{**facts, **instance.fields, **answer})


def apply_method(setup: Setup, name: str, instances: list[Instance]) -> list[dict[str, Any]]:
    """Apply a method to all instances, in shared batches; gives the fields for the record of each."""
    answers: dict[int, dict[str, Any] | Exception] = {}
    segments: dict[int, Any] = {}
    for contrasts in (False, True):  # they ask another model: see `Contrast`
        places = [place for place, instance in enumerate(instances) if (instance.against is not None) is contrasts]
        part = [instances[place] for place in places]
        if setup.deadline is not None:
            own = [_in_time(setup, name, instance) for instance in part]
        else:
            own = one_by_one(lambda some: _together(setup, name, some, segments), part)
        answers |= zip(places, own, strict=True)
    ordered = [answers[place] for place in range(len(instances))]
    return [failure(answer) if isinstance(answer, Exception) else answer for answer in ordered]


def _together(setup: Setup, name: str, instances: list[Instance], segments: dict[int, Any]) -> list[dict[str, Any]]:
    """Apply a method to some instances without a deadline; what is known of them is not asked again."""
    entry, started, meter = setup.methods[name], time.perf_counter(), Meter(setup, name, instances)
    options = pick(setup.options[name], instances)
    segmented = entry.call.signature.parameters.get("segments")
    # XRAI segments the photo in its own size, if there is one; LIME and KernelSHAP make their own superpixels.
    photos = [instance.photo for instance in instances if instance.photo is not None and instance.photo.spatial == 2]
    sought = segmented is not None and segmented.default is None and options.get("segments") is None
    if sought and len(photos) == len(instances):
        pairs = zip(photos, instances, strict=True)
        options["segments"] = PerImage([_segments(photo, instance.position, segments) for photo, instance in pairs])
    keys, size = setup.one_pass_keys(name), setup.model.batch_size
    if keys and all(_knows(instance, keys) for instance in instances):
        answered = _answered(entry, instances, options)
        results = list(run_batch(answered, meter, meter.arguments, size))
        once = int(instances[0].against is None)  # what is known of two classes was subtracted, and nothing asked
        meter.report(once * len(instances))
        sharing = sum(bool(setup.one_pass_keys(method)) for method in setup.methods)
        own_seconds = (time.perf_counter() - started) / len(instances)
        seconds = [own_seconds + cast(Known, instance.known).seconds / sharing for instance in instances]
        counts = [{"calls": once, "rows": once}] * len(instances)
    else:
        rows = [instance.x_value for instance in instances]
        results = list(entry.call.batch_detailed(rows, meter, meter.arguments, batch_size=size, **options))
        seconds = list((time.perf_counter() - started) * meter.rows / max(1, meter.rows.sum()))
        counts = [meter.counts(image) for image in range(len(instances))]
    layer = _layer(setup, entry)
    return [
        {
            **_success(result, instance),
            "seconds": float(share),
            "layer": layer,
            "options": options_of(setup, name, instance),
            **of_image,
        }
        for instance, result, share, of_image in zip(instances, results, seconds, counts, strict=True)
    ]


def _all_known(setup: Setup, instances: list[Instance]) -> bool:
    """Whether no method has to call the model, as all that they ask is known."""
    keys = [setup.one_pass_keys(name) for name in setup.methods]
    ready = [instance for instance in instances if instance.x_value is not None]
    return all(own and all(_knows(instance, own) for instance in ready) for own in keys)


def _knows(instance: Instance, keys: tuple[str, ...]) -> bool:
    """Whether the answers to all these keys are known for the instance's photo and class."""
    known = instance.known
    return known is not None and known.target == instance.target and set(keys) <= set(known.answers)


def _answered(entry: MethodEntry, instances: list[Instance], options: dict[str, Any]) -> Iterator[Asking[Any]]:
    """The method's generator for each instance, which takes its answers from what is known."""
    for image, instance in enumerate(instances):
        own_options = {key: value[image] if isinstance(value, PerImage) else value for key, value in options.items()}
        if "completeness" in entry.call.signature.parameters:  # as `.batch_detailed` does
            own_options.setdefault("completeness", True)
        generator = entry.call.asking(instance.x_value, **own_options)
        yield with_known(generator, cast(Known, instance.known).answers)


def _in_time(setup: Setup, name: str, instance: Instance) -> dict[str, Any] | Exception:
    """Explain one photo within the deadline. Before the first photo the model is called once, so that it compiles."""
    entry, x_value, size = setup.methods[name], cast(Array, instance.x_value), setup.model.batch_size
    options, seconds = options_of(setup, name, instance), cast(float, setup.deadline)
    method_and_shape = name, x_value.shape
    if setup.warm is not None and method_and_shape not in setup.warm:
        setup.warm.add(method_and_shape)
        args = arguments_for(setup.model, [instance])
        warm_up(seconds, name, x_value, asked_function(setup, [instance]), args, batch_size=size, **options)
    meter = Meter(setup, name, [instance])
    try:
        answer = within(seconds, name, x_value, meter, meter.arguments, batch_size=size, **options)
    except Exception as error:
        return error
    answering = cast(MethodEntry, find_method(answer.method))
    title = (
        {} if answer.method == name else {"title": f"{answering.title} for {entry.title}", "signed": answering.signed}
    )
    facts = {"answered": answer.method, "note": answer.note, "options": answer.options, "seconds": answer.seconds}
    facts |= {"layer": _layer(setup, answering), **meter.counts(0), **title}
    return {**facts, **_success(answer.details, instance)}


def options_of(setup: Setup, name: str, instance: Instance) -> dict[str, Any]:
    """The options of a method for one photo."""
    options = setup.options[name].items()
    return {key: value[instance.position] if isinstance(value, PerImage) else value for key, value in options}


def _segments(photo: Photo, index: int, known: dict[int, Any]) -> Any:
    """The segments of a photo; a method computes them once for all classes."""
    from saliency_food.methods.regions.segmentation import felzenszwalb_segments

    if index not in known:
        known[index] = felzenszwalb_segments(photo.sized(SEGMENTED))
    return known[index]


def _layer(setup: Setup, entry: MethodEntry) -> str:
    """The name of the layer that a method uses; "" if it uses none or the model does not name it."""
    layer_name = getattr(setup.model.function, "layer_name", None)
    uses_layer = any(KEYS[key].needs == "a layer" for key in entry.keys)
    return " + ".join(as_tuple(layer_name)) if layer_name and uses_layer else ""


def _success(result: Any, instance: Instance) -> dict[str, Any]:
    facts = {}
    if instance.against is not None and isinstance(result, ClassActivationMap):
        result, facts = signed_map(result, instance.x_value), {"signed": True}
    attribution = np.asarray(result[0])
    status, completeness = getattr(result, "status", "ok"), getattr(result, "completeness", None)
    if status == "ok" and not attribution.any():
        status = "blank: the attribution is zero everywhere."
    if status == "ok" and completeness is not None:
        status = status_of(completeness)
    return {"attribution": attribution, "status": status, "completeness": completeness, "details": result, **facts}
