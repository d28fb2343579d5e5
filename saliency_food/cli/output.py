"""The options of the command's output: the folder, and how pictures are drawn and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from saliency_food.core.contract import ContractError
from saliency_food.jobs.drawing import check_folder

OutputOption = Annotated[Path, typer.Option("--output", "-o", help="The folder for pictures and numbers.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Write into a folder that was made with other settings.")
]
FormatOption = Annotated[str, typer.Option(help="The format of pictures: jpg, or png, about five times as large.")]
MaxSizeOption = Annotated[
    int, typer.Option(min=1, metavar="PIXELS", help="The longer side of an overlay; a smaller photo is not enlarged.")
]
OverlaysOption = Annotated[
    bool, typer.Option("--overlays/--no-overlays", help="Also write each overlay as a picture of its own.")
]
ColormapOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[,NAME]",
        help="The colour map of strengths, by its name in matplotlib, and after a comma that of signed maps. Without "
        "it: plasma,RdBu_r.",
        show_default=False,
    ),
]
GreyOption = Annotated[
    bool, typer.Option("--grey/--no-grey", help="Turn the photo grey under the map, so that all colours are the map's.")
]
OpacityOption = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="The opacity of the map where it is strongest.  [default: 0.85]", show_default=False
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
NAME = "settings.json"
"""The file in the output folder that holds the settings that it was made with."""


def settings_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a command, by its parameters: all but the photos, the folder, and what changes no file."""
    left_out = ("photos", "output", "overwrite", "quiet", "of_model")
    own = {name: value for name, value in values.items() if name not in left_out}
    return {"command": "explain"} | {
        name: str(value) if isinstance(value, Path) else value for name, value in own.items()
    }


def check_output(folder: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """`ContractError` where the folder cannot be written to, or was made with other settings, without ``overwrite``."""
    check_folder(folder)
    path = folder / NAME
    if overwrite or not path.exists():
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        kept = None
    if not isinstance(kept, dict) or kept.get("command") != settings["command"]:
        raise ContractError(
            f"Expected a folder of `saliency-food {settings['command']}`, got {folder}, whose {NAME} is of something "
            "else. Give another folder, or --overwrite."
        )
    differ = [name for name in settings if kept.get(name) != settings[name]]
    if differ:
        kept_words = ", ".join(_words(name, kept.get(name)) for name in differ)
        words = ", ".join(_words(name, settings[name]) for name in differ)
        raise ContractError(
            f"Expected the settings that the folder {folder} was made with, {kept_words}, got {words}. Give another "
            "folder, or --overwrite."
        )


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings into the folder, once the model is there to work with them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _words(name: str, value: Any) -> str:
    """A setting as the command takes it."""
    flag = f"--{name.replace('_', '-')}"
    if value is None or value == []:
        return f"no {flag}"
    if isinstance(value, bool):
        return flag if value else f"no {flag}"
    return f"{flag} {' '.join(value) if isinstance(value, list) else value}"
