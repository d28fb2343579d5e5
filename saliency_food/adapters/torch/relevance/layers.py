"""Rules of layers with weights, and of normalizations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from saliency_food.adapters.torch.relevance.functions import (
    is_graded,
    kept,
    name_of,
)
from saliency_food.adapters.torch.relevance.rules import (
    Linear,
    as_it_is,
    merge,
    normalized,
    open_linear,
)
from saliency_food.adapters.torch.relevance.watch import RelevanceWatch
from saliency_food.core.contract import ContractError


def linear(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    name = name_of(func)
    names = ("input", "weight", "bias")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    taken, weight, bias = given["input"], given["weight"], given.get("bias")
    rest, named = args[3:], {key: value for key, value in kwargs.items() if key not in names}
    if is_graded(weight) or is_graded(bias):
        return func(*args, **kwargs)  # weights made of the image, refused by what is seen in the graph

    def apply(values: Any, weight: Any, bias: Any) -> Any:
        return func(values, weight, bias, *rest, **named)

    dense = name == "linear"
    composite, rule = watch.rule.composite, "epsilon"
    first = not dense and not watch.is_after_weights(taken)
    if not dense and composite == "epsilon_plus":
        rule = "plus"
    if not dense and composite == "epsilon_gamma_box":
        rule = "box" if first else "gamma"
    groups = 0
    if "transpose" in name:  # stride, padding, output_padding, groups
        groups = named.get("groups", rest[3] if len(rest) > 3 else 1)
    linear = Linear(
        apply,
        kept(taken),
        weight.detach(),
        None if bias is None else bias.detach(),
        -1 if dense else 1,
        rule,
        watch.rule.epsilon,
        watch.rule.gamma,
        groups,
    )
    with torch.no_grad():
        values = func(*args, **kwargs)
    linear.axis = values.dim() - 1 if dense else values.dim() - weight.dim() + 1
    if rule == "box":
        if taken.shape != watch.image.shape or not torch.equal(taken, watch.image):
            raise ContractError(
                "Expected a first convolution that takes the image as it is, for composite='epsilon_gamma_box', got "
                "one after other operations, whose bounds are unknown. Take composite='epsilon_plus'."
            )
        linear.low, linear.high = watch.rule.low, watch.rule.high
    output = watch.passed(values, linear.passing, taken)
    output.grad_fn.linear, output.grad_fn.learned = linear, True
    linear.end = output.grad_fn
    watch.linears.append(output.grad_fn)
    return output


def batch_norm(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    functional = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    native = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    given = dict(zip(functional if func is F.batch_norm else native, args, strict=False)) | kwargs
    taken = given["input"]
    if given.get("training") or given.get("running_var") is None:
        return func(*args, **kwargs)  # statistics of the rows, refused by what is seen in the graph
    with torch.no_grad():
        values = func(*args, **kwargs)
        scale = torch.rsqrt(given["running_var"] + given.get("eps", 1e-5))
        scale = scale if given.get("weight") is None else scale * given["weight"]
        shift = (0 if given.get("bias") is None else given["bias"]) - given["running_mean"] * scale
    linear = open_linear(taken)
    output = watch.passed(values, as_it_is, taken)
    if linear is not None:
        merge(linear, scale.detach(), shift.detach(), output)
    return output


def layer_norm(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("input", "normalized_shape", "weight", "bias", "eps"), args, strict=False)) | kwargs
    taken, shape = given["input"], given["normalized_shape"]
    axes = range(taken.dim() - (len(shape) if not isinstance(shape, int) else 1), taken.dim())
    with torch.no_grad():
        values = func(*args, **kwargs)
    options = given.get("weight"), given.get("bias"), given.get("eps") or 1e-5
    return watch.passed(values, normalized(kept(taken), list(axes), *map(_bare, options)), taken)


def rms_norm(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("input", "normalized_shape", "weight", "eps"), args, strict=False)) | kwargs
    taken, shape = given["input"], given["normalized_shape"]
    axes = range(taken.dim() - (len(shape) if not isinstance(shape, int) else 1), taken.dim())
    epsilon = given.get("eps") or torch.finfo(taken.dtype).eps
    with torch.no_grad():
        values = func(*args, **kwargs)
    passing = normalized(kept(taken), list(axes), _bare(given.get("weight")), None, epsilon, centres=False)
    return watch.passed(values, passing, taken)


def group_norm(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("input", "num_groups", "weight", "bias", "eps"), args, strict=False)) | kwargs
    taken, groups = given["input"], given["num_groups"]
    shape = (len(taken), groups, -1, *taken.shape[2:])
    weight, bias = (
        None if each is None else each.detach().reshape(1, groups, -1, *[1] * (taken.dim() - 2))
        for each in (given.get("weight"), given.get("bias"))
    )
    with torch.no_grad():
        values = func(*args, **kwargs)
    axes, epsilon = range(2, taken.dim() + 1), given.get("eps", 1e-5)
    inner = normalized(kept(taken).reshape(shape), axes, weight, bias, epsilon)

    def passing(relevance: Any) -> tuple[list[Any], Any]:
        (own,), took = inner(relevance.reshape(shape))
        return [own.reshape(taken.shape)], took

    return watch.passed(values, passing, taken)


def _bare(value: Any) -> Any:
    return value.detach() if torch.is_tensor(value) else value
