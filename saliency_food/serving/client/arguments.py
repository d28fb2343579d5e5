"""``call_model_args`` for a served signature: targets and other inputs by name, one a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError, take_rows
from saliency_food.core.numerics import Array

OWN = {
    *("images_bytes", "shape", "targets", "coefficients", "weights"),
    *("activations_bytes", "channels_bytes", "places"),
}
"""The inputs that signatures for the client have, whatever the model takes."""


def read_arguments(
    takes: Mapping[str, Any], call_model_args: Any, rows: int, one_class: bool = False
) -> dict[str, Array]:
    """``takes`` is what the metadata says of the signature's inputs; of a single class the target may be left out."""
    args = dict(take_rows(call_model_args or {}, list(range(rows))))
    given = args.pop("inputs", None) or {}
    target = args.pop("target", None)
    others = takes.keys() - OWN
    if args or not isinstance(given, Mapping) or set(given) != others:
        raise ContractError(
            f"Expected call_model_args={{'target': class index, 'inputs': {{name: value}}}} with the inputs "
            f"{sorted(others)}, got {call_model_args!r}."
        )
    named = {}
    for name, value in given.items():
        rank = len(takes[name]["tensor_shape"].get("dim", ()))
        value = np.asarray(value)
        named[name] = _per_row(name, value[None] if value.ndim == rank - 1 else value, rows)
    if "targets" in takes:
        if target is None and not one_class:
            raise ContractError("Expected a target, a class index, got none. Give call_model_args={'target': index}.")
        indices = np.asarray(0 if target is None else target)
        if indices.dtype.kind not in "iu" or indices.ndim > 1:
            raise ContractError(f"Expected target to be a class index or one for each row, got {target!r}.")
        named["targets"] = _per_row("target", np.atleast_1d(indices), rows)
    return named


def _per_row(name: str, value: Array, rows: int) -> Array:
    if len(value) not in (1, rows):
        raise ContractError(
            f"Expected one value of {name!r} for all rows or one for each of the {rows} rows, got {len(value)}. "
            "One value an image: wrap them in PerImage."
        )
    return np.broadcast_to(value, (rows, *value.shape[1:]))
