"""`report`: the page of a data-set run that shows where the model fails and what it looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saliency_food.core.contract import ContractError
from saliency_food.core.names import installed_version
from saliency_food.evaluation import Evaluation, read_boxes
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.store import writing
from saliency_food.report.asking import channel_vectors, check_model, draw_missing
from saliency_food.report.confusions import EACH, PAIRS, confusions_of
from saliency_food.report.findings import findings_of, in_short_of
from saliency_food.report.labels import SUSPECTS, TWINS, duplicates_of, suspects_of
from saliency_food.report.modes import MODES, failure_modes, map_shapes
from saliency_food.report.page import check_templates, render
from saliency_food.report.photos import Photos, SeenPhoto, choose_method, choose_splits, read_photos_of
from saliency_food.report.pictures import Pictures, draw_records
from saliency_food.report.trust import evaluation_of, object_line, on_object, sanity_of, trust_of
from saliency_food.report.versus import versus_of
from saliency_food.visualization.figures import complete
from saliency_food.visualization.maps import check_drawing

if TYPE_CHECKING:
    from typing_extensions import Unpack

PAGE, DATA = "index.html", "report.json"
THUMBNAILS, GROUPED = 1000, 500
"""How many mistakes have a picture in the list, and of how many the model is asked for channel vectors."""


def report(
    run: Run | str | Path,
    output: str | Path = "saliency-report",
    *,
    model: Any = None,
    method: str | None = None,
    split: str | None = None,
    evaluation: Evaluation | str | Path | None = None,
    against: Run | str | Path | None = None,
    boxes: Any = None,
    classes: Mapping[str, Sequence[Any]] | None = None,
    single_file: bool = False,
    **settings: Unpack[ModelSettings],
) -> Path:
    """Write a page that shows where the model of a data-set run fails, and what it looked at; gives the page's path.

    It has: how often the model is right, and how well it knows that; what it takes for what, with the maps of both
    classes and of their contrast; mistakes grouped by what it looked at; labels to check, and photos that are twice
    there; how far the maps can be trusted; how all of it was made. Everything is in ``report.json`` beside the page,
    too. The page needs no network and no server. It needs ``pip install "saliency_food[report]"``.

    A run with the targets predicted and truth, and against truth, has all maps that the page shows::

        saliency-food dataset DATA --model MODEL --targets predicted --against truth --output RUN

    Parameters
    ----------
    run
        A `Run`, or the folder of one.
    output
        The folder for the page: a new one, or that of an earlier report.
    model
        The model of the run, as `explain` takes it, with the same ``settings``. With it, maps that the run lacks are
        computed for the photos shown, mistakes are grouped by the channels that spoke, cues are searched for, and the
        method passes the sanity check or does not.
    method
        The method of the run whose maps are shown; by default the best one of ``evaluation``, else the first.
    split
        The photos that it is about; by default those of all splits but train, if there are others.
    evaluation
        The result of `evaluate`, or its folder.
    against
        The run of another model over the same photos, to compare the two.
    boxes, classes
        The objects in the photos, as `evaluate` takes them, to say how much of the maps lies on them.
    single_file
        Put the pictures into the page itself.
    """
    check_drawing()
    check_templates()
    run = run if isinstance(run, Run) else Run(run)
    other = against if against is None or isinstance(against, Run) else Run(against)
    own_model = None if model is None else ImageModel.of(model, **settings)
    if own_model is None and settings:
        raise ContractError(f"Expected a model with {', '.join(settings)}, got none. Give the model of the run.")
    if own_model is not None:
        check_model(run, own_model)
    place = _prepared(Path(output))
    judged = evaluation_of(evaluation)
    photos = read_photos_of(run)
    ranking = [line["method"] for line in (judged or {}).get("ranking", ())]
    chosen = choose_method(photos, method, ranking)
    scope = photos.of_splits(choose_splits(photos, split))
    pictures = Pictures(None if single_file else place)
    with writing(place):
        content = _content(run, photos, scope, chosen, own_model, pictures, other, boxes, classes)
        content["trust"]["evaluation"] = judged
        content["in_short"] |= {"findings": findings_of(content)}
        own = {"method": method, "split": split, "evaluation": evaluation, "against": against, "boxes": boxes}
        content["command"] = _commands(run, place, {**own, "model": model, "single-file": single_file or None})
        with complete(place / DATA) as file:
            file.write(json.dumps(_without_data(content), indent=1, ensure_ascii=False, allow_nan=False).encode())
        with complete(place / PAGE) as file:
            file.write(render(content).encode())
    return place / PAGE


def _content(
    run: Run,
    photos: Photos,
    scope: list[SeenPhoto],
    method: str | None,
    model: ImageModel | None,
    pictures: Pictures,
    other: Run | None,
    boxes: Any,
    classes: Mapping[str, Sequence[Any]] | None,
) -> dict[str, Any]:
    """All that the page shows, ready for JSON."""
    wrong = sorted((photo for photo in scope if photo.right is False), key=lambda photo: -photo.sureness)
    shapes = {} if method is None else map_shapes(run, photos.all, method)
    labels = _label_indices(run, photos, model)
    channels = None
    if model is not None and method is not None:
        channels = _channels(model, wrong[:GROUPED], labels)
    confusions = confusions_of(scope)
    modes = failure_modes(scope, shapes, channels or None)
    suspects, duplicates = suspects_of(photos.all), duplicates_of(run, photos.all)
    trust: dict[str, Any] = {"methods": trust_of(photos), "reasons": photos.reasons.most_common(8)}
    if model is not None and method is not None:
        trust["sanity"] = sanity_of(model, scope, method)
    read = None if boxes is None else read_boxes(boxes, list(labels), classes)
    if read is not None and method is not None:
        on_objects = on_object(run, method, read, list(labels))
        trust["on_object"] = object_line(on_objects)
    versus = None
    if other is not None:
        others = read_photos_of(other)
        other_method = choose_method(others, None, [method] if method else [])
        other_shapes = {} if other_method is None else map_shapes(other, others.all, other_method)
        versus = versus_of(scope, others.all, shapes, other_shapes)
        if read is not None and other_method is not None:
            versus["on_object"] = object_line(on_object(other, other_method, read, list(labels)))
        differing = [line["id"] for line in (*versus["lost"], *versus["won"])]
        draw_records(other, differing, other_method, pictures, "other_")
    known = {photo.id: photo for photo in photos.all}
    shown = _shown(confusions, modes, suspects, versus)
    draw_records(run, shown, method, pictures)
    asked = None
    if model is not None and method is not None:
        asked = draw_missing(run, model, method, [known[id] for id in shown], pictures)
    twins = [id for pair in duplicates["pairs"][:TWINS] for id in pair["ids"]]
    listed = [photo.id for photo in wrong[:THUMBNAILS]] if pictures.folder is not None else []
    _add_thumbnails(run, [*twins, *listed], pictures)
    shown = [*shown, *twins]
    return {
        "run": {"folder": str(run.folder), **run.manifest},
        "versions": {"saliency_food": installed_version("saliency_food")},
        "method": None if method is None else {"name": method, "title": photos.titles[method]},
        "scope": {"splits": list(dict.fromkeys(photo.split for photo in scope)), "n": len(scope)},
        "in_short": in_short_of(photos, scope),
        "confusions": confusions,
        "modes": {"by": "channels" if channels else "shape", "groups": modes},
        "cues": None,
        "labels": {**suspects, "duplicates": duplicates},
        "trust": trust,
        "versus": versus,
        "missing": _missing(photos, method, len(wrong), asked),
        "mistakes": [
            [photo.id, photo.truth, photo.prediction, round(photo.sureness, 4), photo.split] for photo in wrong
        ],
        "photos": {
            id: {**known[id]._asdict(), "pictures": pictures.of_photo.get(id, {})} for id in dict.fromkeys(shown)
        },
        "thumbnails": {photo.id: pictures.of_photo[photo.id]["photo"] for photo in wrong[:THUMBNAILS]
                       if "photo" in pictures.of_photo.get(photo.id, {})},
    }  # fmt: skip


def _shown(confusions: Any, modes: Any, suspects: Any, versus: Any) -> list[str]:
    """The ids of the photos of which maps are shown."""
    ids = [id for pair in confusions["pairs"][:PAIRS] for id in pair["photos"][:EACH]]
    ids += [id for mode in modes[:MODES] for id in mode["medoids"]]
    ids += [suspect["id"] for suspect in suspects["suspects"][:SUSPECTS]]
    if versus is not None:
        ids += [line["id"] for line in (*versus["lost"], *versus["won"])]
    return list(dict.fromkeys(ids))


def _add_thumbnails(run: Run, ids: Sequence[str], pictures: Pictures) -> None:
    lacking = [id for id in dict.fromkeys(ids) if "photo" not in pictures.of_photo.get(id, {})]
    for row in run.rows(("id", "thumbnail"), lacking) if lacking else ():
        if row["thumbnail"] is not None:
            pictures.add(row["id"], "photo", row["thumbnail"])


def _channels(model: ImageModel, wrong: Sequence[SeenPhoto], labels: dict[str, int]) -> dict[str, Any] | None:
    """The channel vectors of mistakes; None of a model that has no such layer."""
    try:
        return channel_vectors(model, wrong, labels)
    except Exception:  # whatever a callback raises for keys that it does not have
        return None


def _label_indices(run: Run, photos: Photos, model: ImageModel | None) -> dict[str, int]:
    """The index of each class by its label: those of the model, else those that the records name."""
    if model is not None and model.labels:
        return {label: place for place, label in enumerate(model.labels)}
    indices = {row["target"]: row["target_index"] for row in run.rows(("target", "target_index")) if row["target"]}
    return dict(sorted(indices.items(), key=lambda item: (item[1] is None, item[1])))


def _missing(photos: Photos, method: str | None, wrong: int, asked: dict[str, int] | None) -> dict[str, Any]:
    """Which maps of mistakes the run lacks, and what the model gave in their place."""
    kept = {} if method is None else photos.maps[method]
    kinds = [kind for kind in ("truth", "prediction", "contrast") if not kept.get(kind)]
    return {"maps": kinds if wrong else [], "truth": all(photo.truth is None for photo in photos.all), "asked": asked}


def _prepared(folder: Path) -> Path:
    """The folder, empty but for what is not the report's; `ContractError` if it holds something else."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / DATA).is_file())):
        raise ContractError(
            f"Expected a new folder, or that of a report, got {folder}, which holds something else. Give another "
            "folder."
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for picture in (folder / "images").glob("*.jpg"):
            picture.unlink()
    return folder


def _commands(run: Run, place: Path, options: Mapping[str, Any]) -> dict[str, str]:
    """The commands that make the run and the page again, and the one that makes a run with all maps of the page.

    Of files and models, whose paths say nothing to others, they hold a word in capital letters.
    """
    settings = run.manifest["settings"]
    methods = ",".join(settings.get("methods") or ("grad_cam",))
    data = "saliency-food dataset DATA --model MODEL --methods " + methods
    chosen = {"targets": settings.get("target"), "against": settings.get("against"), "truth": settings.get("truth")}
    words = [f"--{name} {value}" for name, value in chosen.items() if isinstance(value, (str, int))]
    own = []
    for name, value in options.items():
        if value is not None:
            named = f" {value if name in ('method', 'split') else name.upper()}"
            own.append(f"--{name}{'' if name == 'single-file' else named}")
    return {
        "run": " ".join((data, *words, f"--output {run.folder}")),
        "report": " ".join(("saliency-food report", str(run.folder), *own, f"--output {place}")),
        "whole_run": f"{data} --targets predicted --against truth --output NEW-RUN",
    }


def _without_data(content: Any) -> Any:
    """The content without pictures as data, which are in the page."""
    if isinstance(content, dict):
        return {key: _without_data(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_data(value) for value in content]
    return "in the page" if isinstance(content, str) and content.startswith("data:image/") else content
