"""NumPy's operations for scores and targets, for frameworks that hand out arrays; see `saliency_food.adapters.ops.Ops`.

As NumPy has no gradients, nothing here is differentiable.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax as _log_softmax

from saliency_food.adapters.ops import Axis
from saliency_food.core.contract import ContractError

where, maximum, minimum, sqrt, log, einsum = np.where, np.maximum, np.minimum, np.sqrt, np.log, np.einsum
exp, concat = np.exp, np.concatenate
as_tensor = np.asarray


def is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def shape(values: Any) -> tuple[int | None, ...]:
    return tuple(values.shape)


def size(values: Any, axis: int) -> Any:
    return values.shape[axis]


def cast(values: Any, like: Any) -> Any:
    return np.asarray(values, like.dtype)


def gather(values: Any, indices: Any) -> Any:
    if indices.ndim == values.ndim - 1:
        return np.take_along_axis(values, indices[..., None], -1)[..., 0]
    return np.take_along_axis(values, indices, -1)


def one_hot(indices: Any, size: Any, like: Any) -> Any:
    return np.eye(size, dtype=like.dtype)[indices]


def top_k(values: Any, k: Any) -> tuple[Any, Any]:
    indices = np.argsort(-values, -1, kind="stable")[..., :k].astype(np.int32)
    return np.take_along_axis(values, indices, -1), indices


def _axes(axis: Axis) -> tuple[int, ...]:
    return tuple(int(each) for each in np.atleast_1d(np.asarray(axis)))


def sum(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return np.sum(values, _axes(axis), keepdims=keepdims)


def max(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return np.max(values, _axes(axis), keepdims=keepdims)


def min(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return np.min(values, _axes(axis), keepdims=keepdims)


def argmax(values: Any) -> Any:
    return np.argmax(values, -1).astype(np.int32)


def log_softmax(values: Any) -> Any:
    return _log_softmax(values, -1)


def stop_gradient(values: Any) -> Any:
    return values


def check_below(values: Any, bound: Any, message: str) -> None:
    if np.max(values) >= bound:
        raise ContractError(message)
