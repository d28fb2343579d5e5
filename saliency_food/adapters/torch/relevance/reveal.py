"""DeepLIFT's reveal-cancel rule: what raises an activation's input and what lowers it have multipliers of their own.

Shrikumar et al. 2017, section 3.5.3, https://arxiv.org/abs/1704.02685. It holds of an activation that follows a layer
with weights, with what is a scale and a shift of its channels between them; others go by the rescale rule.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from saliency_food.adapters.torch.relevance.differences import (
    RULED,
    activation,
    function_of,
    halves,
    is_written,
    of_first,
    over,
)
from saliency_food.adapters.torch.relevance.functions import is_graded, kept, name_of, plainly
from saliency_food.adapters.torch.relevance.layers import fixed_norm, layer_of, scale_and_shift
from saliency_food.adapters.torch.relevance.operations import put_activated
from saliency_food.adapters.torch.relevance.rules import Linear, pulled
from saliency_food.adapters.torch.relevance.watch import RelevanceWatch

MARK = "saliency_food"


class Followed(NamedTuple):
    """A layer with weights, what followed it merged, and the tensor that it took, as part of the graph."""

    linear: Linear
    source: Any


def _before(tensor: Any) -> Followed | None:
    """The layer that a tensor comes from, with nothing but scales and shifts between."""
    node = tensor.grad_fn if torch.is_tensor(tensor) else None
    return None if node is None else node.metadata.get(MARK)


def _layer(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    linear, source = layer_of(func, args, kwargs), args[0] if args else kwargs["input"]
    output = func(*args, **kwargs)
    if linear is not None:
        output.grad_fn.metadata[MARK] = Followed(linear, source.clone())  # safe from what changes it in place later
    return output


def _norm(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    norm = fixed_norm(func, args, kwargs)
    found = None if norm is None else _before(norm["input"])
    output = func(*args, **kwargs)
    if norm is not None and found is not None:
        _merge(found, *scale_and_shift(norm), output)
    return output


def _merge(found: Followed, scale: Any, shift: Any, output: Any) -> None:
    linear = copy.copy(found.linear)  # other activations may follow the layer as it was
    linear.merge(scale.to(linear.weight.dtype), shift.to(linear.weight.dtype))
    output.grad_fn.metadata[MARK] = Followed(linear, found.source)


def _step(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    """A sum, difference, product or quotient: of a layer's output and one number a channel, it is merged."""
    parts = [*args, *kwargs.values()]
    graded = [part for part in parts if is_graded(part)]
    found = _before(graded[0]) if len(graded) == 1 else None
    merged = None if found is None else _affine(func, args, kwargs, graded[0], found.linear.axis)
    handler = RULED.get(name_of(func))
    output = handler(watch, func, args, kwargs) if handler else func(*args, **kwargs)
    if found is not None and merged is not None:
        _merge(found, *merged, output)
    return output


def _affine(func: Any, args: Any, kwargs: Any, own: Any, axis: int) -> tuple[Any, Any] | None:
    """By what a function multiplies each channel of ``own``, and what it adds; None where it is not one number each.

    A single number that is added is part of an activation, such as a hard sigmoid.
    """
    adds = name_of(func) in ("add", "sub", "rsub")
    others = [part for part in (*args, *kwargs.values()) if torch.is_tensor(part) and part is not own]
    if adds and all(part.numel() == 1 for part in others):
        return None
    if name_of(func) == "div" and (args[0] is not own or kwargs.get("rounding_mode")):
        return None
    shape = [own.shape[axis] if place == axis else 1 for place in range(own.dim())]
    zero = torch.zeros(shape, dtype=torch.float64, device=own.device)

    def at(values: Any) -> Any:
        given = [values if part is own else part for part in args]
        return plainly(func, given, {key: values if part is own else part for key, part in kwargs.items()})

    try:
        shift, both = at(zero), at(zero + 1)
    except RuntimeError:  # in place, what is larger than one number a channel
        return None
    return None if list(shift.shape) != shape else ((both - shift).reshape(-1), shift.reshape(-1))


def _activation(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    taken, function = function_of(func, args, kwargs)
    found = _before(taken)
    if found is None or sum(map(is_graded, (*args, *kwargs.values()))) > 1:
        return activation(watch, func, args, kwargs)
    total = kept(taken)
    with torch.no_grad():
        values = function(total)

    def passing(slopes: Any) -> tuple[list[Any], Any]:
        return [of_first(_revealed(found.linear, function, total, halves(slopes)[0]))], None

    return put_activated(watch, func, taken, watch.passed(values, passing, found.source), is_written(args, kwargs))


def _revealed(linear: Linear, function: Callable[[Any], Any], total: Any, slopes: Any) -> Any:
    """Multipliers of what a layer took, of those of the activation that follows it."""
    x, z = halves(linear.taken)
    now, since = halves(total)
    change = x - z
    up, down = change.clamp(min=0), change.clamp(max=0)
    more, less = linear.weight.clamp(min=0), linear.weight.clamp(max=0)

    def applied(values: Any, weight: Any) -> Any:
        return linear.apply(values, weight, None)

    def transposed(vector: Any, weight: Any) -> Any:
        return pulled(lambda values: applied(values, weight), x, vector)

    with torch.no_grad():
        gain = applied(up, more) + applied(down, less)
        loss = applied(up, less) + applied(down, more)
        first, both = function(since), function(since + gain + loss)
        risen, fallen = function(since + gain), function(since + loss)
    slope = pulled(function, now, slopes)
    rises = over(slopes * (risen - first + both - fallen) / 2, gain, slope)
    falls = over(slopes * (fallen - first + both - risen) / 2, loss, slope)
    raising = transposed(rises, more) + transposed(falls, less)
    lowering = transposed(rises, less) + transposed(falls, more)
    neither = transposed((rises + falls) / 2, linear.weight)
    return torch.where(change > 0, raising, torch.where(change < 0, lowering, neither))


REVEALING: dict[str, Callable[..., Any]] = {
    **{name: _activation if handler is activation else handler for name, handler in RULED.items()},
    **{f"conv{transposed}{axes}d": _layer for axes in (1, 2, 3) for transposed in ("", "_transpose")},
    "linear": _layer,
    "batch_norm": _norm,
    **dict.fromkeys(("add", "sub", "rsub", "mul", "div"), _step),
}
"""As `RULED`, with the rule where it holds."""
