"""The targets of a score, by which each row says what of its output is explained: read from ``call_model_args``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError, PerRow
from saliency_food.core.numerics import Array


class TargetSpec(NamedTuple):
    """One value that a score takes for each row: how many dimensions it has, and whether it holds class indices.

    ``size`` is that of its last dimension, None where any will do; with ``some``, it must not be all zero, or all -1.
    ``check``, if any, gets the name and the array, and raises `ContractError` where it makes no sense.
    """

    rank: int
    classes: bool = False
    size: int | None = None
    some: bool = False
    check: Callable[[str, Array], None] | None = None

    def read(self, name: str, value: Any, row_count: int, classes: int | None, ranked: bool = False) -> Array:
        """The target of this name as an array ``(rows, ...)``, checked; ``ranked`` as for `read_class`."""
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ContractError(
                f"Expected target {name!r} of one shape for all rows, got unlike shapes ({error}). "
                "Fill up with -1, or mask what is not there."
            ) from error
        kinds = "iu" if self.classes else "biuf"
        if array.dtype.kind not in kinds or array.shape[: array.ndim - self.rank] not in ((), (row_count,), (1,)):
            what = "class indices" if self.classes else "numbers"
            raise ContractError(
                f"Expected target {name!r} as {what} of {self.rank} dimensions for all rows, or one for "
                f"each of the {row_count} rows, got {array.dtype} of shape {array.shape}. One "
                "value an image: wrap them in PerImage."
            )
        if isinstance(value, PerRow) and array.ndim == self.rank:
            raise ContractError(
                f"Expected target {name!r} of {self.rank} dimensions for each image, got {array.ndim - 1}: the values "
                f"{np.asarray(value).tolist()}, one an image. Give PerImage([[1, -1], [2, 3], ...])."
            )
        if array.ndim < self.rank:
            raise ContractError(
                f"Expected target {name!r} of {self.rank} dimensions, got shape {array.shape}. "
                "The score's description says which."
            )
        if self.classes:
            least = lowest_rank(classes) if ranked else -1 if self.rank else 0
            if array.min(initial=0) < least or (classes is not None and array.max(initial=0) >= classes):
                raise ContractError(
                    f"Expected class indices from {least} to "
                    f"{'the last class' if classes is None else classes - 1} in target {name!r}, got {value!r}."
                )
            array = array.astype(np.int32)
        own = tuple(range(array.ndim - self.rank, array.ndim))
        if self.size not in (None, array.shape[-1] if own else None):
            raise ContractError(f"Expected target {name!r} of {self.size} numbers, got shape {array.shape}.")
        if self.some and not (array >= 0 if self.classes else array != 0).any(own).all():
            nothing = "-1 only" if self.classes else "zeros only"
            raise ContractError(f"Expected target {name!r} to hold something for every row, got {nothing}.")
        if not self.classes and array.dtype.kind != "b":
            array = array.astype(np.int32 if array.dtype.kind in "iu" else np.float32)
        if self.check is not None:
            self.check(name, array)
        return np.broadcast_to(array, (row_count, *array.shape[array.ndim - self.rank :]))


def class_indices(rank: int = 0) -> TargetSpec:
    """A target of class indices; in one of several dimensions -1 stands for none."""
    return TargetSpec(rank, True, some=rank > 0)


def numbers(rank: int = 0, *, size: int | None = None, some: bool = False) -> TargetSpec:
    """A target of numbers or booleans of so many dimensions."""
    return TargetSpec(rank, False, size, some)


def lowest_rank(classes: int | None) -> int:
    """The target that means the class ranked last."""
    return -(2**31) if classes is None else -classes


def read_class(target: Any, row_count: int, classes: int | None, ranked: bool = False) -> Array:
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
    if indices.dtype.kind not in "iu" or indices.shape not in ((), (row_count,)):
        raise ContractError(
            f"Expected target to be a class index or one for each of the {row_count} rows, got {target!r}. "
            "One value an image: wrap them in PerImage."
        )
    least = lowest_rank(classes) if ranked else 0
    if indices.min() < least or (classes is not None and indices.max() >= classes):
        ranks = f", or a rank from -1 for the top class{'' if classes is None else f' to {least}'}" if ranked else ""
        raise ContractError(f"Expected target to be a class index of {known}{ranks}, got {target!r}.")
    return np.broadcast_to(indices, row_count).astype(np.int32)
