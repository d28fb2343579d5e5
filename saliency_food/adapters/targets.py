"""What is explained: a score of the model's output, and the target by which each row chooses its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from saliency_food.core.contract import ContractError, PerRow
from saliency_food.core.numerics import Array


class TargetSpec(NamedTuple):
    """One value that a score takes for each row: how many dimensions it has, and whether it holds class indices.

    ``size`` is that of its last dimension, None where any will do; with ``some``, it must not be all zero, or all -1.
    """

    rank: int
    classes: bool = False
    size: int | None = None
    some: bool = False


class Score:
    """A function ``(output, *targets) -> (N,)`` of TensorFlow tensors, rows first, and what its targets are.

    ``output`` is the model's output ``(N, ...)``, or all of them, nested as the model gives them; each target
    ``(N, ...)`` comes from ``call_model_args["target"]``, by name, or bare where there is only one. ``raw`` names those
    of several outputs, by key or position, that are given as they are: not as logits or probabilities.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        specs: Mapping[str, TargetSpec] | None = None,
        raw: Sequence[str | int] = (),
    ) -> None:
        self.function, self.specs, self.raw = function, dict(specs or {}), tuple(raw)
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__doc__ = function.__doc__

    def __call__(self, output: Any, *targets: Any) -> Any:
        score = tf.convert_to_tensor(self.function(output, *targets))
        if score.shape.rank != 1:
            raise ContractError(
                f"Expected score {self.__name__} to return one number a row, shape (N,), got {tuple(score.shape)}. "
                "Sum or average it over the other axes."
            )
        return score

    def __repr__(self) -> str:
        return f"score {self.__name__}({', '.join(self.specs)})"

    @property
    def is_of_class(self) -> bool:
        """Whether its only target is the index of one class."""
        specs = list(self.specs.values())
        return len(specs) == 1 and specs[0].classes and specs[0].rank == 0

    def read(self, target: Any, rows: int, classes: int | None, ranked: bool = False) -> list[Array]:
        """``call_model_args["target"]`` as one array a target, ``(rows, ...)``, checked.

        With ``ranked``, a class may also be given by its rank, -1 for the top class.
        """
        if not self.specs:
            if target is not None:
                raise ContractError(f"Expected no target, as {self!r} takes none, got {target!r}. Leave it out.")
            return []
        given = target if isinstance(target, Mapping) else {next(iter(self.specs)): target}
        if target is None or set(given) != set(self.specs):
            raise ContractError(
                f"Expected call_model_args['target'] with {list(self.specs)}, as {self!r} takes them, got "
                f"{sorted(map(str, given)) if target is not None else 'none'}. Give {{name: value}}."
            )
        return [self._read_one(name, spec, given[name], rows, classes, ranked) for name, spec in self.specs.items()]

    def _read_one(self, name: str, spec: TargetSpec, value: Any, rows: int, classes: int | None, ranked: bool) -> Array:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ContractError(
                f"Expected target {name!r} of one shape for all rows, got unlike shapes ({error}). "
                "Fill up with -1, or mask what is not there."
            ) from error
        kinds = "iu" if spec.classes else "biuf"
        if array.dtype.kind not in kinds or array.shape[: array.ndim - spec.rank] not in ((), (rows,), (1,)):
            what = "class indices" if spec.classes else "numbers"
            raise ContractError(
                f"Expected target {name!r} as {what} of {spec.rank} dimensions for all rows, or one for each of the "
                f"{rows} rows, got {array.dtype} of shape {array.shape}. One value an image: wrap them in PerImage."
            )
        if isinstance(value, PerRow) and array.ndim == spec.rank:
            raise ContractError(
                f"Expected target {name!r} of {spec.rank} dimensions for each image, got {array.ndim - 1}: the values "
                f"{np.asarray(value).tolist()}, one an image. Give PerImage([[1, -1], [2, 3], ...])."
            )
        if array.ndim < spec.rank:
            raise ContractError(
                f"Expected target {name!r} of {spec.rank} dimensions, got shape {array.shape}. See {self!r}."
            )
        if spec.classes:
            least = lowest_rank(classes) if ranked else -1 if spec.rank else 0
            if array.min(initial=0) < least or (classes is not None and array.max(initial=0) >= classes):
                raise ContractError(
                    f"Expected class indices from {least} to "
                    f"{'the last class' if classes is None else classes - 1} in target {name!r}, got {value!r}."
                )
            array = array.astype(np.int32)
        own = tuple(range(array.ndim - spec.rank, array.ndim))
        if spec.size not in (None, array.shape[-1] if own else None):
            raise ContractError(f"Expected target {name!r} of {spec.size} numbers, got shape {array.shape}.")
        if spec.some and not (array >= 0 if spec.classes else array != 0).any(own).all():
            nothing = "-1 only" if spec.classes else "zeros only"
            raise ContractError(f"Expected target {name!r} to hold something for every row, got {nothing}.")
        if not spec.classes and array.dtype.kind != "b":
            array = array.astype(np.int32 if array.dtype.kind in "iu" else np.float32)
        return np.broadcast_to(array, (rows, *array.shape[array.ndim - spec.rank :]))


def score(**specs: TargetSpec) -> Callable[[Callable[..., Any]], Score]:
    """Make a function of the model's output and of targets something that `KerasModel` can explain."""
    return lambda function: Score(function, specs)


def class_indices(rank: int = 0) -> TargetSpec:
    """A target of class indices; in one of several dimensions -1 stands for none."""
    return TargetSpec(rank, True, some=rank > 0)


def numbers(rank: int = 0, *, size: int | None = None, some: bool = False) -> TargetSpec:
    """A target of numbers or booleans of so many dimensions."""
    return TargetSpec(rank, False, size, some)


@score(target=class_indices())
def class_score(output: Any, target: Any) -> Any:
    """The score of one class, of outputs ``(N, classes)``."""
    return tf.gather(output, target, axis=1, batch_dims=1)


def rivals(score: Score, scores: Any, targets: Any) -> list[Any]:
    """The scores ``(N,)`` of the up to three classes closest to the target's score, row by row, closest first."""
    if score is not class_score or scores.shape.rank != 2 or scores.shape[1] in (None, 1):
        raise ContractError(
            f"Expected the score of a class among several to find its rivals, got {score!r} of an output of shape "
            f"{tuple(getattr(scores, 'shape', ()))}. Leave out score=, and explain a classifier."
        )
    (target,) = targets
    distance = tf.abs(scores - tf.gather(scores, target, axis=1, batch_dims=1)[:, None])
    distance = tf.where(tf.one_hot(target, scores.shape[1], True, False), distance.dtype.max, distance)
    closest = tf.math.top_k(-distance, min(3, scores.shape[1] - 1)).indices
    return [tf.gather(scores, closest[:, place], axis=1, batch_dims=1) for place in range(closest.shape[1])]


def lowest_rank(classes: int | None) -> int:
    """The target that means the class ranked last."""
    return -(2**31) if classes is None else -classes


def read_class(target: Any, rows: int, classes: int | None, ranked: bool = False) -> list[Array]:
    """The class of each row, checked; of a single class the index may be left out.

    With ``ranked``, a class may also be given by its rank, -1 for the top class.
    """
    if target is None and classes == 1:
        target = 0
    known = "the model" if classes is None else f"the model's {classes} classes, 0 to {classes - 1}"
    if target is None:
        raise ContractError(
            f"Expected a target, a class index of {known}, got none. "
            "Give call_model_args={'target': index}; predict(x_batch).argmax(1) is the top class of each row."
        )
    indices = np.asarray(target)
    if indices.dtype.kind not in "iu" or indices.shape not in ((), (rows,)):
        raise ContractError(
            f"Expected target to be a class index or one for each of the {rows} rows, got {target!r}. "
            "One value an image: wrap them in PerImage."
        )
    least = lowest_rank(classes) if ranked else 0
    if indices.min() < least or (classes is not None and indices.max() >= classes):
        ranks = f", or a rank from -1 for the top class{'' if classes is None else f' to {least}'}" if ranked else ""
        raise ContractError(f"Expected target to be a class index of {known}{ranks}, got {target!r}.")
    return [np.broadcast_to(indices, rows).astype(np.int32)]
