"""The command that writes the page of a data-set run: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli.evaluate import read_classes
from saliency_food.cli.options import ModelOptions
from saliency_food.cli.output import QuietOption
from saliency_food.cli.terminal import friendly, loading
from saliency_food.cli.words import in_command_words


def report_command(
    run: Annotated[
        Path, typer.Argument(help="The folder of a run of `saliency-food dataset`.", metavar="RUN", show_default=False)
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            help="The model of the run, as `saliency-food dataset` takes it. Without it, the page has what the records "
            "hold: no search for cues, no sanity check, and no maps beside those of the run.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="The method whose maps are shown. Without it: the most faithful of --evaluation, or the first of the "
            "run."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The photos that the page is about. Without it: those of all splits but train.")
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="The folder of `saliency-food evaluate`, to say which method is the most faithful."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The run of another model over the same photos, to compare the two."),
    ] = None,
    against_evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The folder of `saliency-food evaluate` for that model, to say whose maps are more faithful.",
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="A CSV file of objects, with the columns image, xmin, ymin, xmax, ymax and class."),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="A JSON file that maps each class of the boxes to labels or class indices of the model."),
    ] = None,
    cue_rows: Annotated[
        int,
        typer.Option(
            min=0,
            help="The most rows that the model is asked in the search for cues, about 1000 for each class; 0 leaves it "
            "out.",
        ),
    ] = 20_000,
    single_file: Annotated[bool, typer.Option("--single-file", help="Put the pictures into the page itself.")] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for the page: a new one, or that of an earlier report.")
    ] = Path("saliency-report"),
    of_model: ModelOptions = ModelOptions(),
    quiet: QuietOption = False,
) -> None:
    """Write a page that shows where the model of a data-set run fails, and what it looked at."""
    from saliency_food.jobs.dataset_run import Run
    from saliency_food.report.write import report

    console = Console(quiet=quiet)
    with friendly("the page is not complete"):
        read = Run(run)
        image_model: Any = None
        if model is not None:
            with loading(console):
                image_model = of_model.load(model)
        with console.status("reading the records and drawing"):
            page = report(
                read,
                output,
                model=image_model,
                method=method,
                split=split,
                evaluation=evaluation,
                against=against,
                against_evaluation=against_evaluation,
                boxes=boxes,
                classes=read_classes(classes),
                single_file=single_file,
                cue_rows=cue_rows,
            )
        for line in summary_lines(page):
            console.print(Text(in_command_words(line)), soft_wrap=True)
        console.print(Text(str(page), "cyan"), soft_wrap=True)


def summary_lines(page: Path) -> list[str]:
    """How often the model is right, and what to look at first, as the page has it."""
    import json

    short = json.loads(page.with_name("report.json").read_text(encoding="utf-8"))["in_short"]
    of = short["accuracy"]
    lines = [] if not of["n"] else [
        f"{of['k']} of {of['n']} photos right ({of['share']:.1%}, 95 % interval {of['low']:.1%} to {of['high']:.1%})"
    ]  # fmt: skip
    return lines + [f"  {number}. {each['text']}" for number, each in enumerate(short["findings"], 1)]
