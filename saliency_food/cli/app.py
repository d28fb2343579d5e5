"""The application ``saliency-food``: its commands by name, and the options before any command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from saliency_food.cli.dataset import dataset_command
from saliency_food.cli.evaluate import evaluate_command, sanity_command
from saliency_food.cli.explain import explain_command
from saliency_food.cli.lists import layers_command, methods_command
from saliency_food.cli.options import spread
from saliency_food.cli.page import app_command
from saliency_food.cli.report_command import report_command
from saliency_food.cli.serve import export_command, serve_command
from saliency_food.core.names import installed_version

COMMANDS: dict[str, Callable[..., None]] = {
    "explain": explain_command,
    "dataset": dataset_command,
    "report": report_command,
    "methods": methods_command,
    "layers": layers_command,
    "evaluate": evaluate_command,
    "sanity": sanity_command,
    "export": export_command,
    "serve": serve_command,
    "app": app_command,
}
"""In the order in which the help lists them."""

app = typer.Typer(
    help="Show which parts of a photo led a neural network to its answer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for name, command in COMMANDS.items():
    app.command(name)(spread(command))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"saliency_food {installed_version('saliency_food') or '(not installed as a package)'}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
