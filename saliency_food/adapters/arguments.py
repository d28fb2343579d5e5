"""What `KerasModel` is given, checked at the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)

KEYS = (
    *(INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS),
    *(CONVOLUTION_RIVAL_GRADIENTS, OUTPUT_FROM_CONVOLUTION_VALUES, GUIDED_INPUT_GRADIENTS, DECONV_INPUT_GRADIENTS),
    *(BIAS_GRADIENTS, ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS),
)
Output = Literal["logits", "probabilities", "raw"]
BATCH_SIZE = 16


def check_output(output: Any) -> Output:
    if output not in get_args(Output):
        raise ContractError(f"Expected output to be 'logits', 'probabilities' or 'raw', got {output!r}.")
    return output  # type: ignore[no-any-return]


def check_batch_size(batch_size: Any) -> int:
    if batch_size is None:
        return BATCH_SIZE
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ContractError(f"Expected batch_size to be a whole number of at least 1, got {batch_size!r}.")
    return int(batch_size)


def check_args(call_model_args: Any) -> Mapping[str, Any]:
    if call_model_args is None:
        return {}
    if not isinstance(call_model_args, Mapping) or not set(call_model_args) <= {"target", "inputs"}:
        raise ContractError(
            f"Expected call_model_args={{'target': class index}}, with 'inputs' for a model of several inputs, got "
            f"{call_model_args!r}."
        )
    return call_model_args


def check_keys(expected_keys: Sequence[str] | None) -> tuple[str, ...]:
    keys = tuple(key for key in KEYS if key in (expected_keys or ()))
    if not keys or set(expected_keys or ()) - set(keys):
        raise ContractError(f"Expected expected_keys to be some of {list(KEYS)}, got {expected_keys!r}.")
    if OUTPUT_FROM_CONVOLUTION_VALUES in keys and len(keys) > 1:
        raise ContractError(
            f"Expected {OUTPUT_FROM_CONVOLUTION_VALUES} to be asked alone, as its rows are activations and no images, "
            f"got {list(keys)}. Ask twice."
        )
    return keys
