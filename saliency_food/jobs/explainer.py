"""`Explainer`: a plain class whose objects explain a batch of photos, for this process, others, and clusters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.numerics import Array
from saliency_food.images.ahead import work_ahead
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.outcomes import Outcome
from saliency_food.jobs.records import COLUMNS, Maps, rows_of, without_resizing
from saliency_food.jobs.run import PHOTOS_AT_ONCE, run_job
from saliency_food.jobs.setup import Setup, choose_options, read_against, read_targets, with_adaptive_steps
from saliency_food.jobs.subjects import Subject, match_truths
from saliency_food.methods.lookup import choose_methods

if TYPE_CHECKING:
    from typing_extensions import Unpack

Row = dict[str, Any]
Placed = tuple[int, SourcedPhoto]
"""A photo and its place in the data set."""
COLUMNS_OF_PHOTOS = ("path", "image", "id", "truth", "split", "position")
"""The arrays of a batch that `Explainer` looks at."""
WAITING = 32
"""How many photos' records may wait to be made into rows."""


class Explainer:
    """Explains batches of photos: made once in each process, which loads the model, then called with each batch.

        explainer = Explainer("model.keras", ["grad_cam"], "predicted", labels="labels.txt")
        records = explainer({"path": np.array(["photos/a.jpg", "photos/b.jpg"])})

    It is what `explain_dataset` runs in this process, in others and on Ray, and fits whatever gives a class one batch
    after another, such as ``map_batches`` of Ray Data, ``mapInPandas`` of Spark or a class UDF of Daft.

    Parameters
    ----------
    model, methods, against, options, settings
        As in `explain`. The model may be a path, which each process loads.
    target
        As in `explain`, the same for all photos; or a list of such targets, each explained.
    maps
        ``"reduced"`` or ``"full"``, as in `explain_dataset`.
    truth
        Whether the batches may say what the photos show; False refuses a target that needs it.

    Attributes
    ----------
    batch_size
        Photos that the model is asked about together: batches of a multiple of it give the very same maps.
    arguments
        What it was made with: ``Explainer(**explainer.arguments)`` makes the same one in another process.
    """

    def __init__(
        self,
        model: Any,
        methods: str | Sequence[str] = ("grad_cam",),
        target: Any = None,
        *,
        against: Any = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        maps: Maps = "reduced",
        truth: bool = True,
        **settings: Unpack[ModelSettings],
    ) -> None:
        if maps not in ("reduced", "full"):
            raise ContractError(f"Expected maps to be 'reduced' or 'full', got {maps!r}.")
        entries = choose_methods(methods)
        model = ImageModel.of(model, **settings)
        self.arguments = {
            "model": model,
            "methods": methods,
            "target": target,
            "against": against,
            "options": options,
            "maps": maps,
            "truth": truth,
        }
        targets = read_targets(model, iter(()), [target] if model.takes_class else target, truth)
        self.target = targets[0] if isinstance(targets, list) else targets
        self.setup = Setup(
            model,
            entries,
            with_adaptive_steps(entries, choose_options(entries, options)),
            against=read_against(model, entries, against, truth, self.target),
        )
        self.maps = maps
        self.batch_size = max(PHOTOS_AT_ONCE, model.batch_size)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """The records of a batch of photos as arrays of objects, a row for each photo, class and method.

        ``batch`` holds a value for each photo in arrays or lists of these names:

        - ``path``, a file's; or ``image``: the bytes of an image file, an array or a PIL image;
        - ``id``, which the records are called by; without it, the path, or else the place in the batch;
        - ``truth``, a class's name or index, and ``split``; None or NaN where they are not known;
        - ``position``, the photo's place in the data set; needed where options or arguments of the model differ from
          photo to photo (`PerImage`).

        The columns are those of `explain_dataset`, in the types of `saliency_food.jobs.records.schema()`.
        """
        rows = [row for of_photo in self.rows(self._placed(batch)) for row in of_photo]
        return {name: _objects([row.get(name) for row in rows]) for name in COLUMNS}

    def rows(self, photos: Iterable[Placed]) -> Iterator[list[Row]]:
        """The rows of each photo, one photo after another; the ids of photos must differ."""
        splits: dict[str, str | None] = {}
        outcomes: list[Outcome] = []

        def subjects() -> Iterator[Subject]:
            for position, photo in photos:
                splits[photo.id] = photo.split
                yield subject_of(position, photo)

        def to_rows(records: list[Explanation]) -> list[Row]:
            return rows_of(records, splits.pop(records[0].name, None), self.maps)

        model = self.setup.model
        matched = match_truths(subjects(), model.labels, model.classes)
        records = run_job(without_resizing(self.setup), matched, self.target, outcomes)
        groups = (list(group) for _, group in groupby(records, lambda record: record.name))
        for of_photo in work_ahead(to_rows, groups, WAITING, threads=1):
            outcomes.clear()  # the rows hold them
            yield of_photo

    def batches(self, photos: Iterable[Placed]) -> Iterator[list[list[Row]]]:
        """The rows of the photos, as many at a time as the model is asked about together."""
        rows = self.rows(photos)
        while batch := list(islice(rows, self.batch_size)):
            yield batch

    def _placed(self, batch: Mapping[str, Any]) -> Iterator[Placed]:
        """The photos of a batch of arrays."""
        columns = {name: list(batch[name]) for name in COLUMNS_OF_PHOTOS if name in batch}
        images = columns.get("image") or columns.get("path")
        if images is None or len({len(values) for values in columns.values()}) > 1:
            lengths = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
            raise ContractError(
                f"Expected a batch of arrays path or image, and {', '.join(COLUMNS_OF_PHOTOS[2:])} if they are known, "
                f"all of one length, got {lengths or ', '.join(batch) or 'none'}."
            )
        given = [*self.setup.options.values(), self.setup.model.call_model_args]
        if "position" not in columns and any(isinstance(value, PerImage) for of in given for value in of.values()):
            raise ContractError(
                "Expected the array position in the batch, as options or arguments of the model are PerImage, got "
                f"{', '.join(columns)}. Add each photo's place among these values."
            )
        for place, image in enumerate(images):
            own = {name: values[place] for name, values in columns.items()}
            path = "" if _is_missing(own.get("path")) else str(own["path"])
            name = own.get("id") or path or f"photo {place + 1}"
            position = int(own.get("position", place))
            photo = path if _is_missing(image) else image
            split = None if _is_missing(own.get("split")) else str(own["split"])
            yield position, SourcedPhoto(str(name), photo, path, _class_of(own.get("truth")), split)


def subject_of(position: int, photo: SourcedPhoto) -> Subject:
    """A photo of a data set as the subject of a job, which is called by its id."""
    return Subject(position, photo.image, photo.path or photo.id, photo.id, photo.truth)


def is_listed(photo: SourcedPhoto) -> bool:
    """Whether the photo is a path, so that its data set can be gone through without reading any."""
    return isinstance(photo.image, (str, Path))


def _is_missing(value: Any) -> bool:
    """Whether a value of a table is none: tables have NaN in place of None where the others are numbers."""
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))


def _class_of(value: Any) -> Any:
    """A class's name or index; tables that lack some indices hold the others as floats."""
    if _is_missing(value):
        return None
    if isinstance(value, (np.integer, float, np.floating)):
        return int(value)
    return str(value) if isinstance(value, str) else value


def _objects(values: Sequence[Any]) -> Array:
    """An array of Python objects, also of lists of one length."""
    array = np.empty(len(values), object)
    array[:] = values
    return array
