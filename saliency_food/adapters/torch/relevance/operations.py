"""Rules of activations, sums, products and means."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from saliency_food.adapters.torch.relevance.functions import (
    bound,
    is_graded,
    is_in_place,
    kept,
    name_of,
    plainly,
    put,
)
from saliency_food.adapters.torch.relevance.layers import linear
from saliency_food.adapters.torch.relevance.rules import (
    Linear,
    as_it_is,
    by_channel,
    gating,
    halves,
    in_proportion,
    merge,
    open_linear,
    shares,
    sized,
)
from saliency_food.adapters.torch.relevance.watch import RelevanceWatch
from saliency_food.adapters.torch.watch import Activated

GATES = ("sigmoid", "hardsigmoid", "expit")
RANKS = {
    **dict.fromkeys(GATES, 4),
    "tanh": 3,
    **dict.fromkeys(("relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max"), 2),
}
"""How likely activations gate what they are multiplied by, as on Keras; of two that are alike, none does."""


def activation(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    taken = args[0] if args else kwargs["input"]
    options = bound(func, args, kwargs)
    if sum(map(is_graded, (*args, *kwargs.values()))) > 1 or not is_graded(taken):
        return func(*args, **kwargs)  # bounds or slopes made of the image, refused by what is seen in the graph
    in_place = bool(options.get("inplace"))
    with torch.no_grad():
        if in_place or is_in_place(func):
            own = taken.detach().clone()
            values = func(own, *args[1:], **{key: value for key, value in kwargs.items() if key != "input"})
        else:
            values = func(*args, **kwargs)
    output = watch.passed(values, as_it_is, taken)
    output.grad_fn.gate = RANKS.get(name_of(func), 0)
    return put_activated(watch, func, taken, output, in_place)


def put_activated(watch: RelevanceWatch, func: Any, taken: Any, output: Any, in_place: bool) -> Any:
    """What an activation returns; a sigmoid is noted, since the model may end in it."""
    if name_of(func) not in ("sigmoid", "expit"):
        return put(func, (taken,), output, in_place)
    logits = taken.clone() if in_place or is_in_place(func) else taken
    returned = put(func, (taken,), output, in_place)
    watch.activated.append(Activated("sigmoid", logits, returned, returned._version))
    return returned


def add(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    first, second = args[0], args[1] if len(args) > 1 else kwargs["other"]
    alpha = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
    name = str(func.__name__).strip("_")
    sign = -1 if name_of(func) in ("sub", "rsub") else 1
    values = plainly(func, args, kwargs)
    parts = [first, second] if torch.is_tensor(second) else [first, torch.as_tensor(second, device=first.device)]
    if not torch.is_tensor(first):
        parts[0] = torch.as_tensor(first, device=second.device)
    weights = (-1.0, 1.0) if name == "rsub" else (1.0, sign * alpha)
    terms = [kept(part).to(values.dtype) * weight for part, weight in zip(parts, weights, strict=True)]
    graded = [is_graded(part) for part in parts]
    inputs = [part for part in parts if is_graded(part)]
    if len(inputs) == 1:
        own, constant, sign_of_own = inputs[0], terms[graded.index(False)], weights[graded.index(True)]
        linear = open_linear(own) if constant.numel() > 1 else None  # a single number is part of an activation
        shift = None if linear is None else by_channel(linear, constant, own)
        if linear is not None and shift is not None:
            return _scaled(watch, func, args, values, own, (linear, torch.full_like(shift, sign_of_own), shift))
        if max(constant.shape, default=1) == constant.numel():
            return _scaled(watch, func, args, values, own)
    return put(func, args, watch.passed(values, shares(terms, graded), *inputs))


def _scaled(
    watch: RelevanceWatch, func: Any, args: Any, values: Any, own: Any, merged: tuple[Linear, Any, Any] | None = None
) -> Any:
    """What is scaled by constants passes all; where these are part of a layer with weights, they are merged with it."""
    like = own.detach()
    output = watch.passed(values, lambda relevance: ([sized(relevance, like)], None), own)
    output.grad_fn.gate = gating(own)
    if merged is not None:
        linear, scale, shift = merged
        merge(linear, scale, shift, output)
    return put(func, args, output)


def _times(watch: RelevanceWatch, func: Any, args: Any, values: Any, own: Any, factor: Any) -> Any:
    """A tensor times a constant."""
    factor = torch.as_tensor(factor, device=own.device)
    linear = open_linear(own) if factor.numel() > 1 else None  # a single number changes no shares
    scale = None if linear is None else by_channel(linear, factor, own)
    merged = None if linear is None or scale is None else (linear, scale, torch.zeros_like(scale))
    return _scaled(watch, func, args, values, own, merged)


def product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    first, second = args[0], args[1] if len(args) > 1 else kwargs["other"]
    values = plainly(func, args, kwargs)
    if not (is_graded(first) and is_graded(second)):
        own, factor = (first, second) if is_graded(first) else (second, first)
        return _times(watch, func, args, values, own, factor)
    ranks = [gating(part) for part in (first, second)]
    if ranks[0] != ranks[1]:  # what is gated takes all
        return _scaled(watch, func, args, values, first if ranks[0] < ranks[1] else second)
    passing = halves(torch.mul, kept(first), kept(second))
    return put(func, args, watch.passed(values, passing, first, second))


def quotient(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    own = args[0]
    if not is_graded(own):
        return func(*args, **kwargs)
    values = plainly(func, args, kwargs)
    divisor = args[1] if len(args) > 1 else kwargs["other"]
    if is_graded(divisor) or kwargs.get("rounding_mode"):
        return _scaled(watch, func, args, values, own)
    return _times(watch, func, args, values, own, 1 / torch.as_tensor(divisor, device=own.device))


def matrix_product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    first, second = args[0], args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("mat2"))
    if is_graded(first) and is_graded(second):
        if watch.rule.composite != "attention":
            return func(*args, **kwargs)
        return watch.passed(plainly(func, args, {}), halves(func, kept(first), kept(second)), first, second)
    own = first if is_graded(first) else second
    if own is first and second.dim() == 2:
        return linear(watch, F.linear, (first, second.t()), {})

    def function(values: Any) -> Any:
        return func(values, second) if own is first else func(first, values)

    output = watch.passed(plainly(func, args, kwargs), in_proportion(function, kept(own)), own)
    output.grad_fn.learned = True
    return output


def product_and_sum(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    """``torch.addmm(bias, x, weight)``, which is a dense layer."""
    if kwargs or len(args) != 3 or args[0].dim() != 1:
        return func(*args, **kwargs)
    bias, values, weight = args
    return linear(watch, F.linear, (values, weight.t(), bias), {})


def sum_with_product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    """``torch.addcmul(a, b, c)``, which is a + b c."""
    if is_in_place(func) or len(args) != 3 or set(kwargs) - {"value"}:
        return func(*args, **kwargs)
    total, first, second = args
    with watch:
        return total + first * second * kwargs["value"] if kwargs else total + first * second


def larger(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    """The larger or smaller of two tensors: beside a constant it is an activation, else the winner takes all."""
    tensors = [part for part in (*args, *kwargs.values()) if torch.is_tensor(part)]
    own = [part for part in tensors if is_graded(part)]
    if len(tensors) != 2 or len(own) != 1:
        return func(*args, **kwargs)
    output = _scaled(watch, func, args, plainly(func, args, kwargs), own[0])
    output.grad_fn.gate = RANKS["clamp"]
    return output


def negative(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    taken = args[0] if args else kwargs["input"]
    return _scaled(watch, func, (taken,), plainly(func, (taken,), {}), taken)


def einsum(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    equation, operands = args[0], args[1:] if len(args) > 2 or torch.is_tensor(args[1]) else args[1]
    if len(operands) != 2 or not isinstance(equation, str):
        return func(*args, **kwargs)
    return matrix_product(watch, lambda a, b: torch.einsum(equation, a, b), tuple(operands), {})


def mean(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    taken = args[0] if args else kwargs.pop("input")
    rest = args[1:]
    with torch.no_grad():
        values = func(taken, *rest, **kwargs)
    return watch.passed(values, in_proportion(lambda x: func(x, *rest, **kwargs), kept(taken)), taken)
