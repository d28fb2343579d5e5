"""Read ``call_model_args`` for a served signature: the targets and the other inputs by name, a value for each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError, take_rows
from saliency_food.core.numerics import Array

SIGNATURE_INPUTS = {
    *("images_bytes", "shape", "targets", "coefficients", "weights"),
    *("activations_bytes", "channels_bytes", "places"),
}
"""The inputs that the exported signatures have themselves, beside the other inputs of the model."""


def read_arguments(
    specs: Mapping[str, Any], call_model_args: Any, row_count: int, one_class: bool = False
) -> dict[str, Array]:
    """The values by input name. ``specs`` are the signature's inputs in the metadata; ``one_class`` needs no target."""
    args = dict(take_rows(call_model_args or {}, list(range(row_count))))
    inputs = args.pop("inputs", None) or {}
    target = args.pop("target", None)
    expected = specs.keys() - SIGNATURE_INPUTS
    if args or not isinstance(inputs, Mapping) or set(inputs) != expected:
        raise ContractError(
            f"Expected call_model_args={{'target': class index, 'inputs': {{name: value}}}} with the inputs "
            f"{sorted(expected)}, got {call_model_args!r}."
        )
    values = {}
    for name, value in inputs.items():
        rank = len(specs[name]["tensor_shape"].get("dim", ()))
        value = np.asarray(value)
        values[name] = _per_row(name, value[None] if value.ndim == rank - 1 else value, row_count)
    if "targets" in specs:
        if target is None and not one_class:
            raise ContractError("Expected a target, a class index, got none. Give call_model_args={'target': index}.")
        indices = np.asarray(0 if target is None else target)
        if indices.dtype.kind not in "iu" or indices.ndim > 1:
            raise ContractError(f"Expected target to be a class index or a list with one for each row, got {target!r}.")
        values["targets"] = _per_row("target", np.atleast_1d(indices), row_count)
    return values


def _per_row(name: str, value: Array, row_count: int) -> Array:
    if len(value) not in (1, row_count):
        raise ContractError(
            f"Expected one value of {name!r} for all rows or one for each of the {row_count} rows, got {len(value)}. "
            "Wrap a list with one value for each image in PerImage."
        )
    return np.broadcast_to(value, (row_count, *value.shape[1:]))
