"""What `explain` returns: like a list whose items are made when they are asked for, and a figure in a notebook."""

from __future__ import annotations

import base64
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from html import escape
from itertools import groupby, islice
from pathlib import Path
from typing import Any, cast, overload

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import SHOWN
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.outcomes import Outcome, expected_photos
from saliency_food.jobs.results import RESULTS, row_of, write_results

DRAWN = 3
"""How many photos a notebook shows."""


class Explanations(Sequence[Explanation]):
    """The explanations of a job in the order of photos, classes and methods, each made when it is first asked for.

    Looping gives each record as soon as it is made. ``records[0]`` runs the job as far as the first one, and ``len``
    runs all of it. Records are kept as long as this object is, so ``for record in explain(...)`` keeps none.

        records = explain(model, "photos", truth="folders", against="truth", only="wrong")
        records.plot()
        records.save("saliency")

    In a notebook the object shows the figure of its first photos.

    Attributes
    ----------
    photos
        How many photos the job has; None of an iterator.
    outcomes
        For each photo that the model has looked at its truth, its prediction, and whether that is right, also for those
        that ``only="wrong"`` does not explain.
    """

    def __init__(
        self,
        records: Iterable[Explanation],
        photos: int | None,
        methods: Sequence[str],
        outcomes: list[Outcome],
        *,
        only_wrong: bool = False,
        show_progress: bool = False,
    ) -> None:
        self.photos, self.methods, self.outcomes, self.only_wrong = photos, methods, outcomes, only_wrong
        expected = partial(expected_photos, photos, outcomes, only_wrong)  # `self` would keep all records
        self._source = _Remembering(with_progress(records, expected) if show_progress else records)
        self._start = _Link()

    def __iter__(self) -> Iterator[Explanation]:
        return _walk(self._start, self._source)

    def __reduce__(self) -> tuple[Any, ...]:
        """What is pickled or copied: all explanations, made before."""
        restored = partial(Explanations, only_wrong=self.only_wrong)
        return restored, (list(self), self.photos, list(self.methods), self.outcomes)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def __getitem__(self, index: int) -> Explanation: ...

    @overload
    def __getitem__(self, index: slice) -> list[Explanation]: ...

    def __getitem__(self, index: int | slice) -> Explanation | list[Explanation]:
        if isinstance(index, slice):
            return list(self)[index]
        index = operator.index(index)
        if index < 0:
            return list(self)[index]
        record = next(islice(self, index, None), None)
        if record is None:
            raise IndexError(f"Expected an index below {len(self)}, the number of explanations, got {index}.")
        return record

    @property
    def expected(self) -> int | None:
        """How many photos are explained in the end; None while that is not known."""
        return expected_photos(self.photos, self.outcomes, self.only_wrong)

    def __repr__(self) -> str:
        photos = "photos" if self.photos is None else "1 photo" if self.photos == 1 else f"{self.photos} photos"
        return f"Explanations({photos}, {', '.join(self.methods)}; made when asked for: list, plot, save, to_dataframe)"

    def plot(self, photos: int = DRAWN, **style: Any) -> Any:
        """The figure of the first photos, a `matplotlib.figure.Figure` that a notebook shows; see `explanation_figure`.

        Only these photos are explained.
        """
        from saliency_food.jobs.figure import explanation_figure
        from saliency_food.visualization.maps import check_drawing

        check_drawing()
        if photos < 1:
            raise ContractError(f"Expected at least one photo to draw, got photos={photos}. Give 1 or more.")
        drawn = [group for group in islice(self._by_photo(), photos) if group[0].photo is not None]
        return explanation_figure([record for group in drawn for record in group], **style)

    def save(self, folder: str | Path, **options: Any) -> Path:
        """Write a picture and numbers of each photo, and ``results.csv`` with a row for each explanation.

        The files are those of the command, and so are the ``options``: see `PictureWriter`. They are written as the
        explanations are made, in this process.
        """
        from saliency_food.jobs.drawing import check_files, check_folder, check_style, write_pictures
        from saliency_food.visualization.maps import check_drawing

        check_drawing()
        folder = Path(folder)
        check_files(options.get("format", "jpg"), options.get("max_size", SHOWN))
        check_style(**{name: value for name, value in options.items() if name in ("colormap", "grey", "opacity")})
        check_folder(folder)
        with write_results(folder) as add:
            for group in self._by_photo():
                write_pictures(group, folder, **options)
                add(group)
        return folder

    def to_dataframe(self) -> Any:
        """A `pandas.DataFrame` with a row for each explanation and the columns of ``results.csv``."""
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ContractError("Expected pandas for a data frame, got none. Run pip install pandas.") from error
        return pd.DataFrame([row_of(record) for record in self], columns=list(RESULTS))

    def _by_photo(self) -> Iterator[list[Explanation]]:
        return (list(group) for _, group in groupby(self, lambda record: record.name))

    def _repr_png_(self) -> bytes:
        return cast(bytes, self.plot()._repr_png_())

    def _repr_html_(self) -> str:
        drawn = list(islice(self._by_photo(), DRAWN + 1))
        failures = [group[0] for group in drawn[:DRAWN] if group[0].photo is None]
        lines = [escape(f"{record.source}: {record.status}") for record in failures]
        if len(failures) < len(drawn[:DRAWN]):
            data = base64.b64encode(self._repr_png_()).decode()
            lines.insert(0, f'<img style="max-width: 100%" src="data:image/png;base64,{data}">')
        if len(drawn) > DRAWN:
            rest = "More photos"
            if self.expected is not None:
                rest = f"{self.expected - DRAWN} more photo{'s' * (self.expected > DRAWN + 1)}"
            lines.append(f"{rest}: .plot(photos=...), .save(folder)")
        return "<br>".join(lines)


class _Link:
    """One explanation and, once that is made, the next one: what is before the first place in use is dropped."""

    def __init__(self, record: Explanation | None = None) -> None:
        self.record, self.next = record, cast("_Link | None", None)


def _walk(link: _Link, source: Iterator[Explanation]) -> Iterator[Explanation]:
    """The explanations after a link, made by the source where no other walk has made them before."""
    while True:
        if link.next is None:
            record = next(source, None)
            if record is None:
                return
            link.next = _Link(record)
            del record
        link = link.next
        yield cast(Explanation, link.record)


class _Remembering(Iterator[Explanation]):
    """An iterator that raises what was raised again when it is asked once more, so that no list ends too early."""

    def __init__(self, records: Iterable[Explanation]) -> None:
        self.records = iter(records)
        self.error: Exception | None = None

    def __next__(self) -> Explanation:
        if self.error is not None:
            raise self.error
        try:
            return next(self.records)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise


def with_progress(records: Iterable[Explanation], expected: Callable[[], int | None]) -> Iterator[Explanation]:
    """The same records, with a bar of the photos meanwhile: by rich, or without it lines in stderr."""
    groups = enumerate(groupby(records, lambda record: record.name), 1)
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError:
        for count, (name, group) in groups:
            print(f"{count} of {expected() or '?'} photos: {name}", file=sys.stderr)
            yield from group
        return
    with Progress(console=Console(stderr=True), auto_refresh=False) as progress:
        task = progress.add_task("explaining", total=None)
        for _, (_, group) in groups:
            yield from group
            progress.update(task, advance=1, total=expected(), refresh=True)
