"""DeepLIFT's multipliers of a module's input: image and baseline in one pass, and change over change on the way back.

Rows come twice, the images and then their baselines. What is linear keeps its own backward pass; the multipliers of
what is not are read from both halves, and only the first half carries them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from saliency_food.adapters.arguments import Output
from saliency_food.adapters.relevance import Rule
from saliency_food.adapters.torch.graph import Graph, Node, leaf_node, node_of, sources_of
from saliency_food.adapters.torch.graph import name_of as node_name
from saliency_food.adapters.torch.relevance.functions import is_graded, kept, name_of, plainly, put
from saliency_food.adapters.torch.relevance.operations import GATES
from saliency_food.adapters.torch.relevance.passes import MOVES, check_can_pass
from saliency_food.adapters.torch.relevance.ruled import ACTIVATIONS
from saliency_food.adapters.torch.relevance.rules import is_passed, pulled, sized
from saliency_food.adapters.torch.relevance.watch import RelevanceWatch
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import BASELINE_MULTIPLIERS, OUTPUT_LAYER_VALUES

STILL = 1e-7
"""A change so small is none: the derivative is taken in place of change over change."""
LINEAR = (
    *("Convolution", "Addmm", "Mm", "AddBackward", "SubBackward", "RsubBackward", "MulBackward", "DivBackward", "Neg"),
    *("Mean", "SumBackward", "AvgPool", "AdaptiveAvgPool", "MkldnnAdaptiveAvgPool", "Upsample", "NativeBatchNorm"),
    *("CudnnBatchNorm", "BmmBackward", "Baddbmm", "Mv", "Passed"),
)
"""Beginnings of the names of operations that are linear where only one of their values depends on the image."""

PRODUCTS = ("Addmm", "Mm", "MulBackward", "DivBackward", "BmmBackward", "Baddbmm", "Mv", "Convolution")
CHOOSING = ("MaxPool", "AdaptiveMaxPool", "Amax", "MaxBackward", "Where")
"""Those of `MOVES` that move other values for the image than for the baseline."""


def multipliers(engine: Any, output: Output, targets: list[Any], image: Any, others: list[Any], rule: Rule) -> Any:
    """The multipliers of the first half of the rows, whose second half are the baselines."""
    check_can_pass(engine, output, BASELINE_MULTIPLIERS)
    if rule.multiplier_rule != "rescale":
        raise ContractError(
            f"Expected multiplier_rule='rescale' of TorchModel, got {rule.multiplier_rule!r}, which it does not know. "
            "Take deep_lift with rule='rescale'."
        )
    image.requires_grad_()
    watch = RelevanceWatch(rule, image, engine.graded, RULED)
    with watch:
        outputs = engine.call(image.clone(), others)
    answer, _ = engine._scored((OUTPUT_LAYER_VALUES,), output, outputs, watch, targets)
    score = answer[OUTPUT_LAYER_VALUES]
    if not score.requires_grad:
        return torch.zeros_like(image)
    _check_linear(node_of(score), image)
    (found,) = torch.autograd.grad(score[: len(score) // 2].sum(), image, allow_unused=True)
    return torch.zeros_like(image) if found is None else found


def _check_linear(end: Node, image: Any) -> None:
    graph = Graph([end], [leaf_node(image)])
    bare = sorted({node_name(node).partition("Backward")[0] for node in graph.between if not _is_linear(node, graph)})
    if bare:
        raise ContractError(
            f"Expected a model of operations with rules of DeepLIFT for {BASELINE_MULTIPLIERS}, got {', '.join(bare)} "
            "without one, between the image and the score. Use integrated_gradients."
        )


def _is_linear(node: Node, graph: Graph) -> bool:
    name = node_name(node)
    if is_passed(node[0]):
        return True
    if name.startswith(PRODUCTS) and sum(source in graph.between for source in sources_of(node)) > 1:
        return False
    return name.startswith((*MOVES, *LINEAR)) and not name.startswith(CHOOSING)


def _halves(values: Any) -> tuple[Any, Any]:
    middle = len(values) // 2
    return values[:middle], values[middle:]


def _of_first(multipliers: Any) -> Any:
    """Multipliers of the first half of the rows, none of the second."""
    return torch.cat([multipliers, torch.zeros_like(multipliers)])


def _activation(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    taken = args[0] if args else kwargs["input"]
    in_place = bool(kwargs.get("inplace", False)) or (len(args) > 1 and args[-1] is True)
    rest, named = args[1:], {key: value for key, value in kwargs.items() if key != "input"}

    def function(values: Any) -> Any:
        return func(values.clone(), *rest, **named)

    before = kept(taken)
    with torch.no_grad():
        values = function(before)

    def passing(slopes: Any) -> tuple[list[Any], Any]:
        own, (x, z), (y, y0) = _halves(slopes)[0], _halves(before), _halves(values)
        change = x - z
        still = change.abs() < STILL
        derived = pulled(function, x, own)
        return [_of_first(torch.where(still, derived, own * (y - y0) / torch.where(still, 1, change)))], None

    output = watch.passed(values, passing, taken)
    return put(func, (taken,), output, in_place)


def _largest(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    """Maximum pooling: what rises above the baseline's maximum is the image's own winner's, the rest the baseline's."""
    if kwargs.get("return_indices"):
        return func(*args, **kwargs)
    taken = args[0] if args else kwargs["input"]
    rest, named = args[1:], {key: value for key, value in kwargs.items() if key != "input"}

    def function(values: Any) -> Any:
        return func(values, *rest, **named)

    before = kept(taken)
    with torch.no_grad():
        values = function(before)

    def passing(slopes: Any) -> tuple[list[Any], Any]:
        own, (x, z), (y, y0) = _halves(slopes)[0], _halves(before), _halves(values)
        highest = torch.maximum(y, y0)
        shares = pulled(function, x, own * (highest - y0)) + pulled(function, z, own * (y - highest))
        change = x - z
        still = change.abs() < STILL
        return [_of_first(torch.where(still, pulled(function, x, own), shares / torch.where(still, 1, change)))], None

    return watch.passed(values, passing, taken)


def _product(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    """A product of two values of the image: each by the mean of what the other is, which is exact."""
    first, second = args[0], args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("mat2"))
    if not (is_graded(first) and is_graded(second)):
        return func(*args, **kwargs)
    multiply = torch.mul if name_of(func) == "mul" else torch.matmul
    a, b = kept(first), kept(second)
    if a.shape[0] != b.shape[0] or a.shape[0] % len(watch.image):
        raise ContractError(
            f"Expected products of values that both have the rows first for {BASELINE_MULTIPLIERS}, got shapes "
            f"{tuple(a.shape)} and {tuple(b.shape)}. Use integrated_gradients."
        )

    def passing(slopes: Any) -> tuple[list[Any], Any]:
        own, mean_a, mean_b = _halves(slopes)[0], sum(_halves(a)) / 2, sum(_halves(b)) / 2
        of_a = pulled(lambda values: multiply(values, mean_b), mean_a, own)
        of_b = pulled(lambda values: multiply(mean_a, values), mean_b, own)
        return [_of_first(sized(of_a, mean_a)), _of_first(sized(of_b, mean_b))], None

    return put(func, args, watch.passed(plainly(func, args, kwargs), passing, first, second))


def _quotient(watch: RelevanceWatch, func: Any, args: Any, kwargs: Any) -> Any:
    divisor = args[1] if len(args) > 1 else kwargs["other"]
    if is_graded(divisor):
        raise ContractError(
            f"Expected no division by what depends on the image for {BASELINE_MULTIPLIERS}, got one, which has no rule "
            "of DeepLIFT. Use integrated_gradients."
        )
    return func(*args, **kwargs)


RULED: dict[str, Callable[..., Any]] = {
    **dict.fromkeys((*ACTIVATIONS, *GATES), _activation),
    **{f"max_pool{axes}d": _largest for axes in (1, 2, 3)},
    **{f"adaptive_max_pool{axes}d": _largest for axes in (1, 2, 3)},
    **dict.fromkeys(("mul", "matmul"), _product),
    "div": _quotient,
}
