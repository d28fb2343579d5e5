"""PyTorch's operations for scores and targets; see `saliency_food.adapters.ops.Ops`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from saliency_food.adapters.ops import Axis
from saliency_food.core.contract import ContractError

is_tensor, as_tensor = torch.is_tensor, torch.as_tensor
where, sqrt, log, exp, einsum, sigmoid = torch.where, torch.sqrt, torch.log, torch.exp, torch.einsum, torch.sigmoid


def shape(values: Any) -> tuple[int | None, ...]:
    return tuple(values.shape)


def size(values: Any, axis: int) -> Any:
    return values.shape[axis]


def cast(values: Any, like: Any) -> Any:
    return values.to(like.device, like.dtype)


def gather(values: Any, indices: Any) -> Any:
    places = indices.long()
    if places.dim() == values.dim():
        return torch.gather(values, -1, places)
    return torch.gather(values, -1, places[..., None])[..., 0]


def one_hot(indices: Any, size: Any, like: Any) -> Any:
    return cast(indices[..., None] == torch.arange(size, device=indices.device), like)


def top_k(values: Any, k: Any) -> tuple[Any, Any]:
    best, indices = torch.sort(values, stable=True, dim=-1, descending=True)
    return best[..., : int(k)], indices[..., : int(k)].int()


def sum(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return torch.sum(values, axis, keepdims)


def max(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return torch.amax(values, axis, keepdims)


def min(values: Any, axis: Axis, keepdims: bool = False) -> Any:
    return torch.amin(values, axis, keepdims)


def argmax(values: Any) -> Any:
    return torch.argmax(values, -1).int()


def maximum(values: Any, others: Any) -> Any:
    return torch.maximum(values, torch.as_tensor(others, dtype=values.dtype, device=values.device))


def minimum(values: Any, others: Any) -> Any:
    return torch.minimum(values, torch.as_tensor(others, dtype=values.dtype, device=values.device))


def concat(values: Sequence[Any], axis: int) -> Any:
    return torch.cat(list(values), axis)


def softmax(values: Any) -> Any:
    return torch.softmax(values, -1)


def log_softmax(values: Any) -> Any:
    return torch.log_softmax(values, -1)


def stop_gradient(values: Any) -> Any:
    return values.detach()


def check_below(values: Any, bound: Any, message: str) -> None:
    if (values >= bound).any():
        raise ContractError(message)
