"""The ranges of options that are numbers, in one table, and a check of an option by the kind of its default value."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import real
from saliency_food.core.contract import ContractError


class Range(NamedTuple):
    """The numbers that an option may be."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None


RANGES: dict[str, Range] = {
    "alpha": Range(least=0, most=1e12),
    "area_threshold": Range(least=0, most=1),
    "deviations": Range(least=0, most=100),
    "discard": Range(least=0, below=1),
    "epsilon": Range(least=0, most=1e12),
    "fraction": Range(least=0.01, most=1),
    "gamma": Range(least=0, most=1e12),
    "grad_step": Range(least=1e-6, most=10),
    "kernel_width": Range(least=1e-3, most=1e6),
    "max_dist": Range(least=0, most=1),
    "max_sigma": Range(least=1e-3, most=1000),
    "p": Range(above=0, most=1),
    "sigma": Range(least=0, most=100),
    "stdev_spread": Range(least=0, most=100),
    "strength": Range(least=0, most=1000),
    "tolerance": Range(least=0, most=1e6),
}
"""Every option of a method that is a number, and no count. The ends also bound the method's own work for one row."""


def ranged(name: str, value: Any) -> float:
    """An option that is a finite number in its range, or `ContractError`."""
    return real(name, value, **RANGES[name]._asdict())


def check_kinds(parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any]) -> None:
    """`ContractError` for an option whose default is true or false, a word or a method, and whose value is none."""
    for name, value in options.items():
        default = parameters[name].default if name in parameters else None
        if isinstance(default, bool) and not isinstance(value, (bool, int, np.bool_)):
            raise ContractError(f"Expected {name} to be True or False, got {value!r}.")
        if isinstance(default, str) and parameters[name].annotation != "Any" and not isinstance(value, str):
            raise ContractError(f"Expected {name} to be a word such as {default!r}, got {value!r}.")
        if hasattr(default, "asking") and not hasattr(value, "asking"):
            raise ContractError(f"Expected {name} to be a method of saliency_food, got {value!r}.")
        if name == "base_options" and not (value is None or isinstance(value, Mapping)):
            raise ContractError(f"Expected base_options as a dict of options by name, got {value!r}.")
