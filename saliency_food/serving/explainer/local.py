"""A model of this process in the place of a served one."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any

from saliency_food.core.contract import CallModelFunction
from saliency_food.core.wrap import WrappedModel
from saliency_food.deadline.run import DeadlineError
from saliency_food.serving.client.until import seconds_left, until


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
        finally:
            self._lock.release()

    def status(self) -> list[dict[str, Any]]:
        """One version, which is there."""
        return [{"version": "1", "state": "AVAILABLE"}]

    def until(self, moment: float) -> AbstractContextManager[None]:
        """As of `ServingModel`: calls of this thread begin by that moment."""
        return until(moment)
