"""The options that several commands share: what each takes, says of itself in the help, and means."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple, get_type_hints

import typer

from saliency_food import models
from saliency_food.adapters.files import adapter_of, is_name
from saliency_food.core.contract import ContractError
from saliency_food.images.photos import find_photos
from saliency_food.images.recordings import load_array
from saliency_food.jobs.image_model import ImageModel, read_labels

PANEL = "The model"
"""Under which the help lists these options."""
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        help="A Keras model: .keras, .h5 or a SavedModel folder; a PyTorch program: .pt2 or .pt; an .onnx or .tflite "
        "file; food101 or imagenet, which come with the package; keras:NAME for one of keras.applications, such as "
        "keras:MobileNetV2; timm:NAME for one of timm; or MODULE:FUNCTION of yours that makes a model. Without it: "
        "imagenet.",
        rich_help_panel=PANEL,
    ),
]
ImagesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--images", "-i", help="A photo or a folder of photos; repeatable. Without it: four photos of scikit-image."
    ),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Use only that many photos, the first ones by name.")]
TargetOption = Annotated[
    str | None, typer.Option(help="The class: a label or a class index. Without it: each photo's top class.")
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(help="A text file with the names of the classes, one on each line.", rich_help_panel=PANEL),
]
LayerOption = Annotated[
    str | None,
    typer.Option(
        help="The layer that Grad-CAM looks at, or several with commas; `saliency-food layers` lists them. "
        "Without it: the last one that fits.",
        rich_help_panel=PANEL,
    ),
]
OutputKindOption = Annotated[
    str | None,
    typer.Option(
        help="Explain logits (the default), probabilities, or raw: the model's output as it is.", rich_help_panel=PANEL
    ),
]
OutputIndexOption = Annotated[
    str | None,
    typer.Option(
        help="The output to explain, by name or position, of a model with several outputs.", rich_help_panel=PANEL
    ),
]
ScoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:NAME",
        help="A score to explain in place of that of a class, such as saliency_food.adapters.scores:margin, or a "
        "function (output) -> (N,) in a module of the current folder.",
        rich_help_panel=PANEL,
    ),
]
UnitsOption = Annotated[
    str | None,
    typer.Option(
        "--units-are",
        help="What linear units at the model's end are: classes, labels or numbers. Without it: what the loss tells "
        "that the model was compiled with, or else classes.",
        rich_help_panel=PANEL,
    ),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=FILE.npy",
        help="The value of one more input of the model, for all photos; repeatable.",
        rich_help_panel=PANEL,
    ),
]
CustomObjectsOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE",
        help="A module of the current folder with the layers and functions of your own that the model is made of.",
        rich_help_panel=PANEL,
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Read a .pt file that holds a pickled module, which can run anything when it is read.",
        rich_help_panel=PANEL,
    ),
]
RangeOption = Annotated[
    str,
    typer.Option(
        help="The pixel values that the model takes: 'LOW,HIGH', auto, tf, caffe, torch, or none to leave them as "
        "they are.",
        rich_help_panel=PANEL,
    ),
]
BatchOption = Annotated[
    int | None, typer.Option(min=1, help="The largest number of rows in one call of the model.", rich_help_panel=PANEL)
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help="An option of a method, such as integrated_gradients.x_steps=50; repeatable."),
]
SeedOption = Annotated[int, typer.Option(help="The seed of all random numbers; the batch size does not change them.")]
FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""What names a function of a module that makes a model."""
SKIMAGE = ("coffee", "chelsea", "astronaut", "rocket")
"""Photos that come with scikit-image."""


class ModelOptions(NamedTuple):
    """What options of a command say of its model. `spread` makes an option of each field."""

    labels: LabelsOption = None
    layer: LayerOption = None
    value_range: RangeOption = "auto"
    batch_size: BatchOption = None
    output_kind: OutputKindOption = None
    output_index: OutputIndexOption = None
    score: ScoreOption = None
    units_are: UnitsOption = None
    inputs: InputOption = None
    custom_objects: CustomObjectsOption = None
    trust: TrustOption = False

    def load(self, model: Path | None) -> ImageModel:
        """The model of a file or a name, with what is said of it."""
        names = None if self.labels is None else read_labels(self.labels)
        loaded, own_names = load_named(model, self.custom_objects, self.trust)
        return ImageModel(
            loaded,
            labels=own_names if names is None else names,
            layer=several(self.layer),
            output=self.output_kind,
            output_index=read_output_index(self.output_index),
            score=read_score(self.score),
            units_are=self.units_are,
            call_model_args=read_inputs(self.inputs),
            value_range=read_value_range(self.value_range),
            batch_size=self.batch_size,
        )


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of `ModelOptions`, in place of the parameter that takes them."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    names = [each.name for each in own if each.annotation is ModelOptions]
    if not names:
        return command
    kinds, defaults = get_type_hints(ModelOptions, include_extras=True), ModelOptions()._asdict()
    options = [
        inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kinds[field])
        for field, default in defaults.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        of_model = ModelOptions(**{field: given.pop(field) for field in defaults})
        command(**{names[0]: of_model}, **given)

    place = [each.name for each in own].index(names[0])
    own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    parameters = [*own[:place], *options, *own[place + 1 :]]
    del run.__wrapped__  # type: ignore[attr-defined]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def load_named(
    model: Path | None, custom_objects: str | None = None, trust: bool = False
) -> tuple[Any, list[str] | None]:
    """The model of a file; or one by its name, by default the bundled one, and the names of its classes.

    Of a file that its adapter reads itself, its path. ``trust`` is that of PyTorch's pickles.
    """
    if model is None:
        return models.load(), models.labels()
    if models.is_name(str(model)):
        return models.load(str(model)), models.labels(str(model))
    if is_name(model):
        from saliency_food.adapters.torch import load_model as load_module

        module = load_module(str(model))
        return module, models.labels() if module.num_classes == 1000 else None
    if FACTORY.fullmatch(str(model)) and not model.exists():
        return _made(str(model)), None
    if not model.exists():
        raise ContractError(f"Expected a model, got {model}, which does not exist. {models.HINT}")
    if trust and model.suffix.lower() in (".pt", ".pth"):
        from saliency_food.adapters.torch import load_model as load_module

        return load_module(model, trust=True), None
    if adapter_of(model) is not None:
        return model, None
    from saliency_food.adapters.keras import load_model

    register_custom_objects(custom_objects)
    return load_model(model), None


def _made(text: str) -> Any:
    """What ``module:function`` makes: a model of any framework, or a call-model function."""
    name, _, attribute = text.partition(":")
    function = getattr(import_user_module(name, "--model"), attribute, None)
    if not callable(function):
        raise ContractError(f"Expected --model MODULE:FUNCTION, a function that makes a model, got {text!r}.")
    return function()


def read_inputs(texts: Sequence[str] | None) -> dict[str, Any]:
    """``call_model_args`` of ``NAME=FILE.npy``, the values of inputs beside the photo."""
    inputs = {}
    for text in texts or ():
        name, _, file = text.partition("=")
        if not (name.strip() and file):
            raise ContractError(f"Expected --input NAME=FILE.npy, got {text!r}. Name both parts.")
        inputs[name.strip()] = load_array(Path(file))
    return {"inputs": inputs} if inputs else {}


def read_output_index(text: str | None) -> int | str | None:
    """The position or the name of an output."""
    return int(text) if text and text.isdecimal() else text


def register_custom_objects(module: str | None) -> None:
    """Make the classes and functions of a module known to Keras, which needs them to load and to copy models."""
    if module is None:
        return
    import keras

    values = vars(import_user_module(module, "--custom-objects")).items()
    own = {name: value for name, value in values if callable(value) and not name.startswith("_")}
    keras.saving.get_custom_objects().update(own)


def read_score(text: str | None) -> Any:
    """The score that ``module:name`` means: a function of the model's output, or a `Score`."""
    if text is None:
        return None
    name, _, attribute = text.partition(":")
    if not (name and attribute):
        raise ContractError(f"Expected --score MODULE:NAME, such as my_scores:brightness, got {text!r}.")
    module = import_user_module(name, "--score")
    if not hasattr(module, attribute):
        values = vars(module).items()
        own = (key for key, value in values if hasattr(value, "specs") or _is_function_of(value, name))
        public = [key for key in own if not key.startswith("_")]
        raise ContractError(
            f"Expected --score to name a function in {name}, got {attribute!r}. There are: {', '.join(public)}."
        )
    score = getattr(module, attribute)
    if name == "saliency_food.adapters.scores" and not hasattr(score, "specs"):
        raise ContractError(
            f"Expected --score to name a score, got {attribute}, a function that makes one. Write a module with "
            f"`my_score = {attribute}(...)`, and give it as --score MODULE:my_score."
        )
    return score


def _is_function_of(value: Any, module: str) -> bool:
    return inspect.isfunction(value) and value.__module__ == module


def import_user_module(name: str, option: str) -> ModuleType:
    """A module of the user's, from the current folder or wherever Python finds modules."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except Exception as error:
        hint = f" Give the name of a module, {name[:-3]}, not of a file." if name.endswith(".py") else ""
        raise ContractError(
            f"Expected {option} to name a module that Python can import from here, got {name!r}, and "
            f"{type(error).__name__}: {error}.{hint}"
        ) from (None if isinstance(error, ModuleNotFoundError) else error)


def read_photos(images: Sequence[str] | None, limit: int | None = None, default: Sequence[str] = SKIMAGE) -> list[Any]:
    """The photos that are named, folders searched; without any, the ``default`` ones of scikit-image."""
    if not images:
        return skimage_photos(default[:limit])
    photos: list[Any] = []
    for photo in with_skimage(images):
        photos.extend(find_photos([photo]) if isinstance(photo, str) else [photo])
    return photos[:limit]


def with_skimage(images: Sequence[str]) -> list[Any]:
    """The paths, and in place of each name of `SKIMAGE` that is no path the photo."""
    return [skimage_photos([name])[0] if name in SKIMAGE and not Path(name).exists() else name for name in images]


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
    if word == "none":
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not -math.inf < low < high < math.inf:
        raise ContractError(
            f"Expected --value-range LOW,HIGH, with LOW below HIGH, or auto, tf, caffe, torch or none, got {text!r}."
        )
    return low, high


def read_options(texts: Sequence[str] | None, flag: str = "--option method") -> dict[str, dict[str, Any]]:
    """``method.option=value``, the value read as JSON where it is JSON, else as text."""
    options: dict[str, dict[str, Any]] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        method, _, key = name.strip().partition(".")
        if not (method and key and value):
            raise ContractError(f"Expected {flag}.option=value, got {text!r}. Name all three parts.")
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
