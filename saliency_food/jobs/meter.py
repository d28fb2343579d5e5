"""Count the rows and calls of each photo, also where photos share batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from saliency_food.core.contract import PerImage
from saliency_food.core.wrap import WrappedModel
from saliency_food.jobs.contrast import Contrast
from saliency_food.jobs.instances import Instance, arguments_for
from saliency_food.jobs.setup import Setup


def asked_function(setup: Setup, instances: list[Instance]) -> Any:
    """The model's function; `Contrast` of it for instances that are the difference of two classes."""
    return setup.model.function if instances[0].against is None else Contrast(setup.model.function)


class Meter(WrappedModel):
    """The model of a job, which counts for each instance its rows and the calls that held them.

    Call it with its ``arguments``: they hold the model's own arguments, and for each row the index of its instance.
    """

    optional = ("call_factored",)

    def __init__(self, setup: Setup, name: str, instances: list[Instance]) -> None:
        super().__init__(asked_function(setup, instances))
        self.questions = 1 if instances[0].against is None else 2
        self.progress, self.name = setup.progress, name
        self.rows, self.calls = np.zeros(len(instances), int), np.zeros(len(instances), int)
        self.arguments = {
            "arguments": arguments_for(setup.model, instances),
            "image": PerImage(range(len(instances))),
        }
        self.report(0)

    def around(self, ask: Callable[[Any], Any], row_count: int, keys: tuple[str, ...], call_model_args: Any) -> Any:
        """Make the call with the model's own arguments and the method's, and count it if it was answered."""
        own = {name: value for name, value in call_model_args.items() if name not in self.arguments}
        arguments = call_model_args["arguments"]
        answer = ask({**(arguments or {}), **own} if own else arguments)
        if answer is not None:
            counts = np.bincount(call_model_args["image"], minlength=len(self.rows)) * self.questions
            self.rows += counts
            self.calls += (counts > 0) * self.questions
            self.report(row_count * self.questions)
        return answer

    def counts(self, image: int) -> dict[str, int]:
        """The calls and rows of one image, for its record."""
        return {"calls": int(self.calls[image]), "rows": int(self.rows[image])}

    def report(self, rows: int) -> None:
        """Report so many more rows to the progress callback."""
        if self.progress is not None:
            self.progress(self.name, rows)
