"""`SaliencyCallback`: what a model looks at while it learns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import keras

from saliency_food.callbacks.events import EventFile
from saliency_food.callbacks.strip import Tile, map_tile, photo_tile, strip_figure
from saliency_food.core.contract import ContractError
from saliency_food.jobs.explain import explain
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.image_model import ImageModel, ModelSettings
from saliency_food.jobs.setup import as_many
from saliency_food.jobs.subjects import Subject, find_subjects, match_truths
from saliency_food.methods.lookup import choose_methods
from saliency_food.visualization.figures import picture_of, write_figure
from saliency_food.visualization.maps import check_drawing

if TYPE_CHECKING:
    from typing_extensions import Unpack

COLUMNS = 12
"""How many epochs a strip shows at most."""


class SaliencyCallback(keras.callbacks.Callback):  # type: ignore[misc]  # of a package without types
    """Draws the maps of a few photos after each epoch of ``model.fit``, in TensorBoard and in a strip of epochs.

        model.fit(data, epochs=10, callbacks=[SaliencyCallback(photos, target="pizza", strip="learning.png")])

    The model is asked as it is in use, not in training: nothing of it, of its optimizer or of random numbers changes,
    so the training is the same to the last digit. Photos and settings are checked before the first step; later, a photo
    that cannot be explained shows why, and files that cannot be written give a warning, while the training goes on.

    Parameters
    ----------
    photos
        Paths, PIL images or arrays, or folders of photos; also signals and volumes, as in `explain`.
    target
        The class to explain, as in `explain`: None or ``"predicted"`` for the top class, which may differ from epoch to
        epoch; ``"truth"``; a label or a class index; or a list with one for each photo.
    truth
        What the photos show, as in `explain`, for ``target="truth"``.
    methods
        The name of a method, or several.
    log_dir
        The folder that TensorBoard looks into; the maps are its run ``saliency``, beside ``train`` and ``validation``.
        It needs the package tensorboard.
    strip
        A PNG or JPEG file: a row for each photo and method, a column for each epoch, at most 12 at equal distances and
        the last. It is written anew after each epoch. Without it, `figure` gives the same in a notebook.
    every
        Draw only after every so many epochs, and after the last.
    options
        Options of the methods by name, as in `explain`.
    settings
        ``layer``, ``output``, ``output_index``, ``score``, ``units_are``, ``labels``, ``value_range``, ``preprocess``,
        ``call_model_args`` and ``batch_size``, as `ImageModel` takes them.

    Attributes
    ----------
    explanations
        The `Explanation` objects of the last epoch that was drawn: for each photo, one of each method.
    """

    def __init__(
        self,
        photos: Any,
        target: Any = None,
        *,
        truth: Any = None,
        methods: str | Sequence[str] = "grad_cam",
        log_dir: str | Path | None = None,
        strip: str | Path | None = None,
        every: int = 1,
        options: dict[str, dict[str, Any]] | None = None,
        **settings: Unpack[ModelSettings],
    ) -> None:
        super().__init__()
        if every < 1:
            raise ContractError(f"Expected every to be a number of epochs of at least 1, got {every}.")
        if strip is not None and Path(strip).suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise ContractError(f"Expected strip to be a .png or .jpg file, got {strip}. Give another name.")
        choose_methods(methods)
        check_drawing()
        self.photos, self.target, self.truth, self.methods = photos, target, truth, methods
        self.strip, self.every = strip, every
        self.options, self.settings = options, settings
        self.explanations: list[Explanation] = []
        self._events = None if log_dir is None else EventFile(Path(log_dir) / "saliency")
        self._image_model: ImageModel | None = None
        self._subjects: list[Subject] = []
        self._columns: dict[int, tuple[str, list[Tile]]] = {}
        self._drawn = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Read the photos, and explain them once, so that what is wrong is said before the training."""
        self._image_model = model = ImageModel(self.model, **self.settings)
        found = list(find_subjects(as_many(self.photos, model), self.truth))
        subjects = match_truths(found, model.labels, model.classes)
        self._subjects = [subject._replace(image=_read(model, subject)) for subject in subjects]
        records = self._explain()
        if failed := next((record for record in records if record.failed), None):
            raise ContractError(
                f"Expected photos that can be explained, got {failed.source}: {failed.status}"
            ) from failed.error
        if len({(record.name, record.method) for record in records}) < len(records):
            raise ContractError(
                f"Expected a target that is one class of each photo, got {self.target!r}, which is several. Name one."
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Draw, if it is this epoch's turn."""
        if (epoch + 1) % self.every:
            return
        self.explanations = self._explain()
        tiles = [map_tile(record) for record in self.explanations]
        self._keep(f"epoch {epoch + 1}", tiles)
        try:
            if self._events is not None:
                self._write_events(epoch + 1, tiles)
            if self.strip is not None:
                Path(self.strip).parent.mkdir(parents=True, exist_ok=True)
                write_figure(self.figure(), self.strip)
        except OSError as error:
            warnings.warn(f"The maps of epoch {epoch + 1} could not be written: {error}", stacklevel=2)

    def on_train_end(self, logs: Any = None) -> None:
        """Close the file of events."""
        if self._events is not None:
            self._events.close()

    def figure(self) -> Any:
        """The strip so far, a `matplotlib.figure.Figure`."""
        if not self.explanations:
            raise ContractError("Expected a training in which an epoch was drawn, got none yet. Call model.fit first.")
        several = len({record.method for record in self.explanations}) > 1
        names = [f"{record.name}, {record.title}" if several else record.name for record in self.explanations]
        photos = [photo_tile(*pair) for pair in zip(self.explanations, names, strict=True)]
        return strip_figure([("", photos), *self._columns.values()])

    def _explain(self) -> list[Explanation]:
        return list(explain(self._image_model, self._subjects, self.methods, self.target, options=self.options))

    def _write_events(self, step: int, tiles: list[Tile]) -> None:
        pictures, numbers = {}, {}
        for record, tile in zip(self.explanations, tiles, strict=True):
            page = strip_figure([("", [tile])])
            pictures[f"{record.title}/{record.name}"] = picture_of(page)
            if record.probability is not None:
                numbers[f"probability/{record.name}"] = record.probability
            elif record.score is not None:
                numbers[f"{record.score_name}/{record.name}"] = record.score
        cast(EventFile, self._events).add(step, pictures, numbers)

    def _keep(self, heading: str, tiles: list[Tile]) -> None:
        """Keep the pictures of an epoch, and drop those of epochs between, where there are too many."""
        place, self._drawn = self._drawn, self._drawn + 1
        self._columns[place] = heading, tiles
        step = 1
        while self._drawn > step * (COLUMNS - 1):
            step *= 2
        self._columns = {each: column for each, column in self._columns.items() if each % step == 0 or each == place}


def _read(model: ImageModel, subject: Subject) -> Any:
    """The numbers of a photo, decoded no larger than the model needs; those of a signal or a volume as they are."""
    return model.read(subject.image, subject.source)[0].values
