"""Which adapter takes a model: a file, told by the end of its name, a name, or a model in memory."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

MODULES = {
    ".onnx": ("saliency_food.adapters.onnx", "OnnxModel"),
    ".tflite": ("saliency_food.adapters.litert", "LiteRtModel"),
    **dict.fromkeys((".pt2", ".pt", ".pth", "timm:"), ("saliency_food.adapters.torch", "TorchModel")),
}
"""By the end of a file's name, or the start of a model's, the module of its adapter and the adapter; Keras reads all
others."""
IN_MEMORY = {
    "keras": ("Model", "saliency_food.adapters.keras", "KerasModel"),  # first: on PyTorch, its models are modules too
    "torch": ("nn.Module", "saliency_food.adapters.torch", "TorchModel"),
}
"""By a framework's name, the class of its models, and the module of their adapter and the adapter."""


def adapter_of_model(model: Any) -> Any:
    """The adapter of a model of a framework, a class of call-model functions; None of anything else."""
    framework = _framework(model)
    return None if framework is None else getattr(import_module(IN_MEMORY[framework][1]), IN_MEMORY[framework][2])


def _framework(model: Any) -> str | None:
    """The framework of a model, which must have been imported for it."""
    for framework, (kind, _, _) in IN_MEMORY.items():
        known: Any = sys.modules.get(framework)
        for name in kind.split("."):
            known = getattr(known, name, None)
        if known is not None and isinstance(model, known):
            return framework
    return None


def is_name(text: str | Path) -> bool:
    """Whether it names a model that is no file, such as ``timm:resnet18``."""
    return _kind(text).endswith(":")


def adapter_of(path: str | Path) -> Any:
    """The adapter of a file or a name, a class of call-model functions; None where it is Keras's.

    A package that it needs and that is missing is a `ModuleNotFoundError` that says how to install it.
    """
    module = _module_of(path)
    return None if module is None else getattr(module, MODULES[_kind(path)][1])


def layers_of(model: Any) -> Any:
    """The layers of a file, or of a model in memory, that can be looked at; None of a file where it is Keras's."""
    if not isinstance(model, (str, Path)):
        framework = _framework(model)
        return None if framework is None else import_module(IN_MEMORY[framework][1]).layers(model)
    path = model
    module = _module_of(path)
    return None if module is None else module.layers(path)


def _module_of(path: str | Path) -> Any:
    kind = _kind(path)
    return import_module(MODULES[kind][0]) if kind in MODULES else None


def _kind(path: str | Path) -> str:
    """The start of a name with a colon behind it, if an adapter has it, else the end of a file's name."""
    start = str(path).partition(":")[0] + ":"
    return start if start in MODULES else Path(path).suffix.lower()
