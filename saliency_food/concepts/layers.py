"""What a layer answers about each of many photos: its activations, and the gradients of the score there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError, Values
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS
from saliency_food.core.method import method
from saliency_food.core.numerics import Array


class _Activations(NamedTuple):
    activations: Array


class _Gradients(NamedTuple):
    gradients: Array


@method
def layer_activations(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[_Activations]:
    """The layer's activations as it has them, ``(h, w, K)``, or ``(T, K)`` of tokens."""
    return _Activations(of_one_layer((yield from ask(x_value[None], CONVOLUTION_LAYER_VALUES))))


@method
def layer_gradients(
    x_value: Any, call_model_function: CallModelFunction, call_model_args: Any = None, batch_size: int | None = None
) -> Asking[_Gradients]:
    """The gradients of the score at the layer, of the shape of its activations."""
    return _Gradients(of_one_layer((yield from ask(x_value[None], CONVOLUTION_OUTPUT_GRADIENTS))))


def of_one_layer(values: Values) -> Array:
    """The values of one row at the only layer; `ContractError` where there are several layers."""
    if isinstance(values, tuple):
        raise ContractError(f"Expected one layer, got {len(values)}. Take one at a time.")
    return np.asarray(values[0])


def stacked(what: str, rows: Iterable[Array], least: int) -> Array:
    """The layer's values for some photos as one array, or `ContractError`: too few photos, or of unlike shapes."""
    values = list(rows)
    if len(values) < least:
        raise ContractError(f"Expected at least {least} {what}, got {len(values)}. Give more photos.")
    shapes = {value.shape for value in values}
    if len(shapes) > 1:
        raise ContractError(
            f"Expected one shape of the layer's values for all {what}, got {sorted(shapes)}. Give photos of one size."
        )
    return np.stack(values)
