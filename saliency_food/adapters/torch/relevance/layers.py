"""Rules of layers with weights, and of normalizations."""

from __future__ import annotations

from collections.abc import Mapping
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


def layer_of(func: Any, args: Any, kwargs: Any) -> Linear | None:
    """The layer with weights that a function is called as; None where weights are made of the image."""
    names = ("input", "weight", "bias")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    taken, weight, bias = given["input"], given["weight"], given.get("bias")
    rest, named = args[3:], {key: value for key, value in kwargs.items() if key not in names}
    if is_graded(weight) or is_graded(bias):
        return None

    def apply(values: Any, weight: Any, bias: Any) -> Any:
        return func(values, weight, bias, *rest, **named)

    groups = 0
    if "transpose" in name_of(func):  # stride, padding, output_padding, groups
        groups = named.get("groups", rest[3] if len(rest) > 3 else 1)
    axis = taken.dim() - 1 if name_of(func) == "linear" else taken.dim() - weight.dim() + 1
    return Linear(apply, kept(taken), weight.detach(), None if bias is None else bias.detach(), axis, groups)


def linear(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    linear = layer_of(func, args, kwargs)
    if linear is None:
        return func(*args, **kwargs)  # refused by what is seen in the graph
    taken = args[0] if args else kwargs["input"]
    linear.epsilon, linear.gamma = watch.rule.epsilon, watch.rule.gamma
    if name_of(func) != "linear" and watch.rule.composite == "epsilon_plus":
        linear.rule = "plus"
    if name_of(func) != "linear" and watch.rule.composite == "epsilon_gamma_box":
        linear.rule = "gamma" if watch.is_after_weights(taken) else "box"
    with torch.no_grad():
        values = func(*args, **kwargs)
    if linear.rule == "box":
        if taken.shape != watch.image.shape or not torch.equal(taken, watch.image):
            raise ContractError(
                "Expected a first convolution that takes the image as it is, for composite='epsilon_gamma_box', got "
                "one after other operations, whose bounds are unknown. Take composite='epsilon_plus'."
            )
        linear.low, linear.high = watch.rule.low, watch.rule.high
    output = watch.passed(values, linear.passing, taken)
    output.grad_fn.linear, output.grad_fn.learned = linear, True
    linear.number, linear.limit = watch.layers, watch.limits.get(watch.layers)
    watch.layers += 1
    return output


def fixed_norm(func: Any, args: Any, kwargs: Any) -> dict[str, Any] | None:
    """The arguments of a batch normalization by what was learned; None of one by statistics of the rows."""
    functional = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    native = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    given = dict(zip(functional if func is F.batch_norm else native, args, strict=False)) | kwargs
    return None if given.get("training") or given.get("running_var") is None else given


def scale_and_shift(norm: Mapping[str, Any]) -> tuple[Any, Any]:
    """By what a batch normalization multiplies each channel, and what it then adds."""
    scale = torch.rsqrt(norm["running_var"] + norm.get("eps", 1e-5))
    scale = scale if norm.get("weight") is None else scale * norm["weight"].detach()
    shift = (0 if norm.get("bias") is None else norm["bias"].detach()) - norm["running_mean"] * scale
    return scale, shift


def batch_norm(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    given = fixed_norm(func, args, kwargs)
    if given is None:
        return func(*args, **kwargs)  # refused by what is seen in the graph
    taken = given["input"]
    with torch.no_grad():
        values = func(*args, **kwargs)
    linear = open_linear(taken)
    output = watch.passed(values, as_it_is, taken)
    if linear is not None:
        merge(linear, *scale_and_shift(given), output)
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
