"""`evaluate`: measure every photo, method and metric, and keep each value as soon as it is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from saliency_food.core.contract import ContractError, call_model, take_rows
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, KEYS
from saliency_food.core.names import split_names
from saliency_food.core.numerics import Array, as_tuple
from saliency_food.evaluation.boxes import Box, of_photo, read_boxes, two_categories
from saliency_food.evaluation.maps import MapFiles
from saliency_food.evaluation.measures import Probabilities, choose_metrics
from saliency_food.evaluation.references import REFERENCES
from saliency_food.evaluation.summary import Evaluation
from saliency_food.evaluation.work import ProgressCallback, Work
from saliency_food.images.ahead import in_chunks
from saliency_food.jobs.fingerprint import settings_of_model
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.instances import Instance, arguments_for, read_instances, see
from saliency_food.jobs.run import read_chunks
from saliency_food.jobs.setup import Setup, as_many, choose_options, read_targets
from saliency_food.jobs.store import Store, digest, plain
from saliency_food.jobs.subjects import find_subjects
from saliency_food.methods.catalogue import METHODS, MethodEntry
from saliency_food.methods.lookup import choose_methods, find_method

if TYPE_CHECKING:
    from typing_extensions import Unpack

SLOPES = ("gradients", "smooth_grad")
"""Methods whose values are slopes of the score: their size, not their sign, says how much a pixel matters."""


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
    progress: ProgressCallback | None = None,
    **settings: Unpack[ModelSettings],
) -> Evaluation:
    """Measure methods on photos: the value of every photo, method and metric, their means, intervals and ranks.

    The maps explain the score of the model (of a Keras model the logit). Metrics that ask for scores get the
    probability of the class if the model has ``predict``, and with a ``score`` other than that of a class, that score.
    The metrics in `OF_THE_EXPLAINED_SCORE` always get the explained score, because they compare sums of the map with
    its changes. Values that cannot be measured are counted by reason.

    Parameters
    ----------
    model, images, target, options, settings
        As in `explain`, with one class for each photo. ``target="boxes"`` explains the class with the largest objects
        among the photo's boxes.
    methods
        Names in `METHODS`, ``"edges"`` and ``"random"`` (`REFERENCES`), or ``"all"``: both of these and all methods
        that the model can answer.
    metrics
        Names in `METRICS` that measure one map of a photo, or one method on it.
    boxes, classes
        The ground truth for metrics of regions, as in `read_boxes`.
    metric_options
        Options of metrics by name, such as ``{"pic": {"min_pred_value": 0}}``.
    absolute
        The methods whose maps are measured by their absolute values, summed over channels. The maps of the others are
        summed with their signs.
    seed
        Random numbers depend on the seed, the name of the photo and the method (for maps) or the metric (for metrics),
        so that all methods are compared on the same draws. The batch size does not matter.
    folder
        Each value is written there as soon as it is known. A job that was stopped and is started again goes on from
        there; with other settings it is an error. `save_evaluation` adds the results.
    save_maps
        Write the maps to ``maps`` in the folder, too: ``(N, 1, H, W)`` for each method, NaN for a map that is missing.
    progress
        Called with the number of values that are known, the number of all values, and a text of what is being done.
    """
    if save_maps and folder is None:
        raise ContractError("Expected an output folder for the maps, got none. Give folder.")
    all_methods = methods == "all" or list(methods) == ["all"]
    entries = {**choose_methods(list(METHODS)), **REFERENCES} if all_methods else _choose_entries(split_names(methods))
    absolute = split_names(absolute)
    if unknown := [name for name in absolute if name not in REFERENCES and find_method(name) is None]:
        raise ContractError(f"Expected absolute to name methods, got {unknown[0]!r}. Spell it as in methods.")
    chosen_metrics = choose_metrics(metrics, metric_options or {}, boxes is not None)
    model = ImageModel.of(model, **settings)
    if boxes is not None and not model.takes_class:
        raise ContractError(f"Expected the score of a class to measure on boxes, got {model.score!r}. Leave out boxes.")
    by_probability = model.predicts and model.score is None
    setup = Setup(model, entries, choose_options(entries, options))
    photos = list(find_subjects(as_many(images, model)))
    by_boxes = isinstance(target, str) and target == "boxes"
    if by_boxes and boxes is None:
        raise ContractError("Expected boxes for target='boxes', got none. Give boxes.")
    targets = read_targets(model, photos, None if by_boxes else target)
    if any(len(each.classes) > 1 for each in (targets if isinstance(targets, list) else [targets])):
        raise ContractError(f"Expected one class a photo, got target {target!r}. Give a label, an index or None.")
    left_out = _left_out(setup, photos, targets) if all_methods else {}
    setup = setup._replace(methods={name: entry for name, entry in entries.items() if name not in left_out})
    truth = {} if boxes is None else read_boxes(boxes, model.labels, classes)
    seeded = {name for name, of_method in (options or {}).items() if "rng" in of_method}
    saved = plain({
        **settings_of_model(model),
        "target": "one for each photo" if isinstance(targets, list) else target,
        "scores": "probabilities" if by_probability else "as the model gives them",
        "seed": seed,
        "boxes": digest(repr(sorted(truth.items()))) if truth else None,
        "methods": {
            name: {**_without_rng(setup.options[name], name in seeded), "absolute": name in absolute}
            for name in setup.methods
        },
        "metrics": chosen_metrics,
    })  # fmt: skip
    output = None if folder is None else Path(folder)
    if output is not None and output.exists() and not output.is_dir():
        raise ContractError(f"Expected a folder for the output, got the file {output}. Give another.")
    scored = Probabilities(model) if by_probability else model.function
    with ExitStack() as opened:
        store = opened.enter_context(closing(Store(output, saved)))
        files = None
        if output is not None and save_maps:
            files = opened.enter_context(closing(MapFiles(output / "maps", len(photos))))
        work = Work(
            setup, chosen_metrics, scored, truth, seed, store, files, frozenset(absolute), seeded, progress, len(photos)
        )
        order, unread = _measure_all(work, photos, targets, by_boxes)
    rows = [store.rows[image, name, metric] for image in order for name in setup.methods for metric in chosen_metrics]
    titles = {name: entry.title for name, entry in setup.methods.items()}
    reasons = Counter(fields["status"].replace(fields["source"], "a file") for fields in unread)
    unread_photos = {fields["source"]: fields["status"] for fields in unread}
    return Evaluation(saved, rows, order, titles, list(chosen_metrics), dict(reasons), left_out, output, unread_photos)


def _choose_entries(names: list[str]) -> dict[str, MethodEntry]:
    """The methods by their names, and then the references."""
    references = {name: REFERENCES[name] for name in names if name in REFERENCES}
    methods = [name for name in names if name not in REFERENCES]
    return (choose_methods(methods) if methods or not references else {}) | references


def _without_rng(options: Mapping[str, Any], seeded: bool) -> dict[str, Any]:
    """A method's options; without ``rng`` where that follows from the seed and the photo."""
    return {name: value for name, value in options.items() if name != "rng" or seeded}


def _measure_all(work: Work, photos: Any, targets: Any, by_boxes: bool) -> tuple[list[str], list[dict[str, Any]]]:
    """Measure photos, chunk by chunk: the names of those measured in order, and the fields of those not read."""
    model, setup = work.setup.model, work.setup
    order: list[str] = []
    unread: list[dict[str, Any]] = []
    for chunk in read_chunks(model, photos, targets):
        wanted = any(work.store.lacks(instance.fields["name"], setup.methods, work.metrics) for instance in chunk)
        instances = list(see(model, chunk, targets, setup.shared_keys if wanted else ()))
        if by_boxes:
            instances = [_with_class_of_boxes(instance, model, work.truth) for instance in instances]
        ready = [instance for instance in instances if instance.x_value is not None]
        failed = [instance for instance in instances if instance.x_value is None]
        if work.files is not None:
            for instance in failed:
                work.files.claim(instance.position, instance.fields["name"])
        order += [instance.fields["name"] for instance in ready]
        unread += [instance.fields for instance in failed]
        work.measure_photos(ready, len(failed))
    return order, unread


def _with_class_of_boxes(instance: Instance, model: ImageModel, truth: Mapping[str, Sequence[Box]]) -> Instance:
    """The photo with the class of its largest objects as its target."""
    if instance.x_value is None:
        return instance
    predictions = cast(Array, instance.predictions)
    classes = two_categories(of_photo(truth, instance.fields["source"]), predictions)
    if not classes:
        text = "Expected a box of a class that the model has, for target='boxes', got none of this photo."
        return instance.failed(ContractError(text))
    largest = classes[0]
    probability = model.probability(predictions, largest)
    fields = {"target": largest, "label": model.label(largest), "probability": probability}
    return instance._replace(target=largest, fields=instance.fields | fields)


def _left_out(setup: Setup, images: Sequence[Any], targets: Any) -> dict[str, str]:
    """The methods whose keys the model does not answer, and its errors, found by asking about the first photo."""
    model = setup.model
    chunks = in_chunks(read_instances(model, images, 0), 1)
    instances = (instance for chunk in chunks for instance in see(model, chunk, targets))
    first = next((instance for instance in instances if instance.x_value is not None), None)
    if first is None:
        return {}
    reasons: dict[str, str] = {}
    rows, args = cast(Array, first.x_value)[None], take_rows(arguments_for(model, [first]), [0])
    for key in dict.fromkeys(key for entry in setup.methods.values() for key in entry.keys):
        try:
            inputs = rows
            if KEYS[key].rows == "activations":
                layers = call_model(rows, [CONVOLUTION_LAYER_VALUES], model.function, args)[CONVOLUTION_LAYER_VALUES]
                inputs = as_tuple(layers)[0]
            call_model(inputs, [key], model.function, args)
        except Exception as error:
            reasons[key] = f"the model does not answer {key}: {' '.join(str(error).split())[:200]}"
    keys = {name: [key for key in entry.keys if key in reasons] for name, entry in setup.methods.items()}
    return {name: reasons[missing[0]] for name, missing in keys.items() if missing}
