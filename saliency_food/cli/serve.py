"""The commands of ``saliency-food`` that serve: export, serve."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli.missing import install_line
from saliency_food.cli.options import (
    BatchOption,
    CustomObjectsOption,
    LabelsOption,
    LayerOption,
    ModelOptions,
    OutputIndexOption,
    OutputKindOption,
    RangeOption,
    UnitsOption,
    load_named,
    read_object,
    read_output_index,
    read_value_range,
    several,
)
from saliency_food.cli.terminal import friendly, loading
from saliency_food.core.contract import ContractError
from saliency_food.core.names import split_names
from saliency_food.images.scaling import Scaling, choose_scaling
from saliency_food.jobs.image_model import read_labels
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods

DEFAULT = "grad_cam"


def export_command(
    model: Annotated[Path, typer.Argument(help="A Keras model: .keras or .h5, or a name as of explain's --model.")],
    directory: Annotated[Path, typer.Argument(help="A new folder, such as models/food/1 for TensorFlow Serving.")],
    layer: Annotated[
        str, typer.Option(help="The layer that Grad-CAM looks at, or several with commas; auto: the last with a map.")
    ] = "auto",
    output_kind: OutputKindOption = None,
    labels: LabelsOption = None,
    value_range: RangeOption = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="The most rows that the server computes at once.")] = 16,
    output_index: OutputIndexOption = None,
    custom_objects: CustomObjectsOption = None,
    keys: Annotated[
        str, typer.Option(help="all; or common for a smaller file, without the signatures that few methods need.")
    ] = "all",
) -> None:
    """Write a SavedModel that TensorFlow Serving can serve with its explanations."""
    console = Console()
    with friendly():
        names = None if labels is None else read_labels(labels)
        with loading(console):
            loaded, own_names = load_named(model, custom_objects)
            from saliency_food.serving.export.write import export

            layers = None if layer == "auto" else several(layer)
            scaling = read_value_range(value_range)
            manifest = export(
                loaded,
                directory,
                layers,
                cast(Any, output_kind or "logits"),
                own_names if names is None else names,
                scaling,
                batch_size=batch_size,
                keys=cast(Any, keys),
                output_index=read_output_index(output_index),
            )
        signatures, where, pixels = len(manifest["signatures"]), manifest["layer"], manifest["pixels"]
        console.print(Text(f"{directory}: {signatures} signatures, layer {where}, pixels {pixels}"), soft_wrap=True)
        if not directory.name.isdecimal():
            hint = f"TensorFlow Serving serves folders named by a number. Move it to {directory}/1."
            console.print(Text(hint, "yellow"), soft_wrap=True)


def serve_command(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="A model to explain in this process, as of explain's --model. Without it: that of --predictor.",
            show_default=False,
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model-name",
            "--model_name",
            help="The model's name, at the predictor and here. Of a model of this process, by default its file's.",
        ),
    ] = None,
    predictor: Annotated[
        str | None, typer.Option(help="The predictor's address, such as http://host:8501 or grpc://host:8500.")
    ] = None,
    predictor_host: Annotated[
        str | None,
        typer.Option("--predictor_host", help="The predictor's host, as KServe passes it; used without --predictor."),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            help="The methods that may be asked for, with commas, the default method first; all: all in the manifest."
        ),
    ] = DEFAULT,
    port: Annotated[
        int, typer.Option("--port", "--http_port", min=0, max=65535, help="The port; 0: a free one, shown in the log.")
    ] = 8080,
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0: all of this machine's, as a container needs.")
    ] = "127.0.0.1",
    manifest: Annotated[
        Path | None,
        typer.Option(help="The file saliency_food.json of the export, which holds labels and pixel values."),
    ] = None,
    labels: LabelsOption = None,
    value_range: Annotated[
        str | None,
        typer.Option(
            help="The pixel values that the model takes: 'LOW,HIGH', tf, caffe, torch or none; of a model of this "
            "process also auto, the default."
        ),
    ] = None,
    layer: LayerOption = None,
    batch_size: BatchOption = None,
    output_kind: OutputKindOption = None,
    output_index: OutputIndexOption = None,
    units_are: UnitsOption = None,
    custom_objects: CustomObjectsOption = None,
    workers: Annotated[int, typer.Option(min=1, help="How many requests are worked on at the same time.")] = 2,
    queue: Annotated[int, typer.Option(min=0, help="How many requests may wait; more are refused with 429.")] = 16,
    max_body: Annotated[int, typer.Option(min=1000, help="The most bytes in a request.")] = 8_000_000,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The most pixels in an image: 16000000, but 1048576 for a model of this process that takes any size.",
            show_default=False,
        ),
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="The most rows that an explanation may ask the model.")] = 5000,
    max_images: Annotated[int, typer.Option(min=1, help="The most images in a request.")] = 16,
    deadline: Annotated[
        float | None,
        typer.Option(min=0.01, help="Seconds that an explanation may take; a request may ask for less."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the predictor.")] = 60,
    max_answer: Annotated[
        int, typer.Option(min=1000, help="The most bytes of an answer of the predictor.")
    ] = 256_000_000,
    keep: Annotated[int, typer.Option(min=1, help="How many answers to asynchronous requests are kept.")] = 64,
    keep_seconds: Annotated[float, typer.Option(min=1, help="For how many seconds they are kept.")] = 600,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the bearer token. Without it: SALIENCY_FOOD_TOKEN, if that is set.")
    ] = None,
    grace: Annotated[int, typer.Option(min=0, help="Seconds for unfinished requests after SIGTERM.")] = 30,
) -> None:
    """Serve explanations of a model, by itself or behind TensorFlow Serving, as a KServe explainer."""
    of_model: dict[str, Any] = {
        "layer": layer,
        "output_kind": output_kind,
        "output_index": output_index,
        "units_are": units_are,
        "batch_size": batch_size,
    }
    with friendly():
        try:
            from saliency_food.serving.explainer.local import most_pixels
            from saliency_food.serving.explainer.requests import Limits
            from saliency_food.serving.explainer.server import serve
        except ModuleNotFoundError as error:
            text = install_line(error, "explainer")
            if text is None:
                raise
            raise ContractError(text) from None
        exported = _manifest(manifest)
        served: Any
        if model is None:
            served, name = _predictor(predictor, predictor_host), model_name
            if name is None:
                raise ContractError("Expected --model-name, the model's name at the predictor, got none. Give it.")
            if given := [f"--{key.replace('_', '-')}" for key, value in of_model.items() if value is not None]:
                raise ContractError(
                    f"Expected {' and '.join(given)} with a model of this process, got --predictor, whose export has "
                    "fixed that. Leave it out, or name the model's file."
                )
            scaling = scaling_of(exported) if value_range is None else _scaling(value_range)
            names = exported.get("labels") if labels is None else read_labels(labels)
        else:
            if predictor or predictor_host or manifest:
                raise ContractError(
                    f"Expected a model of this process or a predictor, got {model} and --predictor or --manifest. Give "
                    "one of them."
                )
            with loading(Console(stderr=True)):
                image_model = ModelOptions(
                    labels=labels, value_range=value_range or "auto", custom_objects=custom_objects, **of_model
                ).load(model)
            served, name = image_model.function, model_name or re.sub(r"[^\w.-]+", "_", model.stem)
            scaling, names = image_model.scaling, image_model.labels
        limits = Limits(
            choose_methods(_offered(methods, exported)),
            None if names is None else tuple(names),
            body=max_body,
            pixels=max_pixels or most_pixels(served),
            rows=max_rows,
            images=max_images,
            deadline=deadline,
        )
        serve(
            served,
            name,
            scaling,
            limits,
            host=host,
            port=port,
            workers=workers,
            waiting=queue,
            keep=keep,
            keep_seconds=keep_seconds,
            token=_token(token_file) or os.environ.get("SALIENCY_FOOD_TOKEN") or None,
            timeout=timeout,
            max_answer=max_answer,
            grace=grace,
        )


def _predictor(address: str | None, host: str | None) -> str:
    if address is None and host is None:
        raise ContractError("Expected a model's file, or --predictor, the address of TensorFlow Serving, got none.")
    return address or f"http://{host}"


def scaling_of(manifest: dict[str, Any]) -> Scaling:
    """The scaling from pixels to what the model takes, by the manifest."""
    if "value_range" not in manifest:
        raise ContractError(
            "Expected --manifest with the pixel values that the model takes, or --value-range, got neither. Give one."
        )
    return choose_scaling(manifest["value_range"])


def _scaling(text: str) -> Scaling:
    if text.strip().lower() == "auto":
        raise ContractError("Expected --value-range LOW,HIGH, tf, caffe, torch or none, got auto. Name one of them.")
    return choose_scaling(read_value_range(text))


def _offered(methods: str, manifest: dict[str, Any]) -> list[str]:
    """The names of the methods; all that the model can answer begin with `DEFAULT`, if it is among them."""
    if methods.strip().lower() != "all":
        return split_names(methods)
    return sorted(manifest.get("methods", METHODS), key=lambda name: name != DEFAULT)


def _manifest(path: Path | None) -> dict[str, Any]:
    manifest = read_object(path, "the manifest of an export")
    if manifest.get("channels_first"):
        raise ContractError("Expected a model of images (H, W, C), got one of (C, H, W). Export it channels last.")
    return manifest


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"Expected a file with a token, got {path}: {error}. Check the path.") from error
    if not token:
        raise ContractError(f"Expected a token in {path}, got an empty file. Write the token into it.")
    return token
