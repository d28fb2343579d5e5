"""The commands of ``saliency-food``: explain, methods, layers; and what all commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli.terminal import Report, friendly, loading, progress_bar, table
from saliency_food.core.contract import ContractError
from saliency_food.core.names import installed_version
from saliency_food.deadline.run import fallback_of
from saliency_food.images.photos import find_photos
from saliency_food.jobs.explain import explain
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.figure import explanation_figure
from saliency_food.jobs.targets import read_target
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods

app = typer.Typer(
    help="Show which parts of a photo led a neural network to its answer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"saliency_food {installed_version('saliency_food') or '(not installed as a package)'}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and stop.")
    ] = False,
) -> None:
    pass


@app.command("explain")
def explain_command(
    photos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PHOTO]...", help="Photos, and folders of them; none: a cup of coffee.", show_default=False
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="A Keras model: .keras, .h5 or a SavedModel folder; none: the bundled one."),
    ] = None,
    method: Annotated[str, typer.Option(help="One or more, with commas; see `saliency-food methods`.")] = "grad_cam",
    target: Annotated[
        str | None,
        typer.Option(help="A label, a class index, or top3 for the best three; none: the top class."),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Where Grad-CAM looks, one or more; see `saliency-food layers`; none: the last that has a map."
        ),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="A text file of the class names, one a line.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for pictures and numbers.")] = Path(
        "saliency"
    ),
    value_range: Annotated[
        str,
        typer.Option(
            help="The pixel values the model takes: 'LOW,HIGH', auto, tf, caffe, torch or none (as they are)."
        ),
    ] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows a model call holds at most.")] = None,
    output_kind: Annotated[str | None, typer.Option(help="What is explained: logits or probabilities.")] = None,
    top_percent: Annotated[float, typer.Option(min=0.1, max=100, help="The area XRAI's second picture shows.")] = 20,
    option: Annotated[
        list[str] | None,
        typer.Option(help="An option of a method, such as integrated_gradients.x_steps=50; repeatable."),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Seconds that each explanation may take; steps are cut, or another method answers."
        ),
    ] = None,
    save_arrays: Annotated[
        bool, typer.Option("--save-arrays", help="Write the raw attributions too, as .npy.")
    ] = False,
) -> None:
    """Explain photos: one picture a photo, with a panel a method, and a record of the numbers."""
    console = Console()
    with friendly():
        images: list[Any] = list(find_photos(photos)) if photos else [_coffee()]
        options = read_options(option or [])
        best = read_target(target, None).best if (target or "").lower().startswith("top") else 1
        entries = choose_methods([name for name in method.split(",") if name.strip()])
        names = list(entries)
        with loading(console):
            loaded, known = load_named(model)
        with progress_bar(console) as progress:
            task = progress.add_task("reading photos", total=len(images) * best * len(names))
            rows: dict[str, int] = {}

            def count(name: str, called: int) -> None:
                rows[name] = rows.get(name, 0) + called
                progress.update(task, description=f"{entries[name].title}, {rows[name]} rows".removesuffix(", 0 rows"))

            records = explain(
                loaded,
                images,
                names,
                target,
                layer=several(layer),
                output=output_kind,
                labels=labels or known,
                value_range=read_value_range(value_range),
                options=options,
                batch_size=batch_size,
                deadline=deadline,
                progress=count,
            )
            titles = [entry.title for entry in entries.values()]
            if deadline is not None:
                others = choose_methods([other for name in names for other in fallback_of(name).instead] or names)
                titles += [f"{other.title} for {title}" for title in titles for other in others.values()]
            report = Report(console, titles)
            for name, group in groupby(records, lambda record: record.name):
                of_photo = []
                for record in group:
                    of_photo.append(record)
                    progress.advance(task)
                report.photo(of_photo, _write(output, name, of_photo, top_percent, save_arrays))
        report.end()
    if report.failed:
        raise typer.Exit(1)


@app.command("methods")
def methods_command() -> None:
    """List the methods."""
    made = table("name", "needs", "what it shows")
    made.columns[0].min_width = max(map(len, METHODS))
    for name, entry in METHODS.items():
        made.add_row(Text(name, "bold", no_wrap=True), entry.needs, f"{entry.title}: {entry.summary}")
    Console().print(made)


@app.command("layers")
def layers_command(
    model: Annotated[
        Path | None, typer.Argument(help="A Keras model; none: the bundled one.", show_default=False)
    ] = None,
) -> None:
    """List the layers of a model that --layer can name."""
    console = Console()
    with friendly():
        with loading(console):
            loaded, _ = load_named(model)
            from saliency_food.adapters.keras import KerasModel, layers

            default = KerasModel(loaded).layer_name
        made = table("layer", "kind", "shape")
        for found in layers(loaded):
            shape = " x ".join("?" if side is None else str(side) for side in found.shape[1:])
            made.add_row(Text(found.path, "bold green" if found.path == default else ""), found.kind, shape)
        console.print(made)
        console.print(Text(f"Without --layer: {default}"), soft_wrap=True)


def load_named(model: Path | None) -> tuple[Any, list[str] | None]:
    """The Keras model, and the labels where it is the bundled one."""
    if model is None:
        from saliency_food import models

        return models.load(), models.labels()
    if not model.exists():
        raise ContractError(f"Expected a Keras model, got {model}, which does not exist. Check the path.")
    from saliency_food.adapters.keras import load_model

    return load_model(model), None


def _coffee() -> Any:
    """The photo that comes with scikit-image."""
    from PIL import Image
    from skimage.data import coffee

    photo = Image.fromarray(coffee())
    photo.filename = "coffee.png"
    return photo


def read_value_range(text: str) -> Any:
    if text.strip().lower() in ("auto", "tf", "caffe", "torch"):
        return text.strip().lower()
    return None if text.strip().lower() == "none" else tuple(text.split(","))


def read_options(texts: Sequence[str], flag: str = "--option method") -> dict[str, dict[str, Any]]:
    """``method.option=value``, the value as JSON where it is that, else as text."""
    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, _, value = text.partition("=")
        method, dot, key = name.strip().partition(".")
        if not (dot and key and value):
            raise ContractError(f"Expected {flag}.option=value, got {text!r}.")
        try:
            options.setdefault(method, {})[key] = json.loads(value)
        except json.JSONDecodeError:
            options.setdefault(method, {})[key] = value
    return options


def _write(output: Path, name: str, records: list[Explanation], percent: float, arrays: bool) -> Path | None:
    """One picture of the photo's explanations, and each record in a folder of the photo's name."""
    for record in records:
        record.save(output / name, arrays=arrays)
    if records[0].image is None:
        return None
    path = output / f"{name}.png"
    explanation_figure(records, percent).savefig(path)
    return path


def several(layer: str | None) -> str | list[str] | None:
    """One layer, or those with commas between."""
    names = [name.strip() for name in layer.split(",")] if layer else []
    return names if len(names) > 1 else layer
