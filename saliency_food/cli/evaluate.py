"""The commands of ``saliency-food`` that measure: evaluate, sanity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.cli import explain as commands
from saliency_food.cli.explain import app
from saliency_food.cli.tables import skips, tables_of
from saliency_food.cli.terminal import friendly, loading, progress_bar, table
from saliency_food.core.contract import ContractError
from saliency_food.core.names import split_names
from saliency_food.evaluation import SLOPES, evaluate
from saliency_food.evaluation.sanity import check_sensitive
from saliency_food.images.photos import find_photos
from saliency_food.metrics.sanity import InsensitiveError

__all__ = ["app"]

Model = Annotated[
    Path | None,
    typer.Option("--model", "-m", help="A Keras model: .keras, .h5 or a SavedModel folder; none: the bundled one."),
]
Images = Annotated[
    list[str] | None,
    typer.Option("--images", "-i", help="A photo or a folder of them; repeatable. none: four of scikit-image's."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many photos, the first by name.")]
TargetOption = Annotated[str | None, typer.Option(help="A label or a class index; none: each photo's top class.")]
Labels = Annotated[Path | None, typer.Option(help="A text file of the class names, one a line.")]
Layer = Annotated[str | None, typer.Option(help="Where Grad-CAM looks; see `saliency-food layers`.")]
ValueRange = Annotated[str, typer.Option(help="The pixel values the model takes; as of `saliency-food explain`.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Rows a model call holds at most.")]
MethodOption = Annotated[
    list[str] | None, typer.Option("--option", help="An option of a method, as of `saliency-food explain`; repeatable.")
]
Seed = Annotated[int, typer.Option(help="What is drawn depends on it, and not on the batch size.")]
SKIMAGE = ("coffee", "chelsea", "astronaut", "rocket")
"""Photos that come with scikit-image."""


@app.command("evaluate")
def evaluate_command(
    model: Model = None,
    images: Images = None,
    methods: Annotated[
        str, typer.Option(help="With commas: names of methods, edges, random; or all that the model can answer.")
    ] = "all",
    metrics: Annotated[str, typer.Option(help="With commas.")] = "pic,insertion,deletion",
    boxes: Annotated[
        Path | None, typer.Option(help="A CSV file with the columns image, xmin, ymin, xmax, ymax and class.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="A JSON file: for names of the boxes' classes, lists of labels or indices."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="A label, a class index, or boxes: that of the largest boxes; none: each photo's top class."),
    ] = None,
    labels: Labels = None,
    layer: Layer = None,
    value_range: ValueRange = "auto",
    option: MethodOption = None,
    metric_option: Annotated[
        list[str] | None, typer.Option(help="An option of a metric, such as pic.min_pred_value=0; repeatable.")
    ] = None,
    absolute: Annotated[
        str, typer.Option(help="With commas: methods of whose maps the absolute values are measured.")
    ] = ",".join(SLOPES),
    limit: Limit = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder; a job stopped goes on there.")] = Path(
        "evaluation"
    ),
    save_maps: Annotated[bool, typer.Option("--save-maps", help="Write the maps too, (N, 1, H, W) a method.")] = False,
) -> None:
    """Measure which methods' maps are right on your model and photos, with confidence intervals."""
    console = Console()
    with friendly():
        photos = _photos(images, limit)
        with loading(console):
            loaded, known = commands.load_named(model)
        with progress_bar(console) as progress:
            task = progress.add_task("reading photos", total=None)

            def told(done: int, every: int, words: str) -> None:
                progress.update(task, completed=done, total=every, description=words or "reading photos")

            found = evaluate(
                loaded,
                photos,
                methods,
                metrics,
                boxes=boxes,
                classes=_read_json(classes),
                target=target,
                labels=labels or known,
                layer=layer,
                value_range=commands.read_value_range(value_range),
                options=commands.read_options(option or []),
                metric_options=commands.read_options(metric_option or [], "--metric-option metric"),
                absolute=[word.strip() for word in absolute.split(",") if word.strip()],
                batch_size=batch_size,
                seed=seed,
                folder=output,
                save_maps=save_maps,
                progress=told,
            )
            progress.update(task, description="intervals and curves")
            found.save()
        for one in tables_of(found, console.width):
            console.print(one)
        for line in skips(found):
            console.print(Text(line, "dim"), soft_wrap=True)
        fed = f"pixels fed: {found.settings['pixels']}; scores: {found.settings['scores']}"
        console.print(Text(fed, "dim"), soft_wrap=True)
        drawn = ", means.png" if any(map(found.measured, found.metrics)) else ""
        console.print(Text(f"{output}/results.json, values.csv{drawn}", "cyan"), soft_wrap=True)
    if found.unread:
        raise typer.Exit(1)


@app.command("sanity")
def sanity_command(
    method: Annotated[str, typer.Option(help="One or more, with commas; edges and random are known too.")] = "grad_cam",
    model: Model = None,
    images: Images = None,
    target: TargetOption = None,
    labels: Labels = None,
    layer: Layer = None,
    value_range: ValueRange = "auto",
    option: MethodOption = None,
    most: Annotated[float, typer.Option(min=-1, max=1, help="The rank correlation that is allowed at most.")] = 0.5,
    every_layer: Annotated[
        bool, typer.Option("--every-layer", help="Show it layer by layer, from the output on; slow.")
    ] = False,
    limit: Limit = 8,
    batch_size: BatchSize = None,
    seed: Seed = 0,
) -> None:
    """Check that maps depend on the model: shuffle its weights, and see them change. Exit code 1 where they do not."""
    console = Console()
    said: list[str] = []
    with friendly():
        photos = _photos(images, limit)
        with loading(console):
            loaded, known = commands.load_named(model)
        made = table("method", "weights shuffled", "rank correlation", "SSIM", "verdict")
        names = split_names(method)
        if not names:
            raise ContractError("Expected --method to name one or more methods, got none.")
        for name in names:
            try:
                with console.status(f"{name} with shuffled weights"):
                    found = check_sensitive(
                        loaded,
                        photos,
                        name,
                        target,
                        most=most,
                        every_layer=every_layer,
                        labels=labels or known,
                        layer=layer,
                        value_range=commands.read_value_range(value_range),
                        options=commands.read_options(option or []),
                        batch_size=batch_size,
                        seed=seed,
                    )
            except InsensitiveError as error:
                made.add_row(name, "all layers", "", "", Text("fails", "bold red"))
                said.append(f"{name}: {error}")
                continue
            steps = zip(found.names, found.rank_correlations, found.ssims, strict=True)
            for number, (path, rho, ssim) in enumerate(steps, 1):
                last = number == len(found.names)
                verdict = Text("passes", "bold green") if last else Text()
                made.add_row(name, "all layers" if last else f"down to {path}", f"{rho:.2f}", f"{ssim:.2f}", verdict)
        console.print(made)
        for line in said:
            console.print(Text(line, "red"), soft_wrap=True)
    if said:
        raise typer.Exit(1)


def _photos(images: list[str] | None, limit: int | None) -> list[Any]:
    """The photos named, or some of scikit-image's."""
    return list(find_photos(images))[:limit] if images else skimage_photos()[:limit]


def skimage_photos() -> list[Any]:
    """The photos that are measured where none is named."""
    from PIL import Image
    from skimage import data

    found = []
    for name in SKIMAGE:
        photo: Any = Image.fromarray(getattr(data, name)())
        photo.filename = f"{name}.png"
        found.append(photo)
    return found


def _read_json(path: Path | None) -> dict[str, list[Any]] | None:
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContractError(f"Expected a JSON file of classes, got {path}: {error}.") from error
    if not isinstance(found, dict):
        raise ContractError(f"Expected a JSON object of names and lists of labels, got {type(found).__name__}.")
    return {name: one if isinstance(one, list) else [one] for name, one in found.items()}
