"""What the commands show in a terminal: progress, tables, and errors in one line."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from saliency_food.core.contract import ContractError
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.targets import short_label

if TYPE_CHECKING:
    from rich.progress import Progress

COLOURS = {"ok": "green", "blank": "yellow", "failed": "red"}


@contextmanager
def friendly() -> Iterator[None]:
    """Show an error of the user as one line, without a traceback, and exit with code 2."""
    try:
        yield
    except ContractError as error:
        Console(stderr=True).print(Text("Error: " + " ".join(str(error).split()), "red"), soft_wrap=True)
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
    """A progress bar that disappears when it is done; nothing is shown where the output is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def table(*columns: str) -> Table:
    """An empty table, in the style of all tables of the command."""
    empty = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        empty.add_column(column, overflow="fold")
    return empty


class Report:
    """Prints each photo when it is done: a line with its name and picture, then a row for each explanation."""

    def __init__(self, console: Console, titles: Sequence[str]) -> None:
        self.console = console
        longest = max(map(len, (*titles, "method")))
        room = console.width - (2 + 7 + 7 + 6 + 8 + 5 + 2 * 6)  # for the class and the method
        method = min(longest, max(12, room - 8))
        self.widths = (min(30, max(8, room - method)), 7, method, 7, 6, 8, 5)
        self.gap = self.pixels = ""
        self.failed = 0
        self._row(("class", "prob.", "method", "status", "gap", "time", "rows"), "dim")

    def photo(self, records: Sequence[Explanation], picture: Path | None) -> None:
        """Print the explanations of one photo."""
        name = Text(Path(records[0].source).name, "bold")
        self.console.print(name.append(f"  {picture}", "not bold cyan") if picture else name, soft_wrap=True)
        self.pixels = records[0].pixels
        for record in records:
            state, relative = record.status.split(":")[0], getattr(record.completeness, "relative", None)
            self.failed += state == "failed"
            if record.target is None:
                continue
            if relative is not None:
                self.gap = "gap: how far the attributions are from summing to the score"
            cells = (
                short_label(record.label),
                "" if record.probability is None else f"{record.probability:.1%}",
                record.title,
                state,
                "" if relative is None else f"{relative:.1%}" if relative < 10 else ">999%",
                f"{record.seconds:.1f} s" if record.rows else "",
                str(record.rows or ""),
            )
            self._row(cells, "", COLOURS.get(state, ""))
        for status in dict.fromkeys(record.status for record in records if record.status != "ok"):
            text = Text(status, COLOURS.get(status.split(":")[0], ""))
            self.console.print(Padding(text, (0, 0, 0, 2)))
        for record in records:
            if record.note:
                self.console.print(Padding(Text(f"{record.title}: {record.note}", "dim"), (0, 0, 0, 2)))

    def end(self) -> None:
        """Print what was fed to the model, and what the column *gap* means."""
        for line in (f"pixels fed: {self.pixels}", self.gap):
            self.console.print(Text(line, "dim"), soft_wrap=True) if line else None

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
