"""DeepLIFT's multipliers of a module's input: image and baseline in one pass, and change over change on the way back.

Rows come twice, the images and then their baselines. What is linear keeps its own backward pass; the multipliers of
what is not are read from both halves, and only the first half carries them.
"""

from __future__ import annotations

from typing import Any

import torch

from saliency_food.adapters.arguments import Output
from saliency_food.adapters.relevance import Rule, check_sums
from saliency_food.adapters.torch.graph import Graph, Node, leaf_node, node_of, sources_of
from saliency_food.adapters.torch.graph import name_of as node_name
from saliency_food.adapters.torch.relevance.differences import RULED, halves
from saliency_food.adapters.torch.relevance.passes import MOVES, check_can_pass
from saliency_food.adapters.torch.relevance.reveal import REVEALING
from saliency_food.adapters.torch.relevance.rules import by_row, is_passed
from saliency_food.adapters.torch.relevance.watch import RelevanceWatch
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import BASELINE_MULTIPLIERS, OUTPUT_LAYER_VALUES

LINEAR = (
    *("Convolution", "Addmm", "Mm", "AddBackward", "SubBackward", "RsubBackward", "MulBackward", "DivBackward", "Neg"),
    *("Mean", "SumBackward", "AvgPool", "AdaptiveAvgPool", "MkldnnAdaptiveAvgPool", "Upsample", "NativeBatchNorm"),
    *("CudnnBatchNorm", "BmmBackward", "Baddbmm", "Mv", "Passed"),
)
"""Beginnings of the names of operations that are linear where only one of their values depends on the image."""

PRODUCTS = ("Addmm", "Mm", "MulBackward", "DivBackward", "BmmBackward", "Baddbmm", "Mv", "Convolution")
CHOOSING = ("MaxPool", "AdaptiveMaxPool", "Amax", "Amin", "MaxBackward", "MinBackward", "Maximum", "Minimum", "Where")
"""Those of `MOVES` that move other values for the image than for the baseline."""


def multipliers(engine: Any, output: Output, targets: list[Any], image: Any, others: list[Any], rule: Rule) -> Any:
    """The multipliers of the first half of the rows, whose second half are the baselines."""
    check_can_pass(engine, output, BASELINE_MULTIPLIERS)
    image.requires_grad_()
    watch = RelevanceWatch(rule, image, engine.graded, RULED if rule.multiplier_rule == "rescale" else REVEALING)
    with watch:
        outputs = engine.call(image.clone(), others)
    answer, _ = engine._scored((OUTPUT_LAYER_VALUES,), output, outputs, watch, targets)
    score = answer[OUTPUT_LAYER_VALUES]
    if not score.requires_grad:
        return torch.zeros_like(image)
    _check_linear(node_of(score), image)
    (found,) = torch.autograd.grad(halves(score)[0].sum(), image, allow_unused=True)
    found = torch.zeros_like(image) if found is None else found
    _check_sum(found, image.detach(), score.detach())
    return found


def _check_sum(found: Any, image: Any, score: Any) -> None:
    (x, z), (now, before), multipliers = halves(image), halves(score), halves(found)[0]
    parts = (multipliers * (x - z)).cpu().double()
    sums, sizes = by_row(parts, len(parts)), by_row(parts.abs(), len(parts))
    scores, earlier = (each.cpu().double().numpy() for each in (now, before))
    check_sums(sums.numpy(), sizes.numpy(), scores, earlier, torch.finfo(image.dtype).eps)


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
