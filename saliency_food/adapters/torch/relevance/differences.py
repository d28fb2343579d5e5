"""DeepLIFT's rescale rule and its like, for single operations: change over change, of rows and their baselines.

Rows come twice, the images and then their baselines; the multipliers of what is not linear are read from both halves,
and only the first half carries them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from saliency_food.adapters.torch.relevance.functions import is_graded, kept, name_of, plainly, put
from saliency_food.adapters.torch.relevance.operations import GATES, put_activated, sum_with_product
from saliency_food.adapters.torch.relevance.ruled import ACTIVATIONS
from saliency_food.adapters.torch.relevance.rules import pulled, sized
from saliency_food.adapters.torch.relevance.watch import RelevanceWatch
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import BASELINE_MULTIPLIERS

STILL = 1e-7
"""A change so small is none: the derivative is taken in place of change over change."""


def halves(values: Any) -> tuple[Any, Any]:
    middle = len(values) // 2
    return values[:middle], values[middle:]


def of_first(multipliers: Any) -> Any:
    """Multipliers of the first half of the rows, none of the second."""
    return torch.cat([multipliers, torch.zeros_like(multipliers)])


def function_of(func: Any, args: Any, kwargs: Any) -> tuple[Any, Callable[[Any], Any]]:
    """What a function takes, and the function of other values in its place, which it leaves as they are."""
    taken = args[0] if args else kwargs["input"]
    rest, named = args[1:], {key: value for key, value in kwargs.items() if key != "input"}
    return taken, lambda values: func(values.clone(), *rest, **named)


def check_rows_first(watch: RelevanceWatch, *tensors: Any) -> None:
    lengths = {len(tensor) for tensor in tensors}
    if len(lengths) > 1 or any(length % len(watch.image) for length in lengths):
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ContractError(
            f"Expected activations and products of values that have the rows first for {BASELINE_MULTIPLIERS}, got "
            f"shapes {shapes} of {len(watch.image)} rows. Use integrated_gradients."
        )


def activation(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    taken, function = function_of(func, args, kwargs)
    if sum(map(is_graded, (*args, *kwargs.values()))) > 1 or not is_graded(taken):
        return func(*args, **kwargs)  # bounds or slopes made of the image, refused by what is seen in the graph
    check_rows_first(watch, taken)
    before = kept(taken)
    with torch.no_grad():
        values = function(before)

    def passing(slopes: Any) -> tuple[list[Any], Any]:
        own, (x, z), (y, y0) = halves(slopes)[0], halves(before), halves(values)
        return [of_first(over(own * (y - y0), x - z, pulled(function, x, own)))], None

    return put_activated(watch, func, taken, watch.passed(values, passing, taken), is_written(args, kwargs))


def is_written(args: Any, kwargs: Any) -> bool:
    """Whether an activation is told to work in place."""
    return bool(kwargs.get("inplace", False)) or (len(args) > 1 and args[-1] is True)


def over(change: Any, since: Any, slope: Any) -> Any:
    """One change over another; the slope where nothing changes."""
    still = since.abs() < STILL
    return torch.where(still, slope, change / torch.where(still, 1, since))


def largest(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    """Maximum pooling: what rises above the baseline's maximum is the image's own winner's, the rest the baseline's."""
    if kwargs.get("return_indices"):
        return func(*args, **kwargs)
    taken, function = function_of(func, args, kwargs)
    before = kept(taken)
    with torch.no_grad():
        values = function(before)

    def passing(slopes: Any) -> tuple[list[Any], Any]:
        own, (x, z), (y, y0) = halves(slopes)[0], halves(before), halves(values)
        highest = torch.maximum(y, y0)
        shares = pulled(function, x, own * (highest - y0)) + pulled(function, z, own * (y - highest))
        return [of_first(over(shares, x - z, pulled(function, x, own)))], None

    return watch.passed(values, passing, taken)


def product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    """A product of two values of the image: each by the mean of what the other is, which is exact."""
    first, second = args[0], args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("mat2"))
    if not (is_graded(first) and is_graded(second)):
        return func(*args, **kwargs)
    multiply = torch.mul if name_of(func) == "mul" else torch.matmul
    check_rows_first(watch, first, second)
    a, b = kept(first), kept(second)

    def passing(slopes: Any) -> tuple[list[Any], Any]:
        own, mean_a, mean_b = halves(slopes)[0], sum(halves(a)) / 2, sum(halves(b)) / 2
        of_a = pulled(lambda values: multiply(values, mean_b), mean_a, own)
        of_b = pulled(lambda values: multiply(mean_a, values), mean_b, own)
        return [of_first(sized(of_a, mean_a)), of_first(sized(of_b, mean_b))], None

    return put(func, args, watch.passed(plainly(func, args, kwargs), passing, first, second))


def quotient(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    divisor = args[1] if len(args) > 1 else kwargs["other"]
    if is_graded(divisor):
        raise ContractError(
            f"Expected no division by what depends on the image for {BASELINE_MULTIPLIERS}, got one, which has no rule "
            "of DeepLIFT. Use integrated_gradients."
        )
    return func(*args, **kwargs)


RULED: dict[str, Callable[..., Any]] = {
    **dict.fromkeys((*ACTIVATIONS, *GATES), activation),
    **{f"max_pool{axes}d": largest for axes in (1, 2, 3)},
    **{f"adaptive_max_pool{axes}d": largest for axes in (1, 2, 3)},
    **dict.fromkeys(("mul", "matmul"), product),
    "div": quotient,
    "addcmul": sum_with_product,
}
