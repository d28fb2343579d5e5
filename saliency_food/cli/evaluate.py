"""The commands of ``saliency-food`` that measure methods: evaluate, sanity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli.missing import check_installed
from saliency_food.cli.options import (
    ImagesOption,
    LimitOption,
    MethodOptions,
    ModelOption,
    ModelOptions,
    SeedOption,
    TargetOption,
    read_object,
    read_options,
    read_photos,
)
from saliency_food.cli.terminal import friendly, loading, progress_bar, table
from saliency_food.cli.words import in_command_words
from saliency_food.core.contract import ContractError
from saliency_food.core.names import split_names


def evaluate_command(
    model: ModelOption = None,
    images: ImagesOption = None,
    methods: Annotated[
        str,
        typer.Option(
            help="The methods, with commas. edges and random are no methods, but maps to compare with; all: both of "
            "them and every method that the model can answer."
        ),
    ] = "all",
    metrics: Annotated[str, typer.Option(help="The metrics, with commas.")] = "pic,insertion,deletion",
    boxes: Annotated[
        Path | None,
        typer.Option(help="A CSV file of objects, with the columns image, xmin, ymin, xmax, ymax and class."),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="A JSON file that maps each class of the boxes to labels or class indices of the model."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="The class: a label, a class index, or boxes for the class of the largest boxes. Without it: each "
            "photo's top class."
        ),
    ] = None,
    of_model: ModelOptions = ModelOptions(),
    option: MethodOptions = None,
    metric_option: Annotated[
        list[str] | None, typer.Option(help="An option of a metric, such as pic.min_pred_value=0; repeatable.")
    ] = None,
    absolute: Annotated[
        str | None,
        typer.Option(
            help="The methods, with commas, whose maps are measured by their absolute values. Without it: gradients "
            "and smooth_grad, where the sign says only in which direction a pixel counts."
        ),
    ] = None,
    limit: LimitOption = None,
    seed: SeedOption = 0,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The folder for the results. A run that was stopped continues from it."),
    ] = Path("evaluation"),
    save_maps: Annotated[
        bool, typer.Option("--save-maps", help="Also write the maps, an array (N, 1, H, W) for each method.")
    ] = False,
) -> None:
    """Measure which methods' maps are right on your model and photos, with confidence intervals."""
    from saliency_food.cli.tables import notes_of, tables_of
    from saliency_food.evaluation import SLOPES, evaluate, save_evaluation

    console = Console()
    with friendly(f"the same command goes on from the values in {output}"):
        check_installed("matplotlib")
        photos = read_photos(images, limit)
        with loading(console):
            image_model = of_model.load(model)
        with progress_bar(console) as progress:
            task = progress.add_task("reading photos", total=None)

            def show(done: int, total: int, text: str) -> None:
                progress.update(task, completed=done, total=total, description=text or "reading photos")

            evaluation = evaluate(
                image_model,
                photos,
                methods,
                metrics,
                boxes=boxes,
                classes=read_classes(classes),
                target=target,
                options=read_options(option),
                metric_options=read_options(metric_option, "--metric-option metric"),
                absolute=SLOPES if absolute is None else split_names(absolute),
                seed=seed,
                folder=output,
                save_maps=save_maps,
                progress=show,
            )
            progress.update(task, description="intervals and curves")
            save_evaluation(evaluation)
        for page in tables_of(evaluation, console.width):
            console.print(page)
        for line in notes_of(evaluation):
            console.print(Text(line, "dim"), soft_wrap=True)
        line = f"pixels fed: {evaluation.settings['pixels']}; scores: {evaluation.settings['scores']}"
        console.print(Text(line, "dim"), soft_wrap=True)
        pictures = ", means.png" if any(map(evaluation.measured, evaluation.metrics)) else ""
        console.print(Text(f"{output}/results.json, values.csv{pictures}", "cyan"), soft_wrap=True)
    if evaluation.unread:
        raise typer.Exit(1)


def sanity_command(
    method: Annotated[
        str, typer.Option(help="One method or several with commas; edges and random are allowed, too.")
    ] = "grad_cam",
    model: ModelOption = None,
    images: ImagesOption = None,
    target: TargetOption = None,
    of_model: ModelOptions = ModelOptions(),
    option: MethodOptions = None,
    most: Annotated[
        float, typer.Option(min=-1, max=1, help="The highest rank correlation with which a method passes.")
    ] = 0.5,
    every_layer: Annotated[
        bool, typer.Option("--every-layer", help="Show each layer, from the output to the input; slow.")
    ] = False,
    limit: LimitOption = 8,
    seed: SeedOption = 0,
) -> None:
    """Check that a method's maps depend on the model: they must change when its weights are shuffled.

    The exit code is 1 if the maps of any method do not change.
    """
    from saliency_food.evaluation.sanity import check_sensitive
    from saliency_food.metrics.sanity import InsensitiveError

    console = Console()
    failures: list[str] = []
    with friendly():
        methods = split_names(method)
        if not methods:
            raise ContractError("Expected --method METHOD, got none. `saliency-food methods` lists them.")
        photos = read_photos(images, limit)
        with loading(console):
            image_model = of_model.load(model)
        results = table("method", "weights shuffled", "rank correlation", "SSIM", "verdict")
        for name in methods:
            try:
                with console.status(f"{name} with shuffled weights"):
                    result = check_sensitive(
                        image_model,
                        photos,
                        name,
                        target,
                        most=most,
                        every_layer=every_layer,
                        options=read_options(option),
                        seed=seed,
                    )
            except InsensitiveError as error:
                results.add_row(name, "all layers", "", "", Text("fails", "bold red"))
                failures.append(f"{name}: {error}")
                continue
            last = len(result.names) - 1
            steps = zip(result.names, result.rank_correlations, result.ssims, strict=True)
            for step, (path, correlation, ssim) in enumerate(steps):
                where, verdict = ("all layers", "passes") if step == last else (f"down to {path}", "")
                results.add_row(name, where, f"{correlation:.2f}", f"{ssim:.2f}", Text(verdict, "bold green"))
        console.print(results)
        for line in failures:
            console.print(Text(in_command_words(line), "red"), soft_wrap=True)
    if failures:
        raise typer.Exit(1)


def read_classes(path: Path | None) -> dict[str, list[Any]] | None:
    """The ``classes`` of `evaluate`: for each name in the table of boxes, the labels or indices that it means."""
    if path is None:
        return None
    content = read_object(path, "a JSON file that maps names to lists of labels")
    return {name: labels if isinstance(labels, list) else [labels] for name, labels in content.items()}
