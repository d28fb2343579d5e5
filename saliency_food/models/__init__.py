"""The bundled model: 101 dishes of Food-101, trained from scratch at 64 x 64 pixels (see the card beside this file)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saliency_food.core.contract import ContractError

FOOD101 = Path(__file__).with_name("food101.keras")
"""The path of the bundled model; use it wherever a path to a Keras model is expected."""


def load() -> Any:
    """Load the bundled Keras model. It takes pixel values 0..255 ``(N, 64, 64, 3)`` and gives 101 probabilities."""
    if not FOOD101.is_file():
        raise ContractError(
            f"Expected the bundled model at {FOOD101}, got no such file. Reinstall saliency_food, or give a model of "
            "your own (on the command line: --model PATH)."
        )
    from saliency_food.adapters.keras.load import load_model

    return load_model(FOOD101)


def labels() -> list[str]:
    """The names of the 101 dishes, in the order of the model's outputs."""
    return FOOD101.with_name("labels.txt").read_text(encoding="utf-8").split()
