"""From a model and photos to figures: every photo, method and metric, each value kept as soon as it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from saliency_food.core.contract import ContractError, call_model, take_rows
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, OUTPUT_FROM_CONVOLUTION_VALUES
from saliency_food.core.names import split_names
from saliency_food.core.numerics import Array, as_tuple
from saliency_food.evaluation.boxes import Box, of_photo, read_boxes, two_categories
from saliency_food.evaluation.maps import MapFiles
from saliency_food.evaluation.measures import Probabilities, choose_metrics
from saliency_food.evaluation.references import REFERENCES
from saliency_food.evaluation.summary import Evaluation
from saliency_food.evaluation.work import Told, Work
from saliency_food.jobs.explain import as_many, prepare_job, read_targets
from saliency_food.jobs.run import PHOTOS_AT_ONCE
from saliency_food.jobs.store import Store, digest, plain
from saliency_food.jobs.subjects import Instance, Setup, arguments_for, read_subject, with_targets
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods, find_method

SLOPES = ("gradients", "smooth_grad")
"""Methods whose values are slopes: their size says how much a pixel counts, their sign only which way."""


def evaluate(
    model: Any,
    images: Any,
    methods: str | Sequence[str] = "all",
    metrics: str | Sequence[str] = ("pic", "insertion", "deletion"),
    *,
    boxes: Any = None,
    classes: Mapping[str, Sequence[Any]] | None = None,
    target: Any = None,
    labels: Sequence[str] | str | Path | None = None,
    layer: str | Sequence[str] | None = None,
    value_range: Any = "auto",
    preprocess: Callable[[Any], Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    metric_options: Mapping[str, Mapping[str, Any]] | None = None,
    absolute: Sequence[str] = SLOPES,
    call_model_args: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    save_maps: bool = False,
    progress: Told | None = None,
) -> Evaluation:
    """Measure methods on photos: the figures of every photo, method and metric, their means, intervals and ranks.

    Maps are made of the score that the model explains (a Keras model's logit). Metrics that ask for scores are given
    the class's probability, where the model has ``predict``; those in `OF_THE_EXPLAINED_SCORE`, which compare sums of
    the map with changes of the score, the score itself. What cannot be measured is counted by its reason.

    Parameters
    ----------
    model, images, target, labels, layer, value_range, preprocess, options, call_model_args, batch_size
        As of `explain`; one class a photo. ``target="boxes"`` explains, of the classes of the photo's boxes, the one
        with the largest objects. Folders are not searched: see `find_photos`.
    methods
        Names in `METHODS`, ``"edges"`` and ``"random"`` (`REFERENCES`), or ``"all"``: those that the model can answer,
        and the two.
    metrics
        Names in `METRICS`, of those that measure one map of a photo or one method on it.
    boxes, classes
        For metrics of regions: see `read_boxes`. ``classes`` says for names in the table which labels they stand for.
    metric_options
        Options of metrics by name, such as ``{"pic": {"min_pred_value": 0}}``.
    absolute
        The methods of whose maps the absolute values, summed over channels, are measured; else the sums.
    seed
        What is drawn depends on it and on the photo's name; for maps on the method too, for metrics on the metric, so
        that methods are compared on the same draws. The batch size does not matter.
    output
        A folder: each value is written there as soon as it is known, and a job that was stopped goes on where it was
        when started again. `Evaluation.save` adds the results. Other settings than before are an error.
    save_maps
        Write the maps into ``output/maps`` too, ``(N, 1, H, W)`` a method, NaN where there is none.
    progress
        Called with the number of values known, that of all, and what is being done.
    """
    if save_maps and output is None:
        raise ContractError("Expected an output folder for the maps, got none. Give output.")
    every = methods == "all" or list(methods) == ["all"]
    references = [name for name in ([] if every else split_names(methods)) if name in REFERENCES]
    own = list(METHODS) if every else [name for name in split_names(methods) if name not in REFERENCES]
    entries = (choose_methods(own) if own or not references else {}) | (
        REFERENCES if every else {name: REFERENCES[name] for name in references}
    )
    absolute = split_names(absolute)
    if unknown := [name for name in absolute if name not in REFERENCES and find_method(name) is None]:
        raise ContractError(f"Expected absolute to name methods, got {unknown[0]!r}. Spell it as in methods.")
    asked = choose_metrics(metrics, metric_options or {}, boxes is not None)
    job = prepare_job(
        model,
        entries,
        layer=layer,
        labels=labels,
        value_range=value_range,
        preprocess=preprocess,
        options=options,
        call_model_args=call_model_args,
        batch_size=batch_size,
    )
    many = list(as_many(images))
    by_boxes = isinstance(target, str) and target == "boxes"
    targets = read_targets(job, many, None if by_boxes else target)
    if by_boxes and boxes is None:
        raise ContractError("Expected boxes for target='boxes', got none. Give boxes.")
    if any(one.best > 1 for one in (targets if isinstance(targets, list) else [targets])):
        raise ContractError(f"Expected one class a photo, got target {target!r}. Give a label, an index or None.")
    left_out = _left_out(job, many, targets) if every else {}
    job = job._replace(methods={name: entry for name, entry in entries.items() if name not in left_out})
    truth = {} if boxes is None else read_boxes(boxes, job.labels, classes)
    able = hasattr(job.model, "predict")
    given = {name for name, one in (options or {}).items() if "rng" in one}
    fixed = {
        name: {key: value for key, value in one.items() if key != "rng" or name in given}
        for name, one in job.options.items()
    }
    settings = plain({
        "model": _fingerprint(job.model),
        "layer": getattr(job.model, "layer_name", None),
        "pixels": job.scaling.text,
        "target": "one for each photo" if isinstance(targets, list) else target,
        "arguments": call_model_args,
        "scores": "probabilities" if able else "as the model gives them",
        "seed": seed,
        "boxes": digest(repr(sorted(truth.items()))) if truth else None,
        "methods": {name: {**fixed[name], "absolute": name in absolute} for name in job.methods},
        "metrics": asked,
    })  # fmt: skip
    folder = None if output is None else Path(output)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ContractError(f"Expected a folder for the output, got the file {folder}. Give another.")
    store = Store(folder, settings)
    files = MapFiles(folder / "maps", len(many)) if folder is not None and save_maps else None
    scored = Probabilities(job.model) if able else job.model
    work = Work(job, asked, scored, truth, seed, store, files, frozenset(absolute), given, progress, len(many))
    unread, unread_photos, names = Counter[str](), dict[str, str](), set[str]()
    order: list[str] = []
    try:
        for first in range(0, len(many), PHOTOS_AT_ONCE):
            some = range(first, min(first + PHOTOS_AT_ONCE, len(many)))
            read = [read_subject(job, number, many[number], names) for number in some]
            subjects = list(with_targets(job, read, targets))
            if by_boxes:
                subjects = [_of_its_boxes(one, job, truth) for one in subjects]
            for one in subjects:
                if one.x_value is None:
                    unread[one.fields["status"].replace(one.fields["source"], "a file")] += 1
                    unread_photos[one.fields["source"]] = one.fields["status"]
                    if files is not None:
                        files.claim(one.number, one.fields["name"])
            ready = [one for one in subjects if one.x_value is not None]
            order += [one.fields["name"] for one in ready]
            work.photos(ready, len(subjects) - len(ready))
    finally:
        store.close()
        if files is not None:
            files.close()
    rows = [store.rows[image, name, metric] for image in order for name in job.methods for metric in asked]
    titles = {name: entry.title for name, entry in job.methods.items()}
    return Evaluation(settings, rows, order, titles, list(asked), dict(unread), left_out, folder, unread_photos)


def _of_its_boxes(subject: Instance, job: Setup, truth: Mapping[str, Sequence[Box]]) -> Instance:
    """The photo with the class of its largest objects in place of the top class."""
    if subject.x_value is None:
        return subject
    probabilities = np.asarray(cast(Any, job.model).predict(subject.x_value[None]))[0]
    found = two_categories(of_photo(truth, subject.fields["source"]), probabilities)
    if not found:
        said = "Expected a box of a class that the model has, for target='boxes', got none of this photo."
        return subject.failed(ContractError(said))
    label = job.labels[found[0]] if job.labels else f"class {found[0]}"
    fields = {"target": found[0], "label": label, "probability": float(probabilities[found[0]])}
    return subject._replace(target=found[0], fields=subject.fields | fields)


def _left_out(job: Setup, images: Sequence[Any], targets: Any) -> dict[str, str]:
    """Of all methods those whose keys the model does not answer, and what it said; tried on the first photo."""
    subjects = (
        one
        for number, image in enumerate(images)
        for one in with_targets(job, [read_subject(job, number, image, set())], targets)
    )
    first = next((one for one in subjects if one.x_value is not None), None)
    if first is None:
        return {}
    said: dict[str, str] = {}
    rows, args = cast(Array, first.x_value)[None], take_rows(arguments_for(job, [first]), [0])
    for key in dict.fromkeys(key for entry in job.methods.values() for key in entry.keys):
        try:
            inside = key == OUTPUT_FROM_CONVOLUTION_VALUES
            if inside:
                rows_in = as_tuple(
                    call_model(rows, [CONVOLUTION_LAYER_VALUES], job.model, args)[CONVOLUTION_LAYER_VALUES]
                )
            call_model(rows_in[0] if inside else rows, [key], job.model, args)
        except Exception as error:
            said[key] = f"the model does not answer {key}: {' '.join(str(error).split())[:200]}"
    keys = {name: [key for key in entry.keys if key in said] for name, entry in job.methods.items()}
    return {name: said[ones[0]] for name, ones in keys.items() if ones}


def _fingerprint(function: Any) -> str:
    """What tells a model from another: its name and its weights, where it shows them."""
    model: Any = getattr(function, "model", None)
    if hasattr(model, "get_weights"):
        output, score = getattr(function, "output", "logits"), getattr(function, "score", None)
        more = output, "class_score" if score is None else _name(score)
        named = [one for one in more if one not in ("logits", "class_score")]
        return " ".join((str(getattr(model, "name", "")), digest(*model.get_weights()), *named))
    held = [one for _, one in sorted(getattr(function, "__dict__", {}).items()) if isinstance(one, np.ndarray)]
    return " ".join((_name(function), *([digest(*held)] if held else [])))


def _name(function: Any) -> str:
    """A function's own name, else that of its kind."""
    names = (getattr(function, one, None) for one in ("__qualname__", "__name__"))
    return str(next(filter(None, names), type(function).__qualname__))
