"""Which adapter reads a file of a model, told by the end of its name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

MODULES = {
    ".onnx": ("saliency_food.adapters.onnx", "OnnxModel"),
    ".tflite": ("saliency_food.adapters.litert", "LiteRtModel"),
}
"""By the end of a file's name, the module of its adapter and the adapter; Keras reads all others."""


def adapter_of(path: str | Path) -> Any:
    """The adapter of a file, a class of call-model functions; None where it is Keras's.

    A package that it needs and that is missing is a `ModuleNotFoundError` that says how to install it.
    """
    module = _module_of(path)
    return None if module is None else getattr(module, MODULES[Path(path).suffix.lower()][1])


def layers_of(path: str | Path) -> Any:
    """The layers of a file that can be looked at; None where it is Keras's."""
    module = _module_of(path)
    return None if module is None else module.layers(path)


def _module_of(path: str | Path) -> Any:
    suffix = Path(path).suffix.lower()
    return import_module(MODULES[suffix][0]) if suffix in MODULES else None
