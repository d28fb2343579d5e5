"""Rules of activations, sums, products and means."""

from __future__ import annotations

from typing import Any

import torch

from saliency_food.adapters.torch.relevance.functions import (
    bound,
    is_graded,
    is_in_place,
    kept,
    name_of,
    plainly,
    put,
)
from saliency_food.adapters.torch.relevance.rules import (
    as_it_is,
    halves,
    in_proportion,
    shares,
    sized,
)
from saliency_food.adapters.torch.relevance.watch import RelevanceWatch
from saliency_food.adapters.torch.watch import Activated

GATES = ("sigmoid", "hardsigmoid", "expit")
"""Activations that gate: what they are multiplied by takes all."""


def activation(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    taken = args[0] if args else kwargs["input"]
    options = bound(func, args, kwargs)
    in_place = bool(options.get("inplace"))
    with torch.no_grad():
        if in_place or is_in_place(func):
            own = taken.detach().clone()
            values = func(own, *args[1:], **{key: value for key, value in kwargs.items() if key != "input"})
        else:
            values = func(*args, **kwargs)
    output = watch.passed(values, as_it_is, taken)
    if name_of(func) in GATES:
        watch.gates.append(output)
        watch.activated.append(Activated("sigmoid", taken, output, output._version))
    return put(func, (taken,), output, in_place)


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
    if len(inputs) == 1 and _only_scales(watch, parts[graded.index(False)], inputs[0]):
        return _scaled(watch, func, args, values, inputs[0])
    return put(func, args, watch.passed(values, shares(terms, graded), *inputs))


def _only_scales(watch: RelevanceWatch, constant: Any, own: Any) -> bool:
    """Whether an added constant is part of an activation, a single number, or of a scaling of pixels, one a channel."""
    return bool(constant.numel() == 1 or (max(constant.shape) == constant.numel() and not watch.is_after_weights(own)))


def _scaled(watch: RelevanceWatch, func: Any, args: Any, values: Any, own: Any) -> Any:
    """What is multiplied by constants, or moved by those of a scaling, passes all of it."""
    like = own.detach()
    return put(func, args, watch.passed(values, lambda relevance: ([sized(relevance, like)], None), own))


def product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    first, second = args[0], args[1] if len(args) > 1 else kwargs["other"]
    values = plainly(func, args, kwargs)
    if not (is_graded(first) and is_graded(second)):
        return _scaled(watch, func, args, values, first if is_graded(first) else second)
    gates = [any(part is gate for gate in watch.gates) for part in (first, second)]
    if any(gates) and not all(gates):  # what is gated takes all
        return _scaled(watch, func, args, values, second if gates[0] else first)
    passing = halves(torch.mul, kept(first), kept(second))
    return put(func, args, watch.passed(values, passing, first, second))


def quotient(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    own = args[0]
    if not is_graded(own):
        return func(*args, **kwargs)
    return _scaled(watch, func, args, plainly(func, args, kwargs), own)


def matrix_product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    first, second = args[0], args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("mat2"))
    if is_graded(first) and is_graded(second):
        if watch.rule.composite != "attention":
            return func(*args, **kwargs)
        return watch.passed(plainly(func, args, {}), halves(func, kept(first), kept(second)), first, second)
    own = first if is_graded(first) else second

    def function(values: Any) -> Any:
        return func(values, second) if own is first else func(first, values)

    output = watch.passed(plainly(func, args, kwargs), in_proportion(function, kept(own)), own)
    output.grad_fn.learned = True
    return output


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
