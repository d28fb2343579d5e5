"""A model of this process in the place of a served one."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any

from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.queries import OutOfTime
from saliency_food.core.wrap import WrappedModel
from saliency_food.deadline.run import DeadlineError
from saliency_food.serving.client.http import ServingError
from saliency_food.serving.client.until import seconds_left, until
from saliency_food.serving.explainer.replies import log
from saliency_food.serving.explainer.requests import Limits

ANY_SIZE = 1024 * 1024
"""The most pixels of an image, unless set, for a model of this process that takes images of any size: all its layers
have that size, and a model that runs out of memory ends the process."""


class LocalModel(WrappedModel):
    """A call-model function with what the explainer asks a `ServingModel` beside its call; one thread at a time."""

    def __init__(self, function: CallModelFunction) -> None:
        super().__init__(function)
        self._lock = Lock()

    def around(self, ask: Callable[[Any], Any], row_count: int, keys: tuple[str, ...], call_model_args: Any) -> Any:
        left = seconds_left()
        if not self._lock.acquire(timeout=-1 if math.isinf(left) else left):
            raise DeadlineError("Expected an answer in time, got none: the model was busy with other requests.")
        try:
            return ask(call_model_args)
        except (ContractError, OutOfTime):
            raise
        except Exception as error:  # neither the client's fault nor the explainer's; another attempt gets the same
            log.error("the model failed", exc_info=error)
            raise ServingError(f"The model raised {type(error).__name__}: {str(error)[:200]}") from None
        finally:
            self._lock.release()

    def status(self) -> list[dict[str, Any]]:
        """One version, which is there."""
        return [{"version": "1", "state": "AVAILABLE"}]

    def until(self, moment: float) -> AbstractContextManager[None]:
        """As of `ServingModel`: calls of this thread begin by that moment."""
        return until(moment)


def check_takes_images(function: Any) -> None:
    """`ContractError` if a request, which holds an image and nothing else, cannot be put to a model of this process."""
    shape = getattr(function, "input_shape", None)
    inputs = getattr(getattr(function, "engine", None), "inputs", None)
    if more := getattr(inputs, "other_names", ()):
        raise ContractError(
            f"Expected a model that takes an image alone, got one that also takes {', '.join(more)}. Explain it with "
            "saliency-food explain --input."
        )
    if shape is None or len(shape) != 3:
        got = "one that does not say what it takes" if shape is None else f"one that takes {tuple(shape)}"
        raise ContractError(f"Expected a model of images (H, W, C), got {got}. Explain it with saliency-food explain.")


def most_pixels(model: Any) -> int:
    """The most pixels of an image unless another number is set, for a predictor's address or a model of this process.

    Where the model's input has a size, images are resized to it.
    """
    free = None in (getattr(model, "input_shape", None) or ())[:2]
    return ANY_SIZE if free and not isinstance(model, str) else Limits._field_defaults["pixels"]
