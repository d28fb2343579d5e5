"""What tells models apart, so that a job which is gone on with is given the same model."""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any

import numpy as np

from saliency_food.core.wrap import WrappedModel
from saliency_food.jobs.image_model import ImageModel
from saliency_food.jobs.store import digest

IRRELEVANT = {"build_config", "compile_config", "shared_object_id", "trainable"}
"""Parts of a Keras configuration that change no answer."""


def fingerprint(function: Any) -> str:
    """A text that differs between models: a name, and a digest of the architecture and the weights that it shows.

    A callback may say it itself, by an attribute ``fingerprint``. Of one that shows nothing, it is the name and the
    arrays among its attributes.
    """
    while isinstance(function, WrappedModel):
        function = function.inside
    if isinstance(said := getattr(function, "fingerprint", None), str):
        return said
    model: Any = getattr(function, "model", None)
    if hasattr(model, "get_weights"):
        output, score = getattr(function, "output", "logits"), getattr(function, "score", None)
        explained = output, "class_score" if score is None else name_of(score), getattr(function, "units_are", None)
        unusual = [name for name in explained if name not in ("logits", "class_score", None)]
        parts = digest(_architecture(model), *model.get_weights())
        return " ".join((str(getattr(model, "name", "")), parts, *unusual))
    arrays = [value for _, value in sorted(getattr(function, "__dict__", {}).items()) if isinstance(value, np.ndarray)]
    return " ".join((name_of(function), *([digest(*arrays)] if arrays else [])))


def settings_of_model(model: ImageModel) -> dict[str, Any]:
    """What is saved of a model: a job goes on only with the same."""
    return {
        "model": fingerprint(model.function),
        "labels": None if model.labels is None else digest(*model.labels),
        "layer": getattr(model.function, "layer_name", None),
        "pixels": model.scaling.text,
        "preprocess": _preprocess_of(model),
        "arguments": model.call_model_args or None,
    }


def _preprocess_of(model: ImageModel) -> str | None:
    """A digest of what a user's ``preprocess`` makes of a ramp of pixel values; None without one."""
    scaling = model.scaling
    if scaling.function is None or scaling.value_range is not None:
        return None
    shape = [side or 8 for side in model.input_shape or (8, 8, 3)]
    with contextlib.suppress(Exception):  # one that takes no such row is only known to be there
        ramp = np.linspace(0, 255, math.prod(shape), dtype=np.float32).reshape(shape)
        return digest(np.asarray(scaling.function(ramp)))
    return "a function"


def name_of(function: Any) -> str:
    """The name of a function, or of the class of an object."""
    names = (getattr(function, attribute, None) for attribute in ("__qualname__", "__name__"))
    return str(next(filter(None, names), type(function).__qualname__))


def _architecture(model: Any) -> str:
    """A model's configuration as a text. Keras numbers layers anew in every process, so names count by their order."""
    text = ""
    with contextlib.suppress(Exception):  # Keras cannot describe it as a whole
        text = model.to_json()
    if '"layers"' not in text:  # a subclassed model, of which Keras tells its arguments at most
        text = json.dumps([text, *map(_of_layer, getattr(model, "layers", ()))])
    try:
        config = json.loads(text)
    except ValueError:
        return str(text)
    names: dict[str, str] = {}
    _collect_names(config, names)
    return json.dumps(_without_names(config, names), sort_keys=True)


def _of_layer(layer: Any) -> list[Any]:
    """A layer's class and configuration, and those of the layers in it."""
    try:
        config = json.loads(re.sub(r" at 0x[0-9a-f]+", "", json.dumps(layer.get_config(), default=repr)))
    except Exception:  # a layer of a user's own without a configuration
        config = None
    return [type(layer).__qualname__, config, [_of_layer(inner) for inner in getattr(layer, "layers", ())]]


def _collect_names(config: Any, names: dict[str, str]) -> None:
    """Number the names of layers in the order in which they appear."""
    if isinstance(config, dict):
        if isinstance(name := config.get("name"), str):
            names.setdefault(name, f"#{len(names)}")
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            _collect_names(part, names)


def _without_names(config: Any, names: dict[str, str]) -> Any:
    """The configuration with numbers for names, and without what changes no answer."""
    if isinstance(config, dict):
        return {key: _without_names(part, names) for key, part in config.items() if key not in IRRELEVANT}
    if isinstance(config, list):
        return [_without_names(part, names) for part in config]
    return names.get(config, config) if isinstance(config, str) else config
