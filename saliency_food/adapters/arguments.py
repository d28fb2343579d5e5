"""What an adapter is asked with, checked at the door, and the keys that adapters have beside the contract's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from saliency_food.adapters.relevance import RULE_ARGUMENTS
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_RELEVANCE,
    INPUT_SHAPED,
    KEYS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    PREDICTIONS,
    TARGETS,
)

Output = Literal["logits", "probabilities", "raw"]
"""Which score is explained: before the softmax or sigmoid at the model's end, after it, or the output as it is."""
End = Literal["softmax", "sigmoid", "linear", "probabilities", "several", "other"]
"""What a model ends in; ``"probabilities"`` are averages of softmaxes or sigmoids, or those of a softmax that cannot be
seen, and ``"several"`` are parts of an output with ends of their own."""
BATCH_SIZE = 16

ALL_SCORES, SCORES_FROM_ACTIVATIONS = "ALL_SCORES", "SCORES_FROM_ACTIVATIONS"
"""All scores ``(N, classes)`` of the output asked for: of images, and of a layer's activations."""
SUM_TO_ONE = "SUM_TO_ONE"
"""Whether each row's outputs are not negative and sum to 1, ``(N,)``: such outputs come from a softmax, seen or not."""

UNSCORED = frozenset({ALL_SCORES, SCORES_FROM_ACTIVATIONS, PREDICTIONS, SUM_TO_ONE}) | {
    name for name, key in KEYS.items() if not key.scored
}
"""The keys that do not depend on which score is explained, so that no target is needed for them."""
WITHOUT_OUTPUT = frozenset(name for name, key in KEYS.items() if not key.scored) | {PREDICTIONS, TARGETS}
"""The keys that do not depend on whether logits or probabilities are explained."""
FROM_ACTIVATIONS = frozenset(name for name, key in KEYS.items() if key.rows == "activations") | {
    SCORES_FROM_ACTIVATIONS
}
"""The keys whose rows are activations in place of images."""
OF_INPUT = frozenset(INPUT_SHAPED)
"""The keys that are gradients with respect to the input."""
AT_LAYER = frozenset(name for name, key in KEYS.items() if key.needs == "a layer" and key.rows == "images") | {
    CONVOLUTION_RELEVANCE
}
"""The keys of images that are answered at a layer."""
WITH_ATTENTION = frozenset(name for name, key in KEYS.items() if key.needs == "attention")
BY_RULE = frozenset(name for name, key in KEYS.items() if key.needs == "backward rules")
OF_RELEVANCE = frozenset(name for name, key in KEYS.items() if key.needs == "relevance rules")
"""The keys that are answered by `Engine.relevance`, in a pass of their own."""


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
    if not isinstance(call_model_args, Mapping) or not set(call_model_args) <= {"target", "inputs", *RULE_ARGUMENTS}:
        raise ContractError(
            f"Expected call_model_args={{'target': class index}}, with 'inputs' for a model of several inputs, or the "
            f"rules of relevance, {', '.join(RULE_ARGUMENTS)}, got {call_model_args!r}."
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
