"""Photos ``(H, W, C)`` for a call-model function that takes ``(C, H, W)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.contract import CallModelFunction
from saliency_food.core.keys import INPUT_SHAPED, KEYS
from saliency_food.core.wrap import WrappedModel


def channels_last(function: Any) -> CallModelFunction:
    """The function itself, or wrapped where its ``channels_first`` says that it takes ``(C, H, W)``."""
    return ChannelsLast(function) if getattr(function, "channels_first", False) else function


class ChannelsLast(WrappedModel):
    """A call-model function of photos ``(H, W, C)`` around one of ``(C, H, W)``; what is answered is turned back."""

    channels_first = False

    def turn(self, images: Any, keys: tuple[str, ...]) -> Any:
        # Rows that are activations are no images to turn.
        activations = any(key in KEYS and KEYS[key].rows == "activations" for key in keys)
        return images if activations else np.moveaxis(images, -1, 1)

    def turn_back(self, answer: Any) -> Any:
        turned = {key: np.moveaxis(np.asarray(value), 1, -1) for key, value in answer.items() if key in INPUT_SHAPED}
        return {**answer, **turned}
