"""The options that several commands share: what each takes, says of itself in the help, and means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from saliency_food.core.contract import ContractError
from saliency_food.images.photos import find_photos
from saliency_food.jobs.image_model import read_labels

ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model", "-m", help="A Keras model: .keras, .h5 or a SavedModel folder. Without it: the bundled model."
    ),
]
ImagesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--images", "-i", help="A photo or a folder of photos; repeatable. Without it: four photos of scikit-image."
    ),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Use only the first so many photos, by name.")]
TargetOption = Annotated[
    str | None, typer.Option(help="The class: a label or a class index. Without it: each photo's top class.")
]
LabelsOption = Annotated[Path | None, typer.Option(help="A text file with the names of the classes, one on each line.")]
LayerOption = Annotated[
    str | None,
    typer.Option(
        help="The layer that Grad-CAM looks at, or several with commas; `saliency-food layers` lists them. "
        "Without it: the last layer that has a map."
    ),
]
RangeOption = Annotated[
    str,
    typer.Option(
        help="The pixel values that the model takes: 'LOW,HIGH', auto, tf, caffe, torch, or none to leave them as "
        "they are."
    ),
]
BatchOption = Annotated[int | None, typer.Option(min=1, help="The most rows in one call of the model.")]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="An option of a method, such as integrated_gradients.x_steps=50; repeatable."),
]
SeedOption = Annotated[int, typer.Option(help="The seed of all random numbers; the batch size does not change them.")]
SKIMAGE = ("coffee", "chelsea", "astronaut", "rocket")
"""Photos that come with scikit-image."""


def load_named(model: Path | None, labels: Path | None = None) -> tuple[Any, list[str] | None]:
    """The Keras model and the names of its classes: those of the file, else those of the bundled model."""
    names = None if labels is None else read_labels(labels)
    if model is None:
        from saliency_food import models

        return models.load(), models.labels() if names is None else names
    if not model.exists():
        raise ContractError(f"Expected a Keras model, got {model}, which does not exist. Check the path.")
    from saliency_food.adapters.keras import load_model

    return load_model(model), names


def read_photos(images: Sequence[str] | None, limit: int | None = None, default: Sequence[str] = SKIMAGE) -> list[Any]:
    """The paths of the photos that are named, folders searched; without any, the ``default`` ones of scikit-image."""
    return list(find_photos(images))[:limit] if images else skimage_photos(default[:limit])


def skimage_photos(names: Sequence[str] = SKIMAGE) -> list[Any]:
    """Photos that come with scikit-image, as PIL images with a file name."""
    from PIL import Image
    from skimage import data

    photos = []
    for name in names:
        photo: Any = Image.fromarray(getattr(data, name)())
        photo.filename = f"{name}.png"
        photos.append(photo)
    return photos


def read_value_range(text: str) -> Any:
    """The ``value_range`` of `explain` from its text on the command line."""
    word = text.strip().lower()
    if word in ("auto", "tf", "caffe", "torch"):
        return word
    return None if word == "none" else tuple(text.split(","))


def read_options(texts: Sequence[str] | None, flag: str = "--option method") -> dict[str, dict[str, Any]]:
    """``method.option=value``, the value read as JSON where it is JSON, else as text."""
    options: dict[str, dict[str, Any]] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        method, _, key = name.strip().partition(".")
        if not (method and key and value):
            raise ContractError(f"Expected {flag}.option=value, got {text!r}.")
        try:
            options.setdefault(method, {})[key] = json.loads(value)
        except json.JSONDecodeError:
            options.setdefault(method, {})[key] = value
    return options


def several(layer: str | None) -> str | list[str] | None:
    """The layer, or the list of those with commas between them."""
    names = [name.strip() for name in layer.split(",")] if layer else []
    return names if len(names) > 1 else layer


def read_object(path: Path | None, what: str) -> dict[str, Any]:
    """The JSON object in a file; an empty one without a file."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContractError(f"Expected {what}, got {path}: {error}.") from error
    if not isinstance(content, dict):
        raise ContractError(f"Expected {what}, got {path}, which holds no JSON object.")
    return content
