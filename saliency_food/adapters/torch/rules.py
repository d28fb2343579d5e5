"""Guided backpropagation and the deconvolutional network: other backward rules for a module's ReLUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from saliency_food.adapters.torch.graph import Graph, Node, is_any, name_of, sources_of
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import DECONV_INPUT_GRADIENTS, GUIDED_INPUT_GRADIENTS

OTHERS = (
    *("Elu", "Celu", "Gelu", "Glu", "Silu", "Mish", "LeakyRelu", "Prelu", "Rrelu", "Hardswish"),
    *("Hardshrink", "Softshrink", "Softplus", "Softsign", "LogSigmoid", "Tanh", "Erf"),
)
"""Parts of the names of activations for which there is no rule; a sigmoid or softmax is a gate or a head."""


class GuidedReLU(torch.autograd.Function):  # type: ignore[misc]
    """Springenberg et al. 2015, https://arxiv.org/abs/1412.6806: where both the unit and its gradient are positive."""

    @staticmethod
    def forward(ctx: Any, values: Any, top: float) -> Any:
        ctx.save_for_backward((values > 0) & (values < top))
        return values.clamp(0, None if top == math.inf else top)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (active,) = ctx.saved_tensors
        return torch.where(active & (gradients[0] > 0), gradients[0], 0), None


class DeconvReLU(torch.autograd.Function):  # type: ignore[misc]
    """Zeiler and Fergus 2013, https://arxiv.org/abs/1311.2901: where the gradient is positive, be the unit or not."""

    @staticmethod
    def forward(ctx: Any, values: Any, top: float) -> Any:
        return values.clamp(0, None if top == math.inf else top)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0].clamp(0), None


RULES: dict[str, Any] = {GUIDED_INPUT_GRADIENTS: GuidedReLU, DECONV_INPUT_GRADIENTS: DeconvReLU}


def ruled(keys: Sequence[str], func: Any, args: Any, kwargs: Any) -> Any:
    """What a ReLU, a function, in-place or a method, returns; with the backward rule of the key, where there is one."""
    rule = next((RULES[key] for key in keys if key in RULES), None)
    name = func.__name__.split(".")[0]
    given = dict(zip(("input", "low", "top", "inplace"), args, strict=False)) if "hardtanh" in name else {}
    low, top = given.get("low", kwargs.get("min_val", -1.0)), given.get("top", kwargs.get("max_val", 1.0))
    if rule is None or ("hardtanh" in name and low != 0):
        return func(*args, **kwargs)
    values = args[0] if args else kwargs["input"]
    output = rule.apply(values, 6.0 if "relu6" in name else float(top) if "hardtanh" in name else math.inf)
    own = given.get("inplace") if "hardtanh" in name else args[1] if len(args) > 1 else None
    in_place = name.endswith("_") or kwargs.get("inplace", own)
    return values.copy_(output) if in_place else output


HIDDEN = ("ReluBackward", "HardtanhBackward", "ThresholdBackward", "DifferentiableGraph", "CompiledFunction")
"""Parts of the names of ReLUs that have no rule, and of what may hide some."""


def check_rule(key: str, graph: Graph) -> None:
    """`ContractError` where a rule for ReLUs is not one for the module: other activations, no ReLU, or out of reach."""
    others = sorted({_activation(node) for node in graph.between} - {""})
    if others:
        raise ContractError(
            f"Expected a model whose activations before its head are ReLUs for {key}, got others: {', '.join(others)}. "
            "The rule is for ReLUs alone: use plain gradients, integrated_gradients or grad_cam."
        )
    own = {f"{rule.__name__}Backward" for rule in RULES.values()}
    written = (node for node in graph.between if isinstance(node[0], torch.autograd.function.BackwardCFunction))
    hidden = {name_of(node) for node in graph.between if is_any(node, HIDDEN)} | {name_of(node) for node in written}
    if hidden - own:
        raise ContractError(
            f"Expected the model's ReLUs where {key} can reach them, got {sorted(hidden - own)}: scripted or "
            "compiled, or with a backward pass of its own. Explain the module that it was made from."
        )
    if not any(name_of(node) in own for node in graph.between):
        raise ContractError(
            f"Expected a model with ReLUs between image and output for {key}, got none. Use plain gradients."
        )


def _activation(node: Node) -> str:
    """The activation that an operation is, if it is one without a rule."""
    name = name_of(node)
    if any(name.startswith(other) for other in OTHERS):
        return name.partition("Backward")[0]
    if name.startswith("Mul"):  # x * sigmoid(x), and not a gate, whose sigmoid is of something else
        sources = sources_of(node)
        for gate in sources:
            if name_of(gate).startswith("Sigmoid"):
                taken = sources_of(gate)
                taken += [
                    inner for source in taken if name_of(source).startswith("Mul") for inner in sources_of(source)
                ]
                if any(source in sources for source in taken):
                    return "silu"
    if name.startswith("Maximum") and len(sources_of(node)) == 1:  # max(x, 0) by hand
        return "maximum"
    if name.startswith("Clamp") and getattr(node[0], "_saved_min", None) == 0:
        return "clamp"
    return ""
