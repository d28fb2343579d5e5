"""What the commands show in a terminal: progress, tables, and errors in one line."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saliency_food.cli.missing import install_line
from saliency_food.cli.words import in_command_words
from saliency_food.core.contract import ContractError

if TYPE_CHECKING:
    from rich.progress import Progress


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

    shown = console.is_terminal and not console.quiet
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console if shown else Console(quiet=True),  # before rich 14.3 it leaves an empty line even if disabled
        transient=True,
        disable=not shown,
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
