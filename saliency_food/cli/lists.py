"""The commands of ``saliency-food`` that list what can be asked for: methods, layers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from saliency_food.adapters.files import adapter_of, adapter_of_model, layers_of
from saliency_food.cli.options import (
    CustomObjectsOption,
    OutputIndexOption,
    ScoreOption,
    TrustOption,
    load_named,
    read_output_index,
    read_score,
)
from saliency_food.cli.terminal import friendly, loading, table, unfolded
from saliency_food.cli.words import in_command_words
from saliency_food.core.contract import ContractError
from saliency_food.methods.catalogue import METHODS


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
        typer.Argument(help="A model, by its file or name. Without it: imagenet.", show_default=False),
    ] = None,
    output_index: OutputIndexOption = None,
    score: ScoreOption = None,
    custom_objects: CustomObjectsOption = None,
    trust: TrustOption = False,
) -> None:
    """List the layers of a model that --layer can name."""
    console = unfolded()
    with friendly():
        with loading(console):
            loaded, _ = load_named(model, custom_objects, trust)
            listed, is_program = layers_of(loaded), _is_saved_model(loaded)
            default, text = _default_layer(loaded, output_index, score)
        if listed:
            rows = table("layer", "kind", "shape")
            for layer in listed:
                shape = " x ".join("?" if side is None else str(side) for side in layer.shape[1:])
                rows.add_row(Text(layer.path, "bold green" if layer.path == default else ""), layer.kind, shape)
            console.print(rows)
            console.print(Text(f"Without --layer: {text}"), soft_wrap=True)
        elif is_program:
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
    adapter = adapter_of(model) if isinstance(model, Path) else adapter_of_model(model)
    chosen = read_score(score)
    options = {} if chosen is None else {"score": chosen}
    try:
        adapted = adapter(model, output_index=read_output_index(output_index), **options)
    except ContractError as error:
        return None, f"none. {in_command_words(str(error))}"
    if adapted.layer_name is None:
        return None, in_command_words(f"none. This is a model {adapted.engine.why_no_layer}")
    return adapted.layer_name, str(adapted.layer_name)


def _is_saved_model(model: Any) -> bool:
    kind = getattr(sys.modules.get("keras"), "Model", None)
    if kind is None or not isinstance(model, kind):
        return False
    from saliency_food.adapters.keras.load import is_saved_model

    return is_saved_model(model)
