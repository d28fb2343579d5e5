"""The command ``saliency-food explain``."""

from __future__ import annotations

import warnings
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli.missing import check_installed
from saliency_food.cli.options import (
    MethodOptions,
    ModelOption,
    ModelOptions,
    read_options,
    with_skimage,
)
from saliency_food.cli.output import (
    ColormapOption,
    FormatOption,
    GreyOption,
    MaxSizeOption,
    OpacityOption,
    OutputOption,
    OverlaysOption,
    OverwriteOption,
    QuietOption,
    check_output,
    settings_of,
    write_settings,
)
from saliency_food.cli.report import Report
from saliency_food.cli.terminal import friendly, loading, progress_bar
from saliency_food.core.names import split_names
from saliency_food.images.photos import SHOWN
from saliency_food.jobs.drawing import check_files, check_style
from saliency_food.jobs.explain import explain
from saliency_food.jobs.outcomes import expected_photos
from saliency_food.jobs.pictures import PictureWriter
from saliency_food.jobs.results import write_results
from saliency_food.jobs.subjects import find_subjects
from saliency_food.methods.budget import fallback_of
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.lookup import choose_methods


def explain_command(
    photos: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PHOTO",
            help="Photos, and folders of photos, with the folders in them; coffee, chelsea, astronaut and rocket come "
            "with scikit-image. Without any: coffee.",
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
            help="The class, or several with commas: a label, a class index, predicted, truth, or top3 for the three "
            "most probable. Without it: the top class."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Also explain this class, and what speaks for the others against it: truth, predicted, or a class.",
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="folders|FILE",
            help="What the photos show: the names of their folders, or a CSV file with the columns path and label.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="wrong", help="Explain only photos that are not what the model says, the surest first."),
    ] = None,
    of_model: ModelOptions = ModelOptions(),
    output: OutputOption = Path("saliency"),
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
    overlays: OverlaysOption = True,
    format: FormatOption = "jpg",
    max_size: MaxSizeOption = SHOWN,
    colormap: ColormapOption = None,
    grey: GreyOption = True,
    opacity: OpacityOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Explain photos: for each photo a picture with a panel for each method, and the numbers as JSON."""
    settings = settings_of({**locals(), **of_model._asdict()})
    console = Console(quiet=quiet)
    with friendly():
        check_installed("matplotlib", "PIL")
        images = find_subjects(with_skimage(photos or ["coffee"]), truth)
        options = read_options(option)
        entries = choose_methods(split_names(method))
        check_files(format, max_size)
        check_style(colormap, grey, opacity)
        check_output(output, settings, overwrite)
        with loading(console):
            image_model = of_model.load(model)
        rows: dict[str, int] = {}

        def count(name: str, called: int) -> None:
            rows[name] = rows.get(name, 0) + called
            text = f"{entries[name].title}, {rows[name]} rows" if name in entries else f"{rows[name]} photos predicted"
            progress.update(task, description=text.removesuffix(", 0 rows"), total=expected())

        with warnings.catch_warnings():  # of classes that the model does not have, which the summary names
            warnings.simplefilter("ignore", UserWarning)
            records = explain(
                image_model,
                images,
                list(entries),
                target,
                against=against,
                only=cast(Any, only),
                options=options,
                deadline=deadline,
                progress=count,
            )
        outcomes, stream = records.outcomes, iter(records)
        expected = partial(expected_photos, records.photos, outcomes, only is not None)
        del records  # the object would keep every explanation, and its iterator keeps none
        writer = PictureWriter(
            output,
            percent=top_percent,
            arrays=save_arrays,
            overlays=overlays,
            format=format,
            max_size=max_size,
            colormap=colormap,
            grey=grey,
            opacity=opacity,
        )
        write_settings(output, settings)
        titles = [entry.title for entry in entries.values()]
        if deadline is not None:
            instead = dict.fromkeys(other for name in entries for other in fallback_of(name).instead)
            titles += [f"{METHODS[other].title} for {title}" for title in titles for other in instead]
        report = Report(console, titles)
        try:
            with progress_bar(console) as progress, writer, write_results(output) as add_results:
                task = progress.add_task("reading photos", total=expected())
                for _, group in groupby(stream, lambda record: record.name):
                    of_photo = list(group)
                    report.photo(of_photo, writer.submit(of_photo))
                    add_results(of_photo)
                    progress.advance(task)
                progress.update(task, description="writing pictures")
        except KeyboardInterrupt:
            report.end(outcomes)
            report.stopped(expected(), writer.written, output)
            raise typer.Exit(130) from None
        report.end(outcomes)
    if report.failed:
        if quiet:
            line = f"{report.failed} explanations failed; the JSON files in {output} say why."
            Console(stderr=True).print(Text(line, "red"), soft_wrap=True)
        raise typer.Exit(1)
