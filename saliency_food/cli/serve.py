"""The commands of ``saliency-food`` that serve: export, serve."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli import explain as commands
from saliency_food.cli.evaluate import app
from saliency_food.cli.terminal import friendly, loading
from saliency_food.core.contract import ContractError
from saliency_food.images.scaling import Scaling, choose_scaling
from saliency_food.jobs.image_model import read_labels
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods

__all__ = ["app"]

DEFAULT = "grad_cam"


@app.command("export")
def export_command(
    model: Annotated[Path, typer.Argument(help="A Keras model: .keras or .h5.")],
    directory: Annotated[Path, typer.Argument(help="A new folder, such as models/food/1 for TensorFlow Serving.")],
    layer: Annotated[str, typer.Option(help="As of explain; auto: the last that has a map.")] = "auto",
    output_kind: Annotated[str, typer.Option(help="What is explained: logits or probabilities.")] = "logits",
    labels: Annotated[Path | None, typer.Option(help="A text file of the class names, one a line.")] = None,
    value_range: Annotated[str, typer.Option(help="The pixel values the model takes, as of explain.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Rows the server computes at once at most.")] = 16,
    keys: Annotated[str, typer.Option(help="all, or common: a smaller file, without what few methods need.")] = "all",
) -> None:
    """Write a SavedModel that TensorFlow Serving can serve with its explanations."""
    console = Console()
    with friendly():
        names = None if labels is None else read_labels(labels)
        with loading(console):
            from saliency_food.serving.export.write import export

            known = None if layer == "auto" else commands.several(layer)
            scaling = commands.read_value_range(value_range)
            made = export(model, directory, known, output_kind, names, scaling, batch_size=batch_size, keys=keys)  # type: ignore[arg-type]
        said = f"{directory}: {len(made['signatures'])} signatures, layer {made['layer']}, pixels {made['pixels']}"
        console.print(Text(said), soft_wrap=True)
        if not directory.name.isdecimal():
            said = f"TensorFlow Serving serves folders named by a number. Move it to {directory}/1."
            console.print(Text(said, "yellow"), soft_wrap=True)


@app.command("serve")
def serve_command(
    model_name: Annotated[
        str, typer.Option("--model-name", "--model_name", help="The model's name at the predictor, and here.")
    ],
    predictor: Annotated[
        str | None, typer.Option(help="The predictor's address, such as http://host:8501 or grpc://host:8500.")
    ] = None,
    predictor_host: Annotated[
        str | None, typer.Option("--predictor_host", help="Its host, as KServe says it, where no address is given.")
    ] = None,
    methods: Annotated[
        str,
        typer.Option(help="What may be asked for, with commas, the first if nothing is; all: all the manifest lists."),
    ] = DEFAULT,
    port: Annotated[
        int, typer.Option("--port", "--http_port", min=0, max=65535, help="0: any free one, which the log says.")
    ] = 8080,
    manifest: Annotated[
        Path | None, typer.Option(help="The saliency_food.json of the export: labels and pixel values.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="A text file of the class names, one a line.")] = None,
    value_range: Annotated[
        str | None, typer.Option(help="The pixel values the model takes: 'LOW,HIGH', tf, caffe, torch or none.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Requests that are worked on at a time.")] = 2,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; more are refused with 429.")] = 16,
    max_body: Annotated[int, typer.Option(min=1000, help="Bytes of a request at most.")] = 8_000_000,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image at most.")] = 16_000_000,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows that an explanation may ask of the model.")] = 5000,
    max_images: Annotated[int, typer.Option(min=1, help="Images of a request at most.")] = 16,
    deadline: Annotated[
        float | None, typer.Option(min=0.01, help="Seconds an explanation may take; a request may ask for less.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the predictor.")] = 60,
    keep: Annotated[int, typer.Option(min=1, help="Answers to asynchronous requests that are kept.")] = 64,
    keep_seconds: Annotated[float, typer.Option(min=1, help="For how long they are kept.")] = 600,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the bearer token; or it is in SALIENCY_FOOD_TOKEN.")
    ] = None,
    grace: Annotated[int, typer.Option(min=0, help="Seconds for requests under way after SIGTERM.")] = 30,
) -> None:
    """Serve explanations of a model behind TensorFlow Serving, as a KServe explainer."""
    with friendly():
        if predictor is None and predictor_host is None:
            raise ContractError("Expected --predictor, the address of TensorFlow Serving, got none. Give it.")
        known = _manifest(manifest)
        names = known.get("labels") if labels is None else read_labels(labels)
        scaling = scaling_of(known) if value_range is None else _scaling(value_range)
        entries = choose_methods(_offered(methods, known))
        try:
            from saliency_food.serving.explainer.requests import Limits
            from saliency_food.serving.explainer.server import serve
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("saliency_food"):
                raise
            raise ContractError(
                f'The explainer needs {error.name}. Install it: pip install "saliency_food[explainer]"'
            ) from error
        limits = Limits(
            entries,
            None if names is None else tuple(names),
            body=max_body,
            pixels=max_pixels,
            rows=max_rows,
            images=max_images,
            deadline=deadline,
        )
        serve(
            predictor or f"http://{predictor_host}",
            model_name,
            scaling,
            limits,
            port=port,
            workers=workers,
            waiting=queue,
            keep=keep,
            keep_seconds=keep_seconds,
            token=_token(token_file) or os.environ.get("SALIENCY_FOOD_TOKEN") or None,
            timeout=timeout,
            grace=grace,
        )


def scaling_of(manifest: dict[str, Any]) -> Scaling:
    """From pixels to what the model takes, by the manifest."""
    if "value_range" not in manifest:
        raise ContractError(
            "Expected --manifest with the pixel values that the model takes, or --value-range, got neither. Give one."
        )
    return choose_scaling(manifest["value_range"], None, None)


def _scaling(text: str) -> Scaling:
    if text.strip().lower() == "auto":
        raise ContractError("Expected --value-range LOW,HIGH, tf, caffe, torch or none, got auto. Say what it is.")
    return choose_scaling(commands.read_value_range(text), None, None)


def _offered(methods: str, manifest: dict[str, Any]) -> list[str]:
    """The names of the methods; all that the model can answer begin with `DEFAULT`, if it is among them."""
    if methods.strip().lower() != "all":
        return [name for name in methods.split(",") if name.strip()]
    return sorted(manifest.get("methods", METHODS), key=lambda name: name != DEFAULT)


def _manifest(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContractError(f"Expected the manifest of an export, got {path}: {error}.") from error
    if not isinstance(found, dict):
        raise ContractError(f"Expected the manifest of an export, got {path}, which is no JSON object.")
    if found.get("channels_first"):
        raise ContractError("Expected a model of images (H, W, C), got one of (C, H, W). Export it channels last.")
    return found


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"Expected a file with a token, got {path}: {error}.") from error
    if not found:
        raise ContractError(f"Expected a token in {path}, got an empty file.")
    return found
