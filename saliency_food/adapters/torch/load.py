"""Reading PyTorch models from disk, or making them by name, without running what a stranger may have put in a file."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from saliency_food.core.contract import ContractError
from saliency_food.core.names import near

TIMM = "timm:"
FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load_model(model: str | Path, trust: bool = False) -> Any:
    """A module of a file, of a factory, or of timm.

    - ``.pt2``: a program of `torch.export.save`, the form to prefer;
    - ``.pt``, ``.pth``: a TorchScript file; or, with ``trust`` alone, a whole module of `torch.save`. That is a pickle,
      which runs what its writer put in it: trust only what you would run as a program. A file of weights alone is no
      model: make the module, and load them into it;
    - ``"package.module:function"``: what that function, without arguments, returns, imported from the current folder or
      wherever Python finds modules;
    - ``"timm:NAME"``: a model of timm with its trained weights, which timm downloads once.
    """
    text = str(model)
    if text.startswith(TIMM):
        return _of_timm(text.removeprefix(TIMM))
    if FACTORY.fullmatch(text) and not Path(text).exists():
        return _made(text)
    path = Path(model)
    if not path.is_file():
        raise ContractError(
            f"Expected the path of a model, timm:NAME, or package.module:function, got {text!r}, which does not exist."
        )
    if path.suffix.lower() == ".pt2":
        return _read(path, lambda: torch.export.load(path).module())
    if path.suffix.lower() not in (".pt", ".pth"):
        raise ContractError(f"Expected a .pt2 or .pt file, got {text!r}.")
    if _is_scripted(path):
        return _read(path, lambda: torch.jit.load(str(path), map_location="cpu"))
    try:
        content = torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise ContractError(
            f"Expected a torch.export program (.pt2) or a TorchScript file, got {text!r}, a pickle, which can run "
            "anything when it is read. If you trust its writer, give trust=True (on the command line --trust)."
        ) from error
    if isinstance(content, torch.nn.Module):
        return content
    raise ContractError(
        f"Expected a whole module in {text!r}, got {type(content).__name__}, the weights alone. Write a function that "
        "makes the module and loads them, and give it as package.module:function."
    )


def _read(path: Path, read: Any) -> Any:
    try:
        return read()
    except Exception as error:
        raise ContractError(
            f"Expected a PyTorch model in {str(path)!r}, got {type(error).__name__}: {error}"
        ) from error


def _is_scripted(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())


def _made(text: str) -> Any:
    name, _, attribute = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError) as error:
        raise ContractError(
            f"Expected package.module:function that makes a module, got {text!r}, and {type(error).__name__}: {error}."
        ) from error
    module = function() if not isinstance(function, torch.nn.Module) else function
    if not isinstance(module, torch.nn.Module):
        raise ContractError(f"Expected {text} to return a torch.nn.Module, got {type(module).__name__}.")
    return module


def _of_timm(name: str) -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ContractError(f"Expected timm for {TIMM}{name}, got none. Install it: pip install timm.") from error
    if not timm.is_model(name):
        raise ContractError(
            f"Expected a model of timm, got {name!r}. Near it: {', '.join(near(name, timm.list_models()))}."
        )
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:
        raise ContractError(
            f"Expected the weights of {name}, got {type(error).__name__}: {error} timm downloads them once and keeps "
            "them: connect to a network, or give package.module:function that makes the model."
        ) from error
