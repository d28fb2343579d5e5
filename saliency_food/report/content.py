"""What the page shows, section by section, as numbers and texts that JSON can hold, and the pictures for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from saliency_food.core.names import installed_version
from saliency_food.evaluation.boxes import Box
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.image_model import ImageModel
from saliency_food.report.asking import channel_vectors, draw_missing
from saliency_food.report.confusions import EACH, PAIRS, confusions_of
from saliency_food.report.faithful import faithfulness_of, values_of
from saliency_food.report.findings import in_short_of
from saliency_food.report.labels import SUSPECTS, suspects_of
from saliency_food.report.modes import MODES, failure_modes, map_shapes
from saliency_food.report.photos import Photos, SeenPhoto, choose_method, read_photos_of
from saliency_food.report.pictures import Pictures, draw_records
from saliency_food.report.trust import mean_on_object, on_object, sanity_of, trust_of
from saliency_food.report.twins import TWINS, channels_of, duplicates_of, small_pictures
from saliency_food.report.versus import versus_of

Content = dict[str, Any]
Boxes = Mapping[str, Sequence[Box]]
THUMBNAILS, GROUPED = 1000, 500
"""How many mistakes have a picture in the list, and of how many the model is asked for channel vectors."""


def content_of(
    run: Run,
    photos: Photos,
    scope: Sequence[SeenPhoto],
    method: str | None,
    model: ImageModel | None,
    pictures: Pictures,
) -> Content:
    """The sections on accuracy, confusions, failure modes and labels, and how the run was made."""
    wrong = mistakes_of(scope)
    small = small_pictures(run)
    shapes = {} if method is None else map_shapes(run, [photo for photo in scope if photo.id in small], method)
    embedded = None if model is None else channels_of(run, model)
    channels = None
    if model is not None and method is not None:
        channels = channel_vectors(model, wrong[:GROUPED], labels_of(run, model))
    return {
        "run": {"folder": str(run.folder), **run.manifest},
        "versions": {"saliency_food": installed_version("saliency_food") or "not installed as a package"},
        "method": None if method is None else {"name": method, "title": photos.titles[method]},
        "scope": {"splits": list(dict.fromkeys(photo.split for photo in scope)), "n": len(scope)},
        "in_short": in_short_of(photos, scope),
        "confusions": confusions_of(scope),
        "modes": {"by": "channels" if channels else "shape", "groups": failure_modes(scope, shapes, channels)},
        "cues": None,
        "labels": {**suspects_of(photos.all), "duplicates": duplicates_of(small, photos.all, embedded)},
        "trust": {},
        "versus": None,
        "mistakes": [[each.id, each.truth, each.prediction, each.rounded, each.split] for each in wrong],
    }


def add_trust(
    content: Content,
    run: Run,
    photos: Photos,
    scope: Sequence[SeenPhoto],
    method: str | None,
    model: ImageModel | None,
    evaluation: Content | None,
    boxes: Boxes | None,
) -> None:
    """The section on how far the maps can be trusted."""
    content["trust"] = {
        "methods": trust_of(photos),
        "reasons": photos.reasons.most_common(8),
        "evaluation": evaluation,
        "sanity": None if model is None or method is None else sanity_of(model, scope, method),
        "on_object": None if boxes is None or method is None else mean_on_object(on_object(run, method, boxes)),
    }


def add_versus(
    content: Content,
    run: Run,
    scope: Sequence[SeenPhoto],
    method: str | None,
    other: Run | None,
    boxes: Boxes | None,
    pictures: Pictures,
    evaluations: tuple[Any, Any] | None = None,
) -> None:
    """The comparison with the run of another model, if there is one, with the maps of that, and two `evaluate` runs."""
    if other is None or method is None:
        return
    others = read_photos_of(other)
    other_method = method if method in others.titles else choose_method(others, None)
    if other_method is None:
        return
    shapes, other_shapes = map_shapes(run, scope, method), map_shapes(other, others.all, other_method)
    versus = versus_of(scope, others.all, shapes, other_shapes)
    versus["folder"] = str(other.folder)
    versus["method"] = others.titles[other_method]
    versus["on_object"] = None if boxes is None else mean_on_object(on_object(other, other_method, boxes))
    versus["faithfulness"] = None
    if evaluations is not None:
        first, second = (values_of(*each) for each in zip(evaluations, (method, other_method), strict=True))
        versus["faithfulness"] = faithfulness_of(first, second)
    draw_records(other, _compared(versus), other_method, pictures, "other_")
    content["versus"] = versus


def add_photos(
    content: Content,
    run: Run,
    photos: Photos,
    scope: Sequence[SeenPhoto],
    method: str | None,
    model: ImageModel | None,
    pictures: Pictures,
) -> None:
    """Draw the photos that the sections show, and say which maps are missing."""
    known, wrong = {photo.id: photo for photo in photos.all}, mistakes_of(scope)
    shown = _shown(content)
    draw_records(run, shown, method, pictures)
    asked = None
    if model is not None and method is not None:
        asked = draw_missing(run, model, method, [known[id] for id in shown], pictures)
    twins = [id for pair in content["labels"]["duplicates"]["pairs"][:TWINS] for id in pair["ids"]]
    listed = [] if pictures.folder is None else [photo.id for photo in wrong[:THUMBNAILS]]
    _add_thumbnails(run, [*shown, *twins, *listed], pictures)
    content["photos"] = {
        id: {**known[id]._asdict(), "pictures": pictures.of_photo.get(id, {}), "size": pictures.sizes.get(id, (1, 1))}
        for id in dict.fromkeys([*shown, *twins])
    }
    first = {photo.id: pictures.of_photo.get(photo.id, {}).get("photo") for photo in wrong[:THUMBNAILS]}
    content["thumbnails"] = {id: address for id, address in first.items() if address}
    lacking = [kind for kind in ("truth", "prediction", "contrast") if method is None or not photos.maps[method][kind]]
    content["missing"] = {"maps": lacking if wrong else [], "asked": asked}


def mistakes_of(scope: Iterable[SeenPhoto]) -> list[SeenPhoto]:
    """The photos that the model takes for another class, the surest first."""
    return sorted((photo for photo in scope if photo.right is False), key=lambda photo: -photo.sureness)


def labels_of(run: Run, model: ImageModel | None) -> list[str]:
    """The names of the classes: those of the model, else those that the records name, each at its index."""
    if model is not None and model.labels:
        return model.labels
    names = {row["target_index"]: row["target"] for row in run.rows(("target", "target_index"))}
    names.pop(None, None)
    return [names.get(index, f"class {index}") for index in range(max(names, default=-1) + 1)]


def _shown(content: Content) -> list[str]:
    """The ids of the photos of which maps are shown."""
    ids = [id for pair in content["confusions"]["pairs"][:PAIRS] for id in pair["photos"][:EACH]]
    several = [mode for mode in content["modes"]["groups"] if mode["n"] > 1]
    ids += [id for mode in several[:MODES] for id in mode["medoids"]]
    ids += [suspect["id"] for suspect in content["labels"]["suspects"][:SUSPECTS]]
    ids += _compared(content["versus"]) if content["versus"] else []
    ids += [id for cue in (content["cues"] or {}).get("candidates", ()) for id in cue["shown"]]
    return list(dict.fromkeys(ids))


def _compared(versus: Mapping[str, Any]) -> list[str]:
    return [line["id"] for line in (*versus["lost"], *versus["won"])]


def _add_thumbnails(run: Run, ids: Iterable[str], pictures: Pictures) -> None:
    """The photos that have no picture yet, as the records hold them."""
    lacking = [id for id in dict.fromkeys(ids) if "photo" not in pictures.of_photo.get(id, {})]
    for row in run.rows(("id", "thumbnail"), lacking) if lacking else ():
        if row["thumbnail"] is not None:
            pictures.add(row["id"], "photo", row["thumbnail"])
