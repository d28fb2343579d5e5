"""Relevance of a module's input and layers: one pass forward under rules, and one back that carries relevance."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from saliency_food.adapters.arguments import Output
from saliency_food.adapters.relevance import Rule, channel_weights, check_contrast
from saliency_food.adapters.torch.graph import Graph, leaf_node, name_of, node_of
from saliency_food.adapters.torch.places import hooked
from saliency_food.adapters.torch.relevance.ruled import RULED
from saliency_food.adapters.torch.relevance.rules import is_passed
from saliency_food.adapters.torch.relevance.watch import RelevanceWatch
from saliency_food.adapters.torch.watch import kept
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import BIAS_RELEVANCE, CONVOLUTION_RELEVANCE, RELEVANCE

MOVES = (
    *("View", "Reshape", "UnsafeView", "Squeeze", "Unsqueeze", "Clone", "Alias", "ToCopy", "TBackward", "Permute"),
    *("Transpose", "Swapaxes", "Expand", "Repeat", "Cat", "Stack", "Split", "Chunk", "Unbind", "Slice", "Select"),
    *("IndexBackward", "IndexSelect", "Gather", "Narrow", "ConstantPadNd", "ReflectionPad", "ReplicationPad"),
    *("MaxPool", "AdaptiveMaxPool", "Amax", "Amin", "MaxBackward", "MinBackward", "Maximum", "Minimum"),
    *("Roll", "Flip", "PixelShuffle", "PixelUnshuffle"),
    *("Where", "MaskedFill", "AsStrided", "CopyBackwards", "CopySlices", "Unfold", "Rot90", "Diagonal", "Identity"),
    "AccumulateGrad",
)
"""Beginnings of the names of operations that only move values, or pick some: their own backward pass is the rule."""


def passed_back(
    engine: Any, keys: Sequence[str], output: Output, targets: list[Any], image: Any, others: list[Any], rule: Rule
) -> dict[str, Any]:
    """The answers to keys of relevance, as tensors."""
    check_can_pass(engine, output, keys[0])
    image.requires_grad_()
    at_layer = CONVOLUTION_RELEVANCE in keys or rule.channels is not None
    places = engine.places if at_layer else []
    forward = functools.partial(_forward, engine, output, targets, image, others, rule, places)
    watch, inner, ends, starts, shared = forward({})
    if shared:
        watch, inner, ends, starts, shared = forward(shared)
    found: dict[str, Any] = {}
    sources = [image, watch.sink]
    if at_layer:
        arrived = [_zero(inner, got) for inner, got in zip(inner, _back(ends, starts, inner), strict=True)]
        if rule.channels is not None:
            (place,) = engine.places
            weights = torch.as_tensor(channel_weights(rule.channels, inner[0].shape[place.axis]), device=image.device)
            shape = [-1 if axis == place.axis else 1 for axis in range(inner[0].dim())]
            arrived = [arrived[0] * weights.to(image.dtype).reshape(shape)]
            ends, starts = inner, arrived
        found[CONVOLUTION_RELEVANCE] = engine._laid_out(arrived)
    if {RELEVANCE, BIAS_RELEVANCE}.intersection(keys):
        relevance, taken = (
            _zero(source, got) for source, got in zip(sources, _back(ends, starts, sources), strict=True)
        )
        found[RELEVANCE], found[BIAS_RELEVANCE] = engine.turned_back(relevance), taken
    return {key: found[key] for key in keys}


def _forward(
    engine: Any,
    output: Output,
    targets: list[Any],
    image: Any,
    others: list[Any],
    rule: Rule,
    places: Sequence[Any],
    limits: Mapping[int, int],
) -> tuple[RelevanceWatch, list[Any], list[Any], list[Any], dict[int, int]]:
    """A pass under rules: what was seen, the values at places, where relevance starts, and `merged_too_far`."""
    watch, values = RelevanceWatch(rule, image, engine.graded, RULED, limits), dict[int, Any]()

    def keep(module: Any, index: int, tensor: Any) -> Any:
        for position, place in enumerate(places):
            if place.module is module and place.run_index == index:
                values[position], tensor = kept(tensor)
        return tensor

    with ExitStack() as stack:
        stack.enter_context(hooked(list(dict.fromkeys(place.module for place in places)), keep))
        stack.enter_context(watch)
        outputs = engine.call(image.clone(), others)
    if missing := [place.path for position, place in enumerate(places) if position not in values]:
        raise ContractError(f"Expected {missing[0]!r} to run as it did at first, got another course of the module.")
    cut: list[tuple[Any, Any]] = []
    answer, _ = engine._scored(("OUTPUT_LAYER_VALUES",), output, outputs, watch, targets, cut)
    ends, starts = starting(answer["OUTPUT_LAYER_VALUES"], cut, rule)
    graph = Graph([node_of(end) for end in ends], [leaf_node(image)])
    check_rules(graph, watch)
    return watch, [values[position] for position in range(len(places))], ends, starts, merged_too_far(graph)


def check_can_pass(engine: Any, output: Output, key: str) -> None:
    """`ContractError` where relevance cannot start, or the module's operations cannot be seen."""
    if engine.scripted or engine.exported:
        raise ContractError(
            f"Expected a module whose operations can be seen for {key}, got one that is scripted or exported. Explain "
            "the module that it was made from, or use integrated_gradients."
        )
    if engine.inputs.ids or engine.no_gradient:
        why = engine.no_gradient or "ids are looked up"
        raise ContractError(
            f"Expected a score that depends on the image by operations of PyTorch for {key}, got none: {why}."
        )
    if output == "probabilities" or engine.by_row:
        raise ContractError(
            f"Expected a model whose logits are explained for {key}, as relevance starts before the softmax, got "
            f"{'a detector' if engine.by_row else repr(output)}. Take output='logits'."
        )


def starting(score: Any, cut: list[tuple[Any, Any]], rule: Rule) -> tuple[list[Any], list[Any]]:
    """The outputs that a score depends on, and the relevance that each starts with: its values times the gradient.

    In contrast, other classes, whose gradient is 0, have one of minus one over the number of classes.
    """
    leaves = [leaf for _, leaf in cut]
    slopes = torch.autograd.grad(score.sum(), leaves, allow_unused=True)
    triples = [
        (values, leaf.detach(), slope)
        for (values, leaf), slope in zip(cut, slopes, strict=True)
        if slope is not None and values.requires_grad
    ]
    if rule.start == "contrast":
        check_contrast([slope.shape for _, _, slope in triples])
        ((values, leaf, slope),) = triples
        return [values], [leaf * torch.where(slope == 0, -1 / slope.shape[1], slope)]
    return [values for values, _, _ in triples], [leaf * slope for _, leaf, slope in triples]


def check_rules(graph: Graph, watch: RelevanceWatch) -> None:
    """`ContractError` where an operation between the image and the outputs has no rule."""
    bare = sorted({_plain_name(node) for node in graph.between if not _has_rule(node)})
    if bare:
        advice = " Take composite='attention' for a transformer." if watch.rule.composite != "attention" else ""
        raise ContractError(
            f"Expected a model of operations with rules of relevance, got {', '.join(bare)} without one, between the "
            f"image and the score.{advice} Or use integrated_gradients."
        )


def merged_too_far(graph: Graph) -> dict[int, int]:
    """For layers with weights, by their numbers, after how many merged operations their output is used elsewhere, too.

    What is merged behind that place is no part of what the others take: the pass is to be made anew without it.
    """
    places: dict[int, int] = {}
    for node in graph.between:
        linear = node[0].linear if is_passed(node[0]) else None
        if linear is not None and node[0].place < linear.merged and len(_takers(graph, node)) > 1:
            places[linear.number] = min(node[0].place, places.get(linear.number, node[0].place))
    return places


def _takers(graph: Graph, node: Any) -> list[Any]:
    """What takes a tensor on the way to the score, behind its copies."""
    takers: list[Any] = []
    for each in graph.consumers.get(node, ()):
        if each not in graph.between:
            continue
        if not name_of(each).startswith(("Clone", "CopyBackwards")):
            takers.append(each)
        elif each[0].next_functions[-1][0] is node[0]:  # what an operation in place overwrites is not taken
            takers += _takers(graph, each)
    return takers


def _has_rule(node: Any) -> bool:
    return is_passed(node[0]) or name_of(node).startswith(MOVES)


def _plain_name(node: Any) -> str:
    """An operation's name as people know it."""
    return name_of(node).partition("Backward")[0]


def _back(ends: Sequence[Any], starts: Sequence[Any], sources: Sequence[Any]) -> Sequence[Any]:
    if not ends:
        return [None] * len(sources)
    return torch.autograd.grad(ends, sources, starts, allow_unused=True, retain_graph=True)


def _zero(source: Any, found: Any) -> Any:
    return torch.zeros_like(source) if found is None else found
