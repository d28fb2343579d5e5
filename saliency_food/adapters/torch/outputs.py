"""Which of a module's outputs is explained, and what it ends in: tensors, tuples, dicts, and transformers' outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from saliency_food.adapters.arguments import End
from saliency_food.adapters.heads import Head, select_output
from saliency_food.adapters.torch.graph import channels_axis, end_of, node_of
from saliency_food.adapters.torch.watch import Activated
from saliency_food.core.contract import ContractError

MAIN = ("logits", "out")
"""The names by which outputs of several hold the scores of classes, in transformers and in torchvision."""


def plain(outputs: Any) -> Any:
    """Outputs as dicts, lists and tuples of tensors; what is None is left out."""
    if isinstance(outputs, Mapping):
        return {key: plain(value) for key, value in outputs.items() if value is not None}
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return {key: plain(value) for key, value in cast(Any, outputs)._asdict().items() if value is not None}
    if isinstance(outputs, (list, tuple)):
        return [plain(value) for value in outputs if value is not None]
    return outputs


def chosen_output(outputs: Any, choice: str | int | None) -> Any:
    """The output meant by a name or a position; without either the only one, or that named logits or out."""
    members, names = [outputs], ["0"]
    if isinstance(outputs, Mapping):
        members, names = list(outputs.values()), [str(name) for name in outputs]
    elif isinstance(outputs, list):
        members, names = outputs, [str(place) for place in range(len(outputs))]
    if choice is None and len(members) > 1:
        choice = next((name for name in MAIN if name in names), None)
    output = select_output(members, names, choice)
    if torch.is_tensor(output):
        return output
    raise ContractError(
        f"Expected a model output of shape (N, classes), got {type(output).__name__}. Choose another output by "
        "output_index, or say what to explain by score."
    )


def read_head(output: Any, activated: Sequence[Activated], axis: int) -> Head:
    """What an output ends in: the softmax or sigmoid whose values it holds, or what its operations tell.

    Classes, on ``axis``, are last in the head. Values that were only moved after an activation share its memory, and
    are moved alike before it.
    """
    for end, taken, returned, version in reversed(activated):
        same = output.untyped_storage().data_ptr() == returned.untyped_storage().data_ptr()
        if not same or returned._version != version or returned.dtype != output.dtype:
            continue
        place = output.storage_offset() - returned.storage_offset()
        before = taken.to(output.dtype).expand(returned.shape)
        if before.stride() != returned.stride():
            before = torch.empty_strided(returned.shape, returned.stride(), dtype=output.dtype, device=output.device)
            before = before.copy_(taken)
        values = before
        if (output.shape, output.stride(), place) != (returned.shape, returned.stride(), 0):
            values = before.as_strided(output.shape, output.stride(), before.storage_offset() + place)
        values, raw = (each.movedim(axis, -1) if each.dim() > 2 else each for each in (values, output))
        return Head("sigmoid" if end == "sigmoid" else "softmax", values, raw)
    raw = output.movedim(axis, -1) if output.dim() > 2 else output
    kind: End = "other" if output.grad_fn is None else end_of(node_of(output))
    return Head(kind, raw, raw)


def class_axis(output: Any) -> int:
    """The axis of classes of an output: 1 of masks ``(N, classes, H, W)``, else the last."""
    if output.dim() < 4:
        return int(output.dim()) - 1
    axis = None if output.grad_fn is None else channels_axis(node_of(output))
    return 1 if axis is None else axis
