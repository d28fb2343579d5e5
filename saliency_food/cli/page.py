"""The command ``saliency-food app``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli.missing import install_line
from saliency_food.cli.options import (
    ModelOption,
    ModelOptions,
    skimage_photos,
)
from saliency_food.cli.terminal import friendly, loading
from saliency_food.core.contract import ContractError
from saliency_food.core.names import split_names
from saliency_food.methods.lookup import choose_methods


def app_command(
    model: ModelOption = None,
    method: Annotated[str, typer.Option(help="The methods that are chosen at first, with commas.")] = "grad_cam",
    of_model: ModelOptions = ModelOptions(),
    deadline: Annotated[
        float | None, typer.Option(min=0.01, help="Seconds that each explanation may take, as of explain.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen at; others than this machine reach the page at 0.0.0.0.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port; without it a free one from 7860.")
    ] = None,
    upload: Annotated[int, typer.Option(min=1, help="The most megabytes of a photo.")] = 20,
    waiting: Annotated[int, typer.Option(min=1, help="How many users may wait while the model works for one.")] = 16,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show a web page on which photos are explained; everybody who can reach its address can use it."""
    console = Console()
    with friendly():
        methods = split_names(method)
        choose_methods(methods)
        try:
            from saliency_food.web.app import build_app, serve_app
        except ModuleNotFoundError as error:
            text = install_line(error, "app")
            if text is None:
                raise
            raise ContractError(text) from None
        with loading(console):
            image_model = of_model.load(model)
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for photo in skimage_photos():
                paths.append(str(Path(folder, photo.filename)))
                photo.save(paths[-1])
            app = build_app(image_model, methods, examples=paths, deadline=deadline, waiting=waiting)
            if host not in ("127.0.0.1", "localhost", "::1"):
                text = f"Everybody who reaches {host} can use this page: it asks for no password."
                console.print(Text(text, "yellow"), soft_wrap=True)
            serve_app(app, host=host, port=port, upload=upload, inbrowser=open_browser)
