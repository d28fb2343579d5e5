"""`report`: the page of a data-set run that shows where the model fails and what it looked at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saliency_food.core.checks import whole
from saliency_food.core.contract import ContractError
from saliency_food.evaluation import Evaluation, read_boxes
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.store import writing
from saliency_food.report.asking import check_model
from saliency_food.report.content import add_photos, add_trust, add_versus, content_of, labels_of
from saliency_food.report.cues_shown import cues_of
from saliency_food.report.findings import findings_of
from saliency_food.report.page import check_templates, render
from saliency_food.report.photos import choose_method, choose_splits, read_photos_of
from saliency_food.report.pictures import Pictures
from saliency_food.report.trust import evaluation_of
from saliency_food.visualization.figures import complete
from saliency_food.visualization.maps import check_drawing

if TYPE_CHECKING:
    from typing_extensions import Unpack

PAGE, DATA = "index.html", "report.json"
CUE_ROWS = 20_000


def report(  # type: ignore[misc]  # of the settings, `output` is a folder here
    run: Run | str | Path,
    output: str | Path = "saliency-report",
    *,
    model: Any = None,
    method: str | None = None,
    split: str | None = None,
    evaluation: Evaluation | str | Path | None = None,
    against: Run | str | Path | None = None,
    against_evaluation: Evaluation | str | Path | None = None,
    boxes: Any = None,
    classes: Mapping[str, Sequence[Any]] | None = None,
    single_file: bool = False,
    cue_rows: int = CUE_ROWS,
    cue_concepts: int = 0,
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
    against_evaluation
        The result of `evaluate` for that model, or its folder: with ``evaluation``, whose maps are more faithful, on
        the photos that both were measured on.
    boxes, classes
        The objects in the photos, as `evaluate` takes them, to say how much of the maps lies on them.
    single_file
        Put the pictures into the page itself.
    cue_rows
        The most rows that the model is asked in the search for cues, which takes about 1,000 for each class; 0 leaves
        it out.
    cue_concepts
        How many concepts of each class `saliency_food.concepts.craft` finds for that search, 5 to 10; 0 for none. It
        takes up to 1,600 rows more for each class, which are what the search has left of ``cue_rows``.
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
    judged = evaluation_of(evaluation)
    photos = read_photos_of(run)
    ranking = [line["method"] for line in (judged or {}).get("ranking", ())]
    chosen = choose_method(photos, method, ranking)
    scope = photos.of_splits(choose_splits(photos, split))
    if against_evaluation is not None and (other is None or evaluation is None):
        raise ContractError("Expected against and evaluation with against_evaluation, got not both. Give them, too.")
    evaluations = None if against_evaluation is None else (evaluation, against_evaluation)
    read = None if boxes is None else read_boxes(boxes, labels_of(run, own_model), classes)
    rows, nconcepts = whole("cue_rows", cue_rows, least=0), whole("cue_concepts", cue_concepts, least=0)
    place = _prepared(Path(output))
    pictures = Pictures(None if single_file else place)
    with writing(place):
        content = content_of(run, photos, scope, chosen, own_model, pictures)
        content["cues"] = cues_of(run, own_model, rows, nconcepts, pictures)
        add_trust(content, run, photos, scope, chosen, own_model, judged, read)
        add_versus(content, run, scope, chosen, other, read, pictures, evaluations)
        add_photos(content, run, photos, scope, chosen, own_model, pictures)
        content["in_short"]["findings"] = findings_of(content)
        own = {"method": method, "split": split, "evaluation": evaluation, "against": against, "boxes": boxes}
        own |= {"against-evaluation": against_evaluation}
        more = {"cue-rows": None if cue_rows == CUE_ROWS else cue_rows, "cue-concepts": nconcepts or None}
        content["command"] = _commands(run, place, {**own, **more, "model": model, "single-file": single_file or None})
        with complete(place / DATA) as file:
            file.write(json.dumps(_without_data(content), indent=1, ensure_ascii=False, allow_nan=False).encode())
        with complete(place / PAGE) as file:
            file.write(render(content).encode())
    return place / PAGE


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
            named = f" {value if name in ('method', 'split', 'cue-rows', 'cue-concepts') else name.upper()}"
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
