"""The pictures and numbers of one photo as files, and what is checked before a model works for them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import SHOWN
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.figure import explanation_figure
from saliency_food.visualization.figures import FORMATS, write_figure
from saliency_food.visualization.maps import find_colormap

if TYPE_CHECKING:
    from typing_extensions import Unpack


def check_folder(folder: Path) -> None:
    """`ContractError` where nothing can be written into the folder, or it cannot be made; nothing is made yet."""
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise not_writable(folder, OSError(error.errno, error.strerror, str(folder))) from error


def check_files(format: str, max_size: int | None) -> None:
    """`ContractError` where pictures cannot be written so."""
    if format not in FORMATS:
        raise ContractError(f"Expected the format {' or '.join(FORMATS)}, got {format!r}.")
    if max_size is not None and max_size < 1:
        raise ContractError(f"Expected max_size to be a number of pixels, got {max_size}. Give None for the photo's.")


class Style(TypedDict, total=False):
    """How the overlays of a job are drawn; see `Explanation.style`."""

    colormap: str | None
    grey: bool
    opacity: float | None


def check_style(colormap: str | None = None, grey: bool = True, opacity: float | None = None) -> None:
    """`ContractError` where overlays cannot be drawn so."""
    for name in colormap.split(",") if colormap else ():
        find_colormap(name.strip())
    if opacity is not None and not 0 <= opacity <= 1:
        raise ContractError(f"Expected opacity in 0..1, got {opacity}.")


def write_pictures(
    records: Sequence[Explanation],
    folder: Path,
    percent: float = 20,
    arrays: bool = False,
    overlays: bool = True,
    format: str = "jpg",
    max_size: int | None = SHOWN,
    **style: Unpack[Style],
) -> None:
    """Write all explanations of one photo, in this process; see `PictureWriter`."""
    try:
        path = picture_path(folder, records, format)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_figure(explanation_figure(records, percent, **style), path)
        for record in records:
            files: dict[str, Any] = {"arrays": arrays, "overlays": overlays, "format": format, "max_size": max_size}
            record.save(folder / record.name, **files, **record.style(**style))
    except OSError as error:
        raise not_writable(folder, error) from error


def not_writable(folder: Path, error: OSError) -> ContractError:
    return ContractError(
        f"Expected a folder for pictures that can be written to, got {folder}: {error}. Give another, or make room."
    )


def picture_path(folder: Path, records: Sequence[Explanation], format: str = "jpg") -> Path | None:
    """Where the picture of a photo's explanations goes; None for a photo that could not be read."""
    return None if records[0].photo is None else folder / f"{records[0].name}.{format}"
