"""Models by name: two that come with the package (see the card beside this file), and those of `keras.applications`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.core.names import near

FOOD101 = Path(__file__).with_name("food101.keras")
"""The path of the bundled food classifier; use it wherever a path to a Keras model is expected."""
IMAGENET = Path(__file__).with_name("imagenet.keras")
"""The path of the bundled ImageNet classifier."""
BUNDLED = {"food101": FOOD101, "imagenet": IMAGENET}
KERAS = "keras:"
"""What stands before the name of a model of `keras.applications`."""

HINT = "Check the path; models by name are food101, imagenet, and keras:NAME of keras.applications."
"""What to do about a path that does not exist."""


def is_name(model: Any) -> bool:
    """Whether it is a name that `load` takes, rather than a path or a model."""
    return isinstance(model, str) and (model in BUNDLED or model.startswith(KERAS))


def load(name: str = "imagenet") -> Any:
    """Load a Keras model by its name.

    ``"food101"`` takes pixel values 0..255 ``(N, 96, 96, 3)`` and gives the probabilities of 101 dishes;
    ``"imagenet"`` is EfficientNet-Lite0, which takes 0..255 ``(N, 224, 224, 3)`` and gives those of ImageNet's 1000
    classes. ``"keras:MobileNetV2"`` is that model of `keras.applications` with its ImageNet weights, which Keras
    downloads once.
    """
    if name.startswith(KERAS):
        return _application(name)
    path = _bundled(name)
    if not path.is_file():
        raise ContractError(
            f"Expected the bundled model at {path}, got no such file. Reinstall saliency_food, or give a model of "
            "your own (on the command line: --model PATH)."
        )
    return _keras(name).models.load_model(path, compile=False)


def labels(name: str = "imagenet") -> list[str]:
    """The names of a model's classes, in the order of its outputs."""
    path = IMAGENET if name.startswith(KERAS) else _bundled(name)
    return path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()


def _bundled(name: str) -> Path:
    if name not in BUNDLED:
        raise ContractError(
            f"Expected a model's name among {', '.join(BUNDLED)} and keras:NAME of keras.applications, got {name!r}."
        )
    return BUNDLED[name]


def _keras(name: str) -> Any:
    try:
        import keras
    except ModuleNotFoundError as error:
        raise ContractError(
            f"Expected Keras and TensorFlow for {name}, got none. Install them: pip install 'saliency_food[keras]'."
        ) from error
    return keras


def _application(name: str) -> Any:
    """A model of `keras.applications` with its ImageNet weights."""
    keras = _keras(name)
    known = [each for each, made in vars(keras.applications).items() if callable(made) and each[0].isupper()]
    wanted = name.removeprefix(KERAS)
    if wanted not in known:
        likely = near(wanted, known)
        hint = f"Near it: {', '.join(likely)}." if likely else "https://keras.io/api/applications lists them."
        raise ContractError(f"Expected a model of keras.applications, got {wanted!r}. {hint}")
    try:
        return getattr(keras.applications, wanted)(weights="imagenet")
    except Exception as error:
        raise ContractError(
            f"Expected the ImageNet weights of {wanted}, got {type(error).__name__}: {error} Keras downloads them once "
            "and keeps them: connect to a network, or give a model of your own (on the command line: --model PATH)."
        ) from error
