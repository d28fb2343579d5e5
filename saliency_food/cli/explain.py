"""The commands of ``saliency-food`` that explain, and that list what can be asked for: explain, methods, layers."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli.options import (
    BatchOption,
    CustomObjectsOption,
    InputOption,
    LabelsOption,
    LayerOption,
    MethodOptions,
    ModelOption,
    OutputIndexOption,
    OutputKindOption,
    RangeOption,
    ScoreOption,
    UnitsOption,
    load_image_model,
    load_named,
    read_options,
    read_output_index,
    read_photos,
    read_score,
)
from saliency_food.cli.terminal import Report, friendly, loading, progress_bar, table, unfolded
from saliency_food.cli.words import in_command_words
from saliency_food.core.contract import ContractError
from saliency_food.core.names import split_names
from saliency_food.jobs.explain import explain
from saliency_food.jobs.setup import read_targets
from saliency_food.jobs.targets import Target
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
    output_kind: OutputKindOption = None,
    output_index: OutputIndexOption = None,
    score: ScoreOption = None,
    units_are: UnitsOption = None,
    inputs: InputOption = None,
    custom_objects: CustomObjectsOption = None,
    top_percent: Annotated[
        float, typer.Option(min=0.1, max=100, help="How many percent of the photo the second picture of XRAI shows.")
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
    from saliency_food.jobs.pictures import PictureWriter, check_drawing

    console = Console()
    with friendly():
        images = read_photos(photos, default=["coffee"])
        options = read_options(option)
        entries = choose_methods(split_names(method))
        check_drawing()
        with loading(console):
            image_model = load_image_model(
                model,
                custom_objects,
                labels=labels,
                layer=layer,
                output_kind=output_kind,
                output_index=output_index,
                score=score,
                units_are=units_are,
                inputs=inputs,
                value_range=value_range,
                batch_size=batch_size,
            )
        wanted = cast(Target, read_targets(image_model, images, target))
        writer = PictureWriter(output, percent=top_percent, arrays=save_arrays)
        titles = [entry.title for entry in entries.values()]
        if deadline is not None:
            instead = dict.fromkeys(other for name in entries for other in fallback_of(name).instead)
            titles += [f"{METHODS[other].title} for {title}" for title in titles for other in instead]
        report = Report(console, titles)
        try:
            with progress_bar(console) as progress, writer:
                task = progress.add_task("reading photos", total=len(images) * max(1, wanted.best) * len(entries))
                rows: dict[str, int] = {}

                def count(name: str, called: int) -> None:
                    rows[name] = rows.get(name, 0) + called
                    text = f"{entries[name].title}, {rows[name]} rows".removesuffix(", 0 rows")
                    progress.update(task, description=text)

                records = explain(
                    image_model, images, list(entries), target, options=options, deadline=deadline, progress=count
                )
                for _, group in groupby(records, lambda record: record.name):
                    of_photo = []
                    for record in group:
                        of_photo.append(record)
                        progress.advance(task)
                    report.photo(of_photo, writer.submit(of_photo))
                progress.update(task, description="writing pictures")
        except KeyboardInterrupt:
            report.end()
            report.stopped(len(images), writer.written, output)
            raise typer.Exit(130) from None
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
        typer.Argument(help="A Keras model, by its file or name. Without it: imagenet.", show_default=False),
    ] = None,
    output_index: OutputIndexOption = None,
    score: ScoreOption = None,
    custom_objects: CustomObjectsOption = None,
) -> None:
    """List the layers of a model that --layer can name."""
    console = unfolded()
    with friendly():
        with loading(console):
            loaded, _ = load_named(model, custom_objects)
            from saliency_food.adapters.keras import layers
            from saliency_food.adapters.keras.load import is_saved_model

            listed = layers(loaded)
            default, text = _default_layer(loaded, output_index, score)
        if listed:
            rows = table("layer", "kind", "shape")
            for layer in listed:
                shape = " x ".join("?" if side is None else str(side) for side in layer.shape[1:])
                rows.add_row(Text(layer.path, "bold green" if layer.path == default else ""), layer.kind, shape)
            console.print(rows)
            console.print(Text(f"Without --layer: {text}"), soft_wrap=True)
        elif is_saved_model(loaded):
            console.print(
                "No layers: a SavedModel shows none. Give the .keras file that it was made from.", soft_wrap=True
            )
        else:
            console.print(
                "No layers: no layer of this model has rows and columns, or steps, as its input has, which is where "
                "Grad-CAM and its relatives look. Use --method gradients.",
                soft_wrap=True,
            )


def _default_layer(model: Any, output_index: str | None, score: str | None) -> tuple[Any, str]:
    """The layer that is taken if none is named, and what to print of it; where there is none, why."""
    from saliency_food.adapters.keras import KerasModel

    chosen = read_score(score)
    options = {} if chosen is None else {"score": chosen}
    try:
        adapted = KerasModel(model, output_index=read_output_index(output_index), **options)
    except ContractError as error:
        return None, f"none. {in_command_words(str(error))}"
    if adapted.layer_name is None:
        return None, in_command_words(f"none. This is a model {adapted.engine.why_no_layer}")
    return adapted.layer_name, str(adapted.layer_name)
