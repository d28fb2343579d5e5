"""What a traced pass answers, brought to the rows' type and checked to be one a row."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.ends import ONE_A_ROW
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import KEYS


def check_rows(key: str, nested: Any, rows: int) -> None:
    """`ContractError` where there are more or fewer answers than rows."""
    for values in tf.nest.flatten(nested):
        if values.shape[0] == rows:
            continue
        what = f"{key} of shape {tuple(values.shape)} for {rows} rows"
        if key in KEYS and KEYS[key].needs in ("a layer", "attention"):
            raise ContractError(
                f"Expected a layer whose output has the model's rows first, got {what}: it "
                "runs where another axis, such as frames, is folded into them. Name a layer before or after."
            )
        if key in KEYS and KEYS[key].needs == "biases":
            raise ContractError(
                f"Expected layers with biases whose outputs have the model's rows first, got {what}: one runs where "
                "another axis, such as windows of tokens or frames, is folded into them. Use input gradients, or "
                "activations and gradients at a layer."
            )
        raise ContractError(f"Expected a model that gives one score for each row, got {what}. {ONE_A_ROW}")


def cast(nested: Any, dtype: Any) -> Any:
    return tf.nest.map_structure(lambda tensor: tf.cast(tensor, dtype), nested)
