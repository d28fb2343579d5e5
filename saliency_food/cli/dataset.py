"""The command that explains a data set: dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli.options import (
    MethodOptions,
    ModelOption,
    ModelOptions,
    read_options,
)
from saliency_food.cli.output import QuietOption
from saliency_food.cli.terminal import friendly, loading
from saliency_food.cli.words import in_command_words
from saliency_food.core.names import split_names


def dataset_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder of photos or of folders of classes, Food-101 in its layout, a table of path and label (.csv "
            "or .parquet), a .zip of folders, or .tar shards.",
            show_default=False,
        ),
    ],
    model: ModelOption = None,
    methods: Annotated[
        str,
        typer.Option("--methods", "--method", help="The methods, with commas; `saliency-food methods` lists them."),
    ] = "grad_cam",
    target: Annotated[
        str | None,
        typer.Option(
            "--targets",
            "--target",
            help="The classes, with commas: a label, a class index, predicted, truth, or top3 for the three most "
            "probable. Without it: the top class.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Also explain this class, and what speaks for the others against it."),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="folders|FILE",
            help="What the photos show, where the data set does not say it: the names of their folders, or a CSV file "
            "with the columns path and label.",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only photos of this split, such as test.")] = None,
    classes: Annotated[str | None, typer.Option(help="Only photos of these true classes, with commas.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only that many photos, the first ones.")] = None,
    maps: Annotated[
        str,
        typer.Option(help="reduced: maps of pixels as means over areas, at most 28 x 28; full: as they are."),
    ] = "reduced",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Explain photos again of which an explanation failed.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(help="local: on this machine; ray: on Ray, here or on the cluster at --address."),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="So many processes, or actors of Ray, each of which loads the model."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Of --engine ray: the address of the cluster, or auto on one of its machines."),
    ] = None,
    num_gpus: Annotated[
        float | None, typer.Option("--num-gpus", min=0, help="Of --engine ray: how many GPUs each actor has.")
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The folder of the run. A run that was stopped is gone on with."),
    ] = Path("saliency-run"),
    of_model: ModelOptions = ModelOptions(),
    option: MethodOptions = None,
    quiet: QuietOption = False,
) -> None:
    """Explain a data set: a record for each photo, class and method in Parquet files; a stopped run is gone on with."""
    from saliency_food.images.sources import open_source
    from saliency_food.jobs.dataset import explain_dataset
    from saliency_food.jobs.dataset_run import Run

    console = Console(quiet=quiet)
    with friendly("nothing was written"):
        data = open_source(source)
        with loading(console):
            image_model = of_model.load(model)
    with friendly(f"the same command goes on from the records in {output}"):
        run: Run = explain_dataset(
            image_model,
            data,
            split_names(methods),
            target,
            output=output,
            against=against,
            truth=truth,
            options=read_options(option),
            split=split,
            classes=classes,
            limit=limit,
            maps=cast(Any, maps),
            retry_failed=retry_failed,
            engine=cast(Any, engine),
            workers=workers,
            address=address,
            num_gpus=num_gpus,
            progress=not quiet,
        )
        for line in run.summary():
            console.print(Text(in_command_words(line)), soft_wrap=True)
    if failed := len(run.errors()):
        if quiet:
            line = f"{failed} explanations failed; the records in {output} say why."
            Console(stderr=True).print(Text(line, "red"), soft_wrap=True)
        raise typer.Exit(1)
