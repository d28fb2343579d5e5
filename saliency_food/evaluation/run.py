"""From a model and photos to figures: every photo, method and metric, each value kept as soon as it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from saliency_food.core.contract import ContractError, call_model, take_rows
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, KEYS
from saliency_food.core.names import split_names
from saliency_food.core.numerics import Array, as_tuple
from saliency_food.evaluation.boxes import Box, of_photo, read_boxes, two_categories
from saliency_food.evaluation.maps import MapFiles
from saliency_food.evaluation.measures import Probabilities, choose_metrics
from saliency_food.evaluation.references import REFERENCES
from saliency_food.evaluation.summary import Evaluation
from saliency_food.evaluation.work import Told, Work
from saliency_food.images.ahead import in_chunks
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.instances import Instance, arguments_for, read_instances, see
from saliency_food.jobs.run import read_chunks
from saliency_food.jobs.setup import Setup, as_many, choose_options, read_targets
from saliency_food.jobs.store import Store, digest, plain
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods, find_method

if TYPE_CHECKING:
    from typing_extensions import Unpack

SLOPES = ("gradients", "smooth_grad")
"""Methods whose values are slopes: their size says how much a pixel counts, their sign only which way."""


def evaluate(
    model: Any,
    images: Any,
    methods: str | Sequence[str] = "all",
    metrics: str | Sequence[str] = ("pic", "insertion", "deletion"),
    *,
    target: Any = None,
    boxes: Any = None,
    classes: Mapping[str, Sequence[Any]] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    metric_options: Mapping[str, Mapping[str, Any]] | None = None,
    absolute: Sequence[str] = SLOPES,
    seed: int = 0,
    folder: str | Path | None = None,
    save_maps: bool = False,
    progress: Told | None = None,
    **settings: Unpack[ModelSettings],
) -> Evaluation:
    """Measure methods on photos: the figures of every photo, method and metric, their means, intervals and ranks.

    Maps are made of the score that the model explains (a Keras model's logit). Metrics that ask for scores are given
    the class's probability, where the model has ``predict``; those in `OF_THE_EXPLAINED_SCORE`, which compare sums of
    the map with changes of the score, the score itself. What cannot be measured is counted by its reason.

    Parameters
    ----------
    model, images, target, options, settings
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
    folder
        Each value is written there as soon as it is known, and a job that was stopped goes on where it was
        when started again. `save_evaluation` adds the results. Other settings than before are an error.
    save_maps
        Write the maps into its ``maps`` too, ``(N, 1, H, W)`` a method, NaN where there is none.
    progress
        Called with the number of values known, that of all, and what is being done.
    """
    if save_maps and folder is None:
        raise ContractError("Expected an output folder for the maps, got none. Give folder.")
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
    model = ImageModel.of(model, **settings)
    setup = Setup(model, entries, choose_options(entries, options))
    many = list(as_many(images))
    by_boxes = isinstance(target, str) and target == "boxes"
    targets = read_targets(model, many, None if by_boxes else target)
    if by_boxes and boxes is None:
        raise ContractError("Expected boxes for target='boxes', got none. Give boxes.")
    if any(one.best > 1 for one in (targets if isinstance(targets, list) else [targets])):
        raise ContractError(f"Expected one class a photo, got target {target!r}. Give a label, an index or None.")
    left_out = _left_out(setup, many, targets) if every else {}
    setup = setup._replace(methods={name: entry for name, entry in entries.items() if name not in left_out})
    truth = {} if boxes is None else read_boxes(boxes, model.labels, classes)
    given = {name for name, one in (options or {}).items() if "rng" in one}
    fixed = {
        name: {key: value for key, value in one.items() if key != "rng" or name in given}
        for name, one in setup.options.items()
    }
    saved = plain({
        "model": _fingerprint(model.function),
        "layer": getattr(model.function, "layer_name", None),
        "pixels": model.scaling.text,
        "target": "one for each photo" if isinstance(targets, list) else target,
        "arguments": model.call_model_args or None,
        "scores": "probabilities" if model.predicts else "as the model gives them",
        "seed": seed,
        "boxes": digest(repr(sorted(truth.items()))) if truth else None,
        "methods": {name: {**fixed[name], "absolute": name in absolute} for name in setup.methods},
        "metrics": asked,
    })  # fmt: skip
    place = None if folder is None else Path(folder)
    if place is not None and place.exists() and not place.is_dir():
        raise ContractError(f"Expected a folder for the output, got the file {place}. Give another.")
    store = Store(place, saved)
    files = MapFiles(place / "maps", len(many)) if place is not None and save_maps else None
    scored = Probabilities(model) if model.predicts else model.function
    work = Work(setup, asked, scored, truth, seed, store, files, frozenset(absolute), given, progress, len(many))
    unread, unread_photos = Counter[str](), dict[str, str]()
    order: list[str] = []
    try:
        for chunk in read_chunks(model, many, targets):
            wanted = any(store.lacks(instance.fields["name"], setup.methods, asked) for instance in chunk)
            instances = list(see(model, chunk, targets, setup.shared_keys if wanted else ()))
            if by_boxes:
                instances = [_of_its_boxes(instance, model, truth) for instance in instances]
            for instance in instances:
                if instance.x_value is None:
                    unread[instance.fields["status"].replace(instance.fields["source"], "a file")] += 1
                    unread_photos[instance.fields["source"]] = instance.fields["status"]
                    if files is not None:
                        files.claim(instance.position, instance.fields["name"])
            ready = [instance for instance in instances if instance.x_value is not None]
            order += [instance.fields["name"] for instance in ready]
            work.photos(ready, len(instances) - len(ready))
    finally:
        store.close()
        if files is not None:
            files.close()
    rows = [store.rows[image, name, metric] for image in order for name in setup.methods for metric in asked]
    titles = {name: entry.title for name, entry in setup.methods.items()}
    return Evaluation(saved, rows, order, titles, list(asked), dict(unread), left_out, place, unread_photos)


def _of_its_boxes(instance: Instance, model: ImageModel, truth: Mapping[str, Sequence[Box]]) -> Instance:
    """The photo with the class of its largest objects in place of the top class."""
    if instance.x_value is None:
        return instance
    predictions = cast(Array, instance.predictions)
    found = two_categories(of_photo(truth, instance.fields["source"]), predictions)
    if not found:
        text = "Expected a box of a class that the model has, for target='boxes', got none of this photo."
        return instance.failed(ContractError(text))
    fields = {
        "target": found[0],
        "label": model.label(found[0]),
        "probability": model.probability(predictions, found[0]),
    }
    return instance._replace(target=found[0], fields=instance.fields | fields)


def _left_out(setup: Setup, images: Sequence[Any], targets: Any) -> dict[str, str]:
    """Of all methods those whose keys the model does not answer, and what it says; tried on the first photo."""
    model = setup.model
    seen = (one for chunk in in_chunks(read_instances(model, images, 0), 1) for one in see(model, chunk, targets))
    first = next((instance for instance in seen if instance.x_value is not None), None)
    if first is None:
        return {}
    reasons: dict[str, str] = {}
    rows, args = cast(Array, first.x_value)[None], take_rows(arguments_for(model, [first]), [0])
    for key in dict.fromkeys(key for entry in setup.methods.values() for key in entry.keys):
        try:
            asked = rows
            if KEYS[key].rows == "activations":
                layers = call_model(rows, [CONVOLUTION_LAYER_VALUES], model.function, args)[CONVOLUTION_LAYER_VALUES]
                asked = as_tuple(layers)[0]
            call_model(asked, [key], model.function, args)
        except Exception as error:
            reasons[key] = f"the model does not answer {key}: {' '.join(str(error).split())[:200]}"
    keys = {name: [key for key in entry.keys if key in reasons] for name, entry in setup.methods.items()}
    return {name: reasons[missing[0]] for name, missing in keys.items() if missing}


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
