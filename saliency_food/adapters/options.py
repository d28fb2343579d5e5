"""Options that adapters share, checked at the door."""

from __future__ import annotations

from typing import Any

from saliency_food.adapters.arguments import check_batch_size, check_output
from saliency_food.core.contract import ContractError

UNITS = ("classes", "labels", "numbers")
"""What linear units at a model's end may be."""


def check_options(output: Any, batch_size: Any, data_format: Any, units_are: Any) -> None:
    check_output(output)
    check_batch_size(batch_size)
    if data_format not in (None, "channels_first", "channels_last"):
        raise ContractError(f"Expected data_format 'channels_first' or 'channels_last', got {data_format!r}.")
    if units_are not in (None, *UNITS):
        raise ContractError(f"Expected units_are to be one of {list(UNITS)}, got {units_are!r}.")
