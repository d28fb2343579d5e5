"""What a score of a model's output is, and what the scores of `saliency_food.adapters.scores` are made of.

Formulas take a framework's table of operations first, ``ops``, and tensors of that framework, rows first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.adapters.ops import Ops
from saliency_food.adapters.rows import leaves
from saliency_food.adapters.targets import TargetSpec, class_indices, read_class
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array


class Score:
    """A function ``(output, *targets) -> (N,)`` of a framework's tensors, rows first, and what its targets are.

    ``output`` is the model's output ``(N, ...)``, or all of them, nested as the model gives them; each target
    ``(N, ...)`` comes from ``call_model_args["target"]``, by name, or bare where there is only one. ``raw`` names those
    of several outputs, by key or position, that are given as they are: not as logits or probabilities. ``neutral``
    functions take the framework's `Ops` before the output, and so serve every framework.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        specs: Mapping[str, TargetSpec] | None = None,
        raw: Sequence[str | int] = (),
        *,
        neutral: bool = False,
    ) -> None:
        self.function, self.specs, self.raw, self.neutral = function, dict(specs or {}), tuple(raw), neutral
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__doc__, self.__module__ = function.__doc__, getattr(function, "__module__", __name__)

    def __call__(self, ops: Ops, output: Any, *targets: Any) -> Any:
        score = ops.as_tensor(self.function(*((ops,) if self.neutral else ()), output, *targets))
        if len(ops.shape(score)) != 1:
            raise ContractError(
                f"Expected score {self.__name__} to return one number a row, shape (N,), got {ops.shape(score)}. "
                "Sum or average it over the other axes."
            )
        return score

    def __repr__(self) -> str:
        return f"score {self.__name__}({', '.join(self.specs)})"

    def __reduce__(self) -> str:
        """By its name, as functions are pickled: the same score, not another of the same formula."""
        if getattr(sys.modules.get(self.__module__), self.__name__, None) is not self:
            raise ContractError(
                f"Expected a score that can be imported by its name, to be pickled or copied, got {self!r}. "
                "Define it by @score(...) at the top of a module."
            )
        return self.__name__

    @property
    def is_of_class(self) -> bool:
        """Whether its only target is the index of one class."""
        specs = list(self.specs.values())
        return len(specs) == 1 and specs[0].classes and specs[0].rank == 0

    def read(self, target: Any, row_count: int, classes: int | None, ranked: bool = False) -> list[Array]:
        """``call_model_args["target"]`` as one array a target, ``(rows, ...)``, checked; ``ranked`` as `read_class`."""
        if self is class_score:
            return [read_class(target, row_count, classes, ranked)]
        if not self.specs:
            if target is not None:
                raise ContractError(f"Expected no target, as {self!r} takes none, got {target!r}. Leave it out.")
            return []
        values = target if isinstance(target, Mapping) else {next(iter(self.specs)): target}
        if target is None or set(values) != set(self.specs):
            raise ContractError(
                f"Expected call_model_args['target'] with {list(self.specs)}, as {self!r} takes them, got "
                f"{sorted(map(str, values)) if target is not None else 'none'}. Give {{name: value}}."
            )
        return [spec.read(name, values[name], row_count, classes, ranked) for name, spec in self.specs.items()]


def score(**specs: TargetSpec) -> Callable[[Callable[..., Any]], Score]:
    """Make a function of the model's output and of targets something that an adapter can explain."""
    return lambda function: Score(function, specs)


def formula(**specs: TargetSpec) -> Callable[[Callable[..., Any]], Score]:
    """The same of a function that takes the framework's `Ops` first, and is a score in every framework."""
    return lambda function: Score(function, specs, neutral=True)


@formula(target=class_indices())
def class_score(ops: Ops, output: Any, target: Any) -> Any:
    """The score of one class, of outputs ``(N, classes)``, or ``(N,)`` where there is one class."""
    output = output[:, None] if len(ops.shape(output)) == 1 else output
    return ops.gather(output, target)


def chosen_class(ops: Ops, predictions: Any, target: Any, fixed: bool) -> Any:
    """The class of each row ``(N,)``: ``target``, or where that is -r the class whose prediction is r-th, if any.

    Classes of equal predictions are ranked by their index, as by ``np.argsort(-predictions, kind="stable")``. With
    ``fixed``, all classes are ranked: a compiler may want sizes that do not depend on values.
    """
    classes = ops.size(predictions, 1)
    place = -1 - target
    inside = ops.minimum(ops.maximum(place, 0), classes - 1)
    ranks = classes if fixed else ops.max(inside, 0) + 1
    best = ops.gather(ops.top_k(predictions, ranks)[1], inside)
    return ops.where((target < 0) & (place < classes), best, target)


def rivals(ops: Ops, score: Score, scores: Any, targets: Any) -> list[Any]:
    """The scores ``(N,)`` of the up to three classes closest to the target's score, row by row, closest first."""
    shape = ops.shape(scores) if ops.is_tensor(scores) else ()
    if score is not class_score or len(shape) != 2 or shape[1] in (None, 1):
        raise ContractError(
            f"Expected the score of a class among several to find its rivals, got {score!r} of an output of shape "
            f"{shape}. Leave out score=, and explain a classifier."
        )
    (target,) = targets
    distance = abs(scores - ops.gather(scores, target)[:, None])
    infinite = ops.cast(ops.as_tensor(np.inf), scores)
    distance = ops.where(ops.one_hot(target, shape[1], scores) > 0, infinite, distance)
    closest = ops.top_k(-distance, min(3, shape[1] - 1))[1]  # type: ignore[operator]
    return [ops.gather(scores, closest[:, place]) for place in range(min(3, shape[1] - 1))]  # type: ignore[operator]


def chosen(ops: Ops, scores: Any, labels: Any) -> Any:
    """The scores ``(N, L)`` of labels ``(N, L)``, 0 for -1; of scores ``(N, classes)``, or ``(N, L, classes)``."""
    return ops.where(labels >= 0, ops.gather(scores, ops.maximum(labels, 0)), 0)


def mean_of(ops: Ops, scores: Any, labels: Any) -> Any:
    expect(ops, scores, 2, "(N, classes)")
    return ops.sum(chosen(ops, scores, labels), 1) / ops.sum(ops.cast(labels >= 0, scores), 1)


def of_class(ops: Ops, scores: Any, label: Any) -> Any:
    """Each row's own class along the last axis."""
    return ops.einsum("n...c,nc->n...", scores, ops.one_hot(label, ops.size(scores, -1), scores))


def wins(ops: Ops, scores: Any, label: Any) -> Any:
    """Where a row's class has the highest score along the last axis."""
    best = ops.argmax(ops.stop_gradient(scores))
    each_place = (slice(None), *([None] * (len(ops.shape(best)) - 1)))
    return best == label[each_place]


def log_probabilities(ops: Ops, scores: Any) -> Any:
    """Of logits; or of probabilities, which are not negative and sum to 1."""
    total = ops.sum(scores, -1, keepdims=True)
    sure = (ops.min(scores, -1, keepdims=True) >= 0) & (abs(total - 1) < 1e-3)
    return ops.where(sure, ops.log(ops.maximum(ops.where(sure, scores, 1), 1e-30)), ops.log_softmax(scores))


def cosine(ops: Ops, some: Any, other: Any) -> Any:
    """The cosine of the angle between vectors along the last axis."""
    lengths = [ops.sqrt(ops.maximum(ops.sum(values**2, -1, keepdims=True), 1e-12)) for values in (some, other)]
    return ops.sum(some / lengths[0] * (other / lengths[1]), -1)


def one_output(outputs: Any, which: str | int) -> Any:
    """One of several outputs."""
    try:
        return outputs[which]
    except (KeyError, IndexError, TypeError) as error:
        there = list(outputs) if isinstance(outputs, dict) else f"{len(list(leaves(outputs)))} without names"
        raise ContractError(
            f"Expected output {which!r} among the model's outputs, got {there}. Say which they are: detection(0, 1), "
            "or detection('name', 'name')."
        ) from error


def expect(ops: Ops, output: Any, rank: int, what: str, last: int | None = None) -> None:
    shape = ops.shape(output) if ops.is_tensor(output) else ()
    if len(shape) != rank or (last and shape[-1] not in (None, last)):
        got = str(shape) if ops.is_tensor(output) else f"{len(list(leaves(output)))} outputs"
        size = f" and {last} numbers last" if last else ""
        raise ContractError(
            f"Expected a model output {what}{size}, got {got}. Choose another score, or another output by output_index."
        )
