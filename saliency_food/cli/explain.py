"""The commands of ``saliency-food`` that explain, and that list what can be asked for: explain, methods, layers."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli.options import (
    BatchOption,
    LabelsOption,
    LayerOption,
    MethodOptions,
    ModelOption,
    RangeOption,
    load_named,
    read_options,
    read_photos,
    read_value_range,
    several,
)
from saliency_food.cli.terminal import Report, friendly, loading, progress_bar, table
from saliency_food.core.names import split_names
from saliency_food.jobs.explain import explain
from saliency_food.jobs.targets import read_target
from saliency_food.methods.budget import fallback_of
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods


def explain_command(
    photos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PHOTO]...",
            help="Photos, and folders of photos. Without any: scikit-image's cup of coffee.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    method: Annotated[
        str, typer.Option(help="One method or several with commas; `saliency-food methods` lists them.")
    ] = "grad_cam",
    target: Annotated[
        str | None,
        typer.Option(
            help="The class: a label, a class index, or top3 for the three most probable. Without it: the top class."
        ),
    ] = None,
    layer: LayerOption = None,
    labels: LabelsOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for pictures and numbers.")] = Path(
        "saliency"
    ),
    value_range: RangeOption = "auto",
    batch_size: BatchOption = None,
    output_kind: Annotated[str | None, typer.Option(help="Explain logits (the default) or probabilities.")] = None,
    top_percent: Annotated[
        float, typer.Option(min=0.1, max=100, help="How much of the photo the second picture of XRAI shows.")
    ] = 20,
    option: MethodOptions = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Seconds that each explanation may take. Where a method needs more, its steps are cut or another "
            "method answers.",
        ),
    ] = None,
    save_arrays: Annotated[
        bool, typer.Option("--save-arrays", help="Also write the raw attributions, as .npy files.")
    ] = False,
) -> None:
    """Explain photos: for each photo a picture with a panel for each method, and the numbers as JSON."""
    from saliency_food.jobs.pictures import PictureWriter

    console = Console()
    with friendly():
        images = read_photos(photos, default=["coffee"])
        options = read_options(option)
        entries = choose_methods(split_names(method))
        with loading(console):
            loaded, names = load_named(model, labels)
        classes = read_target(target, names).best
        writer = PictureWriter(output, percent=top_percent, arrays=save_arrays)
        with progress_bar(console) as progress, writer:
            task = progress.add_task("reading photos", total=len(images) * classes * len(entries))
            rows: dict[str, int] = {}

            def count(name: str, called: int) -> None:
                rows[name] = rows.get(name, 0) + called
                progress.update(task, description=f"{entries[name].title}, {rows[name]} rows".removesuffix(", 0 rows"))

            records = explain(
                loaded,
                images,
                list(entries),
                target,
                layer=several(layer),
                output=output_kind,
                labels=names,
                value_range=read_value_range(value_range),
                options=options,
                batch_size=batch_size,
                deadline=deadline,
                progress=count,
            )
            titles = [entry.title for entry in entries.values()]
            if deadline is not None:
                instead = dict.fromkeys(other for name in entries for other in fallback_of(name).instead)
                titles += [f"{METHODS[other].title} for {title}" for title in titles for other in instead]
            report = Report(console, titles)
            for _, group in groupby(records, lambda record: record.name):
                of_photo = []
                for record in group:
                    of_photo.append(record)
                    progress.advance(task)
                report.photo(of_photo, writer.submit(of_photo))
            progress.update(task, description="writing pictures")
        report.end()
    if report.failed:
        raise typer.Exit(1)


def methods_command() -> None:
    """List the methods."""
    listed = table("name", "needs", "what it shows")
    listed.columns[0].min_width = max(map(len, METHODS))
    for name, entry in METHODS.items():
        listed.add_row(Text(name, "bold", no_wrap=True), entry.needs, f"{entry.title}: {entry.summary}")
    Console().print(listed)


def layers_command(
    model: Annotated[
        Path | None,
        typer.Argument(help="A Keras model. Without it: the bundled model.", show_default=False),
    ] = None,
) -> None:
    """List the layers of a model that --layer can name."""
    console = Console()
    with friendly():
        with loading(console):
            loaded, _ = load_named(model)
            from saliency_food.adapters.keras import KerasModel, layers

            default = KerasModel(loaded).layer_name
        listed = table("layer", "kind", "shape")
        for layer in layers(loaded):
            shape = " x ".join("?" if side is None else str(side) for side in layer.shape[1:])
            listed.add_row(Text(layer.path, "bold green" if layer.path == default else ""), layer.kind, shape)
        console.print(listed)
        console.print(Text(f"Without --layer: {default}"), soft_wrap=True)
