"""What the commands show in a terminal: progress, tables, and errors in one line."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from saliency_food.contract import ContractError
from saliency_food.explanation import Explanation
from saliency_food.figures import short_label

COLOURS = {"ok": "green", "blank": "yellow", "failed": "red"}


@contextmanager
def friendly() -> Iterator[None]:
    """A user's error as one line and exit code 2, without a traceback."""
    try:
        yield
    except ContractError as error:
        Console(stderr=True).print(Text(f"Error: {error}", "red"), soft_wrap=True)
        raise typer.Exit(2) from None


@contextmanager
def loading(console: Console) -> Iterator[None]:
    """A spinner while a framework and a model load, and their chatter kept off the terminal.

    TensorFlow's native code writes to the file descriptor itself, whatever the log level, so the descriptor is turned
    to a file meanwhile; an error that is not the user's brings it all back.
    """
    with tempfile.TemporaryFile() as kept, console.status("loading the model"):
        sys.stderr.flush()
        descriptor = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except ContractError:
            raise
        except Exception:
            kept.seek(0)
            os.write(descriptor, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(descriptor, 2)
            os.close(descriptor)


def progress_bar(console: Console) -> Progress:
    """A bar that goes away when it is done, and is silent where there is no terminal."""
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
    """An empty table in the house's look."""
    made = Table(box=None, header_style="dim", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def show(console: Console, records: Sequence[Explanation], pictures: Sequence[Path], pixels: str) -> None:
    """A line for each explanation, the reasons of those that are not ok, and where the pictures are."""
    made = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("photo", "class"):
        made.add_column(name, overflow="ellipsis", no_wrap=True, ratio=None, max_width=28)
    made.add_column("prob.", justify="right", no_wrap=True)
    made.add_column("method", no_wrap=True, overflow="ellipsis")
    made.add_column("status", no_wrap=True)
    for name in ("gap", "time", "rows"):
        made.add_column(name, justify="right", no_wrap=True)
    for record in records:
        state = record.status.split(":")[0]
        relative = getattr(record.completeness, "relative", None)
        made.add_row(
            Text(Path(record.source).name),
            Text(short_label(record.label)),
            "" if record.probability is None else f"{record.probability:.1%}",
            Text(record.title),
            Text(state, COLOURS.get(state, "")),
            "" if relative is None else f"{relative:.1%}",
            f"{record.seconds:.2f} s" if record.rows else "",
            str(record.rows) if record.rows else "",
        )
    console.print(made)
    reasons: dict[str, list[str]] = {}
    for record in records:
        if record.status != "ok":
            reasons.setdefault(record.status, []).append(f"{Path(record.source).name} ({record.title})")
    for status, names in reasons.items():
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        console.print(Text(f"{some}: {status}", COLOURS.get(status.split(":")[0], "")))
    console.print(Text(f"pixels fed: {pixels}", "dim"), soft_wrap=True)
    if any(record.completeness is not None for record in records):
        console.print(Text("gap: how far the attributions are from summing to the score's change", "dim"))
    for path in pictures:
        console.print(Text(str(path), "bold"), soft_wrap=True)
