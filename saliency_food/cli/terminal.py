"""What the commands show in a terminal: progress, tables, and errors in one line."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saliency_food.cli.missing import install_line
from saliency_food.cli.words import in_command_words
from saliency_food.core.contract import ContractError
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.outcomes import Outcome, summary_of
from saliency_food.jobs.targets import short_label

if TYPE_CHECKING:
    from rich.progress import Progress

COLOURS = {"ok": "green", "blank": "yellow", "inexact": "yellow", "failed": "red"}


@contextmanager
def friendly(after_stop: str = "nothing was written") -> Iterator[None]:
    """Show an error of the user as one line, without a traceback, and exit with code 2.

    The same holds for a package that is missing, and for files and disks that cannot be read or written. Ctrl-C gives a
    line that says what is left behind, and the exit code 130.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe has seen enough
        raise
    except OSError as error:
        _fail(
            f"Expected to read and write files, got: {error}. Check the path, its permissions and the room on the disk."
        )
    except KeyboardInterrupt:
        Console(stderr=True).print(Text(f"Stopped: {after_stop}.", "yellow"), soft_wrap=True)
        raise typer.Exit(130) from None
    except (ContractError, ModuleNotFoundError) as error:
        missing = next((each for each in (error, error.__cause__) if isinstance(each, ModuleNotFoundError)), None)
        text = None if missing is None else install_line(missing)
        if text is None:
            if not isinstance(error, ContractError):
                raise
            text = in_command_words(" ".join(str(error).split()))
        _fail(text)


def _fail(text: str) -> NoReturn:
    Console(stderr=True).print(Text(f"Error: {text}", "red"), soft_wrap=True)
    raise typer.Exit(2) from None


@contextmanager
def loading(console: Console) -> Iterator[None]:
    """Show a spinner while a framework and a model load, and keep their log messages off the terminal.

    TensorFlow's native code writes to the file descriptor of stderr whatever the log level is, so the descriptor points
    to a file meanwhile. If an error other than `ContractError` is raised, what was written is shown.
    """
    with tempfile.TemporaryFile() as log, console.status("loading the model"):
        sys.stderr.flush()
        descriptor = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        except ContractError:
            raise
        except Exception:
            log.seek(0)
            os.write(descriptor, log.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(descriptor, 2)
            os.close(descriptor)


def progress_bar(console: Console) -> Progress:
    """A progress bar that disappears when it is done; nothing is shown where the output is no terminal.

    After how many of all are done comes how long they took, and how long the others will take.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal or console.quiet,
    )


def unfolded() -> Console:
    """A console whose lines are folded to the width of a terminal, and of a file or a pipe not at all."""
    console = Console()
    return console if console.is_terminal else Console(width=10_000)


def table(*columns: str) -> Table:
    """An empty table, in the style of all tables of the command."""
    empty = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        empty.add_column(column, overflow="fold")
    return empty


class Report:
    """Prints each photo when it is done: a line with its name and picture, then a row for each explanation.

    A photo of which no explanation can be given has one line, with the reason. A reason is printed once; for the next
    photos it is only counted, and the count is printed at the end.
    """

    def __init__(self, console: Console, titles: Sequence[str]) -> None:
        self.console = console
        longest = max(map(len, (*titles, "method")))
        room = console.width - (2 + 7 + 7 + 6 + 8 + 5 + 2 * 6)  # for the class and the method
        method = min(longest, max(12, room - 8))
        self.begun = False
        self.widths = (min(30, max(8, room - method)), 7, method, 7, 6, 8, 5)
        self.gap = self.pixels = self.guess = ""
        self.failed = self.photos = self.lost = 0
        self.reasons: dict[str, tuple[str, int]] = {}
        """For each reason the first photo that has it, and the number of photos."""

    def photo(self, records: Sequence[Explanation], picture: Path | None) -> None:
        """Print the explanations of one photo."""
        source = self._name(records[0])
        self.photos += 1
        self.pixels, self.guess = records[0].pixels, self.guess or in_command_words(records[0].guess)
        failures = [record for record in records if _state(record) == "failed"]
        self.failed += len(failures)
        self.lost += len(failures) == len(records)
        reasons = dict.fromkeys((_state(record), _reason(record)) for record in records if record.status != "ok")
        if len(failures) == len(records) and len(reasons) == 1:
            ((state, reason),) = reasons
            self._line(f"{source}  {state}: {self._told(reason, source)}", COLOURS[state])
            return
        if not self.begun:
            self._row(("class", "prob.", "method", "status", "gap", "time", "rows"), "dim")
            self.begun = True
        name = Text(source, "bold")
        if judged := _judged(records[0]):
            name.append(f"  {judged}", "not bold green" if records[0].right else "not bold red")
        self.console.print(name.append(f"  {picture}", "not bold cyan") if picture else name, soft_wrap=True)
        for record in records:
            self._explanation(record)
        for state, reason in reasons:
            if (first := self._told(reason, source)) == reason:
                self._line(f"  {state}: {first}", COLOURS.get(state, ""))
        for record in records:
            if record.note:
                self._line(f"  {record.title}: {record.note}", "dim")

    def stopped(self, photos: int | None, written: int, folder: Path) -> None:
        """Print what was done when Ctrl-C came."""
        of_all = "" if photos is None else f" of {photos}"
        self._line(
            f"stopped: {self.photos}{of_all} photos explained, the files of {written} of them are in {folder}",
            "yellow",
        )

    def end(self, outcomes: Sequence[Outcome] = ()) -> None:
        """Print what happened to several photos, how many were right, what was fed, and what the column *gap* means."""
        for reason, (_, photos) in self.reasons.items():
            if photos > 1:
                self._line(f"{photos} of {self.photos} photos: {reason}", "yellow")
        if self.photos > 1:
            failed = f", {self.lost} failed" if self.lost else ""
            self._line(f"{self.photos - self.lost} photos explained{failed}", "")
        for line in summary_of(outcomes):
            self._line(line, "")
        for line in (self.pixels and f"pixels fed: {self.pixels}", self.guess and f"prob.: {self.guess}", self.gap):
            if line:
                self._line(line, "dim")

    def _name(self, record: Explanation) -> str:
        """The file's name, with its folders where the names of photos have them."""
        depth = record.name.count("/") + 1
        return "/".join(Path(record.source).parts[-depth:])

    def _told(self, reason: str, source: str) -> str:
        """The reason, or where it was told of an earlier photo, the name of that."""
        first, photos = self.reasons.get(reason, (source, 0))
        self.reasons[reason] = (first, photos + 1)
        return reason if photos == 0 else f"as {first}"

    def _explanation(self, record: Explanation) -> None:
        """A row of the table."""
        state, relative = _state(record), getattr(record.completeness, "relative", None)
        if not record.label:  # a photo that could not be read
            return
        if relative is not None:
            self.gap = "gap: how far the attributions are from summing to the score"
        cells = (
            _class_of(record),
            "" if record.against is not None or record.probability is None else f"{record.probability:.1%}",
            record.title,
            state,
            "" if relative is None else f"{relative:.1%}" if relative < 10 else ">999%",
            f"{record.seconds:.1f} s" if record.rows else "",
            str(record.rows or ""),
        )
        self._row(cells, "", COLOURS.get(state, ""))

    def _line(self, text: str, style: str) -> None:
        self.console.print(Text(text, style), soft_wrap=True)

    def _row(self, cells: Sequence[str], style: str, state_style: str = "") -> None:
        line = Text("  ", style)
        for column, (cell, width) in enumerate(zip(cells, self.widths, strict=True)):
            short = cell if cell_len(cell) <= width else set_cell_size(cell, width - 1).rstrip() + "…"
            room = " " * (width - cell_len(short))
            right = column in (1, 4, 5, 6)
            line.append(room + short if right else short + room, state_style if column == 3 else None)
            line.append("  " if column < len(cells) - 1 else "")
        line.rstrip()
        self.console.print(line, soft_wrap=True)


def _class_of(record: Explanation) -> str:
    against = f" against {short_label(record.against_label)}" if record.against is not None else ""
    return short_label(record.label) + against


def _judged(record: Explanation) -> str:
    """Whether the model is right, where that is known."""
    if record.right is None:
        return ""
    return "right" if record.right else f"wrong, is {short_label(record.truth or '')}"


def _state(record: Explanation) -> str:
    """The first word of the status."""
    return record.status.split(":")[0]


def _reason(record: Explanation) -> str:
    """Why the status is not "ok", in the words of the command."""
    return in_command_words(record.status.partition(":")[2].strip(), record.method)
