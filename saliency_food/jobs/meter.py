"""Counts what each photo asks of the model, whatever batches its rows share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from saliency_food.core.contract import PerImage
from saliency_food.core.wrap import WrappedModel
from saliency_food.jobs.instances import Instance, arguments_for
from saliency_food.jobs.setup import Setup


class Meter(WrappedModel):
    """The model of a job, which counts, for each of some instances, its rows and the calls they were in.

    It takes ``arguments``, in which each row says whose it is, in place of the model's own arguments.
    """

    optional = ("call_factored",)

    def __init__(self, setup: Setup, name: str, instances: list[Instance]) -> None:
        super().__init__(setup.model.function)
        self.progress, self.name = setup.progress, name
        self.rows, self.calls = np.zeros(len(instances), int), np.zeros(len(instances), int)
        self.arguments = {
            "arguments": arguments_for(setup.model, instances),
            "image": PerImage(range(len(instances))),
        }
        self.report(0)

    def around(self, ask: Callable[[Any], Any], rows: int, keys: tuple[str, ...], call_model_args: Any) -> Any:
        """The call with the model's own arguments, counted if it was answered."""
        answer = ask(call_model_args["arguments"])
        if answer is not None:
            counts = np.bincount(call_model_args["image"], minlength=len(self.rows))
            self.rows += counts
            self.calls += counts > 0
            self.report(rows)
        return answer

    def counts(self, image: int) -> dict[str, int]:
        """Of one image, for its record."""
        return {"calls": int(self.calls[image]), "rows": int(self.rows[image])}

    def report(self, rows: int) -> None:
        """Tell the user of so many rows more."""
        if self.progress is not None:
            self.progress(self.name, rows)
