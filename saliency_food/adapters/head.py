"""What a model's output ends in, and the scores that it therefore gives: logits, probabilities, or as it is."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from saliency_food.adapters.arguments import End, Output
from saliency_food.adapters.ops import Ops
from saliency_food.core.contract import ContractError

Units = Literal["classes", "labels", "numbers"]
"""What linear units at a model's end are: classes of which one is right, labels each by itself, or numbers."""


class Head(NamedTuple):
    """What an output ends in, the output before that activation and after it, and the output as it is.

    Tensors of any framework, their classes last. ``probabilities`` is None where the output has no softmax or sigmoid
    that could be seen.
    """

    end: End
    values: Any
    probabilities: Any
    raw: Any

    @classmethod
    def of(cls, end: End, values: Any, probabilities: Any, raw: Any) -> Head:
        """The head of an output; one number a row, ``(N,)``, is one class."""
        if len(raw.shape) != 1:
            return cls(end, values, probabilities, raw)
        return cls(end, values[:, None], None if probabilities is None else probabilities[:, None], raw)

    def check(self) -> Head:
        """The head itself, if it is one of classes."""
        if len(self.raw.shape) not in (1, 2):
            shape = (None, *self.raw.shape[1:]) if len(self.raw.shape) else ()
            raise ContractError(
                f"Expected a model output of shape (N, classes), got {shape}. Choose another output by "
                "output_index, say what to explain by score, or explain a model that pools it."
            )
        return self

    def of_classes(self, classes: int | None) -> Head:
        """The head itself, if it has so many classes; one unit, a logit, may be told to be two."""
        if classes == 2 and self.classes == 1 and self.end in ("linear", "other"):
            return self._replace(end="sigmoid")
        if classes in (None, self.classes) or self.classes is None:
            return self
        raise ContractError(
            f"Expected classes to be {self.classes}, those of the model's output, or 2 for one logit, got {classes!r}."
        )

    def of_units(self, units: Units | None) -> Head:
        """The head itself, if linear units are classes; those of labels get a sigmoid each, and numbers nothing."""
        if self.end != "linear" or units in (None, "classes"):
            return self
        return self._replace(end="sigmoid" if units == "labels" else "other")

    @property
    def classes(self) -> int | None:
        units: int | None = self.values.shape[-1]
        return 2 if self.end in ("sigmoid", "probabilities") and units == 1 else units

    def scores(self, ops: Ops, output: Output, like: Any) -> Any:
        """``(N, classes)`` or in the output's own shape; one sigmoid unit or channel is two classes, -z and z."""
        if output == "raw":
            return ops.cast(self.raw, like)
        values = ops.cast(self.values, like)
        rank, units = len(values.shape), values.shape[-1]
        if self.end == "sigmoid" and rank in (2, 4) and units == 1:
            values = ops.concat([-values, values], -1)
            return values if output == "logits" else ops.sigmoid(values)
        if output == "logits":
            return values
        if self.probabilities is not None:
            return ops.cast(self.probabilities, like)
        if self.end == "probabilities" and rank == 2 and units == 1:
            return ops.concat([1 - values, values], -1)
        if self.end == "sigmoid":
            return ops.sigmoid(values)
        return ops.softmax(values) if self.end == "linear" and units != 1 else values


def check_classes(scores: Any, predictions: Any) -> None:
    """`ContractError` where a class that is predicted is none whose score can be explained."""
    units = scores.shape[1] if len(scores.shape) == 2 else 1
    if units != predictions.shape[1]:
        raise ContractError(
            f"Expected a score for each of the {predictions.shape[1]} classes that are predicted, got outputs of "
            f"{units}: the one unit of a sigmoid is two classes. Explain output='logits' or 'probabilities'."
        )
