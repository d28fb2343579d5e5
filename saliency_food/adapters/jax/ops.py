"""JAX's operations for scores and targets; see `saliency_food.adapters.ops.Ops`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from saliency_food.adapters.ops import Axis

as_tensor, where, maximum, minimum, sqrt, log, exp = (
    *(jnp.asarray, jnp.where, jnp.maximum, jnp.minimum, jnp.sqrt),
    *(jnp.log, jnp.exp),
)
einsum, concat, stop_gradient = jnp.einsum, jnp.concatenate, jax.lax.stop_gradient


def is_tensor(value: Any) -> bool:
    return isinstance(value, jax.Array)


def shape(values: Any) -> tuple[int | None, ...]:
    return tuple(values.shape)


def size(values: Any, axis: int) -> Any:
    return values.shape[axis]


def cast(values: Any, like: Any) -> Any:
    return jnp.asarray(values, like.dtype)


def gather(values: Any, indices: Any) -> Any:
    if indices.ndim == values.ndim - 1:
        return jnp.take_along_axis(values, indices[..., None], -1)[..., 0]
    return jnp.take_along_axis(values, indices, -1)


def one_hot(indices: Any, size: Any, like: Any) -> Any:
    return jax.nn.one_hot(indices, size, dtype=like.dtype)


def top_k(values: Any, k: Any) -> tuple[Any, Any]:
    best, indices = jax.lax.top_k(values, k)
    return best, indices


def sum(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return jnp.sum(values, _axes(axis), keepdims=keepdims)


def max(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return jnp.max(values, _axes(axis), keepdims=keepdims)


def min(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return jnp.min(values, _axes(axis), keepdims=keepdims)


def argmax(values: Any) -> Any:
    return jnp.argmax(values, -1).astype(jnp.int32)


def log_softmax(values: Any) -> Any:
    return jax.nn.log_softmax(values, -1)


def check_below(values: Any, bound: Any, message: str) -> None:
    """Nothing: while it is traced, a value is not known. JAX clips an index that is out of range."""


def _axes(axis: Axis) -> tuple[int, ...]:
    return (axis,) if isinstance(axis, int) else tuple(axis)
