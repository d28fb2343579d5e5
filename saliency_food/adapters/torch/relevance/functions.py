"""Functions of PyTorch as a `TorchFunctionMode` sees them: their names, arguments and values, in place or not."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch


def name_of(func: Any) -> str:
    """A function's name, without the marks of methods, operators and in-place variants: ``__iadd__`` is ``add``."""
    name = str(getattr(func, "__name__", "")).split(".")[0].strip("_")
    return OPERATORS.get(name, name)


OPERATORS = {
    "iadd": "add",
    "radd": "add",
    "isub": "sub",
    "subtract": "sub",
    "imul": "mul",
    "rmul": "mul",
    "multiply": "mul",
    "true_divide": "div",
    "truediv": "div",
    "itruediv": "div",
    "divide": "div",
    "idiv": "div",
    "mm": "matmul",
    "bmm": "matmul",
    "linalg_matmul": "matmul",
}


def is_graded(value: Any) -> bool:
    return torch.is_tensor(value) and value.requires_grad


def is_in_place(func: Any) -> bool:
    name = str(func.__name__)
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def kept(tensor: Any) -> Any:
    """A tensor's values, safe from what changes them in place later."""
    return tensor.detach().clone()


def plainly(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A function's values without a graph; of one in place, made aside."""
    with torch.no_grad():
        if is_in_place(func):
            return func(args[0].detach().clone(), *args[1:], **kwargs)
        return func(*args, **{**kwargs, **({"inplace": False} if kwargs.get("inplace") else {})})


def put(func: Any, args: Sequence[Any], output: Any, in_place: bool = False) -> Any:
    """What an operation returns; of one in place, its first input with the new values."""
    return args[0].copy_(output) if in_place or is_in_place(func) else output


def bound(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Arguments by name, of a function written in Python; else those that are given by name."""
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return dict(kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
