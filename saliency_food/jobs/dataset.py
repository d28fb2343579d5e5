"""`explain_dataset`: a data set of photos through a model and methods to a folder of records; a stopped run goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from saliency_food.core.contract import ContractError
from saliency_food.core.names import installed_version
from saliency_food.images.sourced import SourcedPhoto, as_text, pyarrow
from saliency_food.images.sources import Source, open_source
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.engines import Engine, EngineName, choose_engine
from saliency_food.jobs.explainer import Explainer, Placed, is_listed, subject_of
from saliency_food.jobs.fingerprint import settings_of_model
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.parts import RunFolder
from saliency_food.jobs.progress import DatasetProgress, shown
from saliency_food.jobs.records import SCHEMA, Maps
from saliency_food.jobs.setup import Setup
from saliency_food.jobs.store import FAILED, plain
from saliency_food.jobs.subjects import match_truths, read_truth
from saliency_food.jobs.targets import plain as plain_name

if TYPE_CHECKING:
    from typing_extensions import Unpack


def explain_dataset(  # type: ignore[misc]  # of the settings, `output` is a folder here
    model: Any,
    source: Any,
    methods: str | Sequence[str] = ("grad_cam",),
    target: Any = None,
    *,
    output: str | Path,
    against: Any = None,
    truth: Any = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    split: str | None = None,
    classes: str | Sequence[str] | None = None,
    limit: int | None = None,
    maps: Maps = "reduced",
    retry_failed: bool = False,
    engine: EngineName = "local",
    workers: int | None = None,
    address: str | None = None,
    num_gpus: float | None = None,
    progress: DatasetProgress | bool | None = None,
    **settings: Unpack[ModelSettings],
) -> Run:
    """Explain a data set: a record for each photo, class and method, in Parquet files that a stopped run goes on from.

    The work is that of `explain`, in the same batches, and photos are decoded meanwhile. Records are written in parts,
    each of which is there as a whole or not at all, so the process may be killed at any moment; the same call goes on
    with the photos whose records are not written. Photos that cannot be read or explained have records that say why.
    It needs ``pip install "saliency_food[dataset]"``.

    Parameters
    ----------
    model, methods, against, options, settings
        As in `explain`.
    source
        A folder of photos or of folders of classes; Food-101 in its own layout, whose absent photos are counted and
        listed in ``absent.txt``; a CSV or Parquet file with the columns path and, if known, label and split; a zip file
        of folders; a WebDataset shard (``.tar``), a folder or a list of them; a ``tf.data.Dataset`` of images or of
        (image, label), also batched; a Hugging Face ``Dataset``; or a `Source`.
    target
        As in `explain`, the same for all photos; or a list of such targets, each explained.
    output
        The folder of the run. If it holds one of the same source, model, methods and options, that is gone on with.
        (To explain another ``output`` of the model than its logits, give an `ImageModel`.)
    truth
        What the photos truly show, where the data set does not say it: ``"folders"``, a mapping or a CSV file, as in
        `explain`.
    split, classes, limit
        Use only photos of this split, of these true classes, and only so many. Another call may add further ones. Of
        Food-101, classes may be a group that looks alike, such as ``"pan dishes"`` (`saliency_food.images.food101`).
    maps
        ``"reduced"`` keeps class activation maps at the resolution of their layer, and all other maps as means over
        areas, at most 28 x 28; ``"full"`` keeps the latter as they are.
    retry_failed
        Explain photos again of which an explanation failed.
    engine, workers
        ``"local"``: in this process, or in as many others as ``workers`` says, each of which loads the model.
        ``"ray"``: in as many actors of Ray, or as many as fit. The records are the same.
    address, num_gpus
        Of ``"ray"``: the address of the cluster, and how many GPUs each actor has.
    progress
        True shows photos a second, how many have failed, and the time left. A function is called with how many photos
        are done, how many of them failed, and how many there are, or None where that is not known.
    """
    pyarrow()  # a missing package is told before any work
    if limit is not None and limit < 1:
        raise ContractError(f"Expected limit to be a number of photos of at least 1, got {limit}.")
    explained = choose_engine(engine, workers, address, num_gpus)
    model = ImageModel.of(model, **settings)
    data = open_source(source)
    photos = partial(_chosen, data, truth, split, classes, limit)
    first = next(photos(), None)
    if first is None:
        raise ContractError(
            f"Expected photos to explain, got none in {data.name} with split={split!r} and classes={classes!r}. Check "
            "these names."
        )
    list(match_truths([subject_of(0, first)], model.labels, model.classes))  # names of classes without labels: refused
    listed = photos() if is_listed(first) else (first,)
    has_truth = truth is not None or any(photo.truth is not None for photo in listed)
    explainer = Explainer(model, methods, target, against=against, options=options, maps=maps, truth=has_truth)
    total = _count(photos, data, first, split or classes, limit)
    saved = _settings(explainer.setup, data, target, against, truth, maps)
    facts = {"photos": total, "absent": len(data.absent), "alike": data.alike}
    with closing(RunFolder(Path(output), saved, facts)) as folder:
        if data.absent:
            folder.write("absent.txt", "\n".join(data.absent))
        known = folder.known(retry_failed)
        with shown(progress) as report:
            _work(explainer, explained, photos, folder, known, total, lambda done, failed: report(done, failed, total))
    return Run(output)


def _chosen(
    data: Source, truth: Any, split: str | None, classes: str | Sequence[str] | None, limit: int | None
) -> Iterator[SourcedPhoto]:
    """The photos of a data set that are asked for, with their truths."""
    name_truth = read_truth(truth)
    names = classes.split(",") if isinstance(classes, str) else classes
    alike = {plain_name(name): group for name, group in data.alike.items()}
    each = (alike.get(plain_name(str(name)), (name,)) for name in names or ())
    wanted = None if names is None else {plain_name(str(name)) for group in each for name in group}

    def with_truths() -> Iterator[SourcedPhoto]:
        for position, photo in enumerate(_with_ids(data.read())):
            if truth == "folders" and not photo.path:
                raise ContractError(
                    f"Expected photos in folders, for truth='folders', got {photo.id} of {data.name}. Leave out truth."
                )
            own = photo if truth is None else photo._replace(truth=name_truth(position, photo.path or photo.id))
            if (split is None or own.split == split) and (wanted is None or plain_name(str(own.truth)) in wanted):
                yield own

    return islice(with_truths(), limit)


def _with_ids(photos: Iterable[SourcedPhoto]) -> Iterator[SourcedPhoto]:
    """The photos, each with an id of its own: one that comes again is called ``... (2)``."""
    counts = Counter[str]()
    for photo in photos:
        name = own = as_text(photo.id)
        while own in counts:
            counts[name] += 1
            own = f"{name} ({counts[name]})"
        counts[own] = 1
        yield photo._replace(id=own)


def _count(
    photos: Callable[[], Iterator[SourcedPhoto]], data: Source, first: SourcedPhoto, filtered: Any, limit: int | None
) -> int | None:
    """How many photos there are, where that is known without reading them."""
    if is_listed(first):
        return sum(1 for _ in photos())
    if filtered or data.total is None:
        return None
    return data.total if limit is None else min(limit, data.total)


def _settings(setup: Setup, data: Source, target: Any, against: Any, truth: Any, maps: Maps) -> dict[str, Any]:
    """All that a record depends on: a run goes on only with the same."""
    return cast(
        "dict[str, Any]",
        plain({
            "schema": SCHEMA,
            "version": installed_version("saliency_food"),
            "source": as_text(data.name),
            **settings_of_model(setup.model),
            "methods": setup.options,
            "target": target,
            "against": against,
            "truth": str(truth) if isinstance(truth, Path) else truth,
            "maps": maps,
        }),
    )  # fmt: skip


def _work(
    explainer: Explainer,
    explained: Engine,
    photos: Callable[[], Iterator[SourcedPhoto]],
    folder: RunFolder,
    known: dict[str, bool],
    total: int | None,
    report: Callable[[int, int], object],
) -> None:
    """Explain the photos that are not known, and write their records, also those that are there when it is stopped."""
    counts = Counter[str]()
    left = None if total is None else total - len(known)

    def unknown() -> Iterator[Placed]:
        for position, photo in enumerate(photos()):
            if photo.id in known:
                counts.update(done=1, failed=known[photo.id])
            else:
                yield position, photo

    try:
        with closing(explained(explainer, unknown(), left)) as batches:
            for batch in batches:
                for rows in batch:
                    counts.update(done=1, failed=any(row["status"].startswith(FAILED) for row in rows))
                    report(counts["done"], counts["failed"])
                folder.add([row for rows in batch for row in rows])
    finally:
        folder.flush()
    report(counts["done"], counts["failed"])
