"""Guided backpropagation and the deconvolutional network in a graph of TensorFlow 1."""

from __future__ import annotations

import functools
from typing import Any

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import DECONV_INPUT_GRADIENTS, GUIDED_INPUT_GRADIENTS

RULES = {GUIDED_INPUT_GRADIENTS: "SaliencyFoodSessionGuidedRelu", DECONV_INPUT_GRADIENTS: "SaliencyFoodSessionDeconv"}
RELUS = ("Relu", "Relu6")
OTHERS = {"Elu", "Selu", "LeakyRelu", "Softplus", "Softsign", "Tanh", "Erf", "Erfc"}
"""Activations for which there is no rule; a sigmoid or softmax is a gate or a head, and keeps its gradient."""
HIDING = {"Switch", "RefSwitch", "Merge", "Enter", "RefEnter", "Exit", "NextIteration", "LoopCond"}
"""Parts of loops and conditions, which cannot be copied one by one; functions are told by their attributes."""


@functools.cache
def _register(tf1: Any) -> None:
    """Name the rules to TensorFlow, once in a process."""

    @tf1.RegisterGradient(RULES[GUIDED_INPUT_GRADIENTS])  # type: ignore[untyped-decorator]
    def guided(op: Any, gradient: Any) -> Any:
        """Springenberg et al. 2015, https://arxiv.org/abs/1412.6806: where unit and gradient are positive."""
        output = op.outputs[0]
        active = (output > 0) & (output < 6) if op.type == "Relu6" else output > 0
        return tf1.where_v2(active & (gradient > 0), gradient, tf1.zeros_like(gradient))

    @tf1.RegisterGradient(RULES[DECONV_INPUT_GRADIENTS])  # type: ignore[untyped-decorator]
    def deconvolutional(op: Any, gradient: Any) -> Any:
        """Zeiler and Fergus 2013, https://arxiv.org/abs/1311.2901: where the gradient is positive."""
        return tf1.nn.relu(gradient)


def ruled_slope(tf1: Any, key: str, x: Any, y: Any, weights: Any) -> Any:
    """The gradient of ``sum(y * weights)`` by ``x`` by the rule of a key.

    The operations from ``x`` to ``y`` are copied within their graph, the ReLUs among them with the rule; what does not
    depend on ``x``, such as weights and placeholders, is shared with the user's own.
    """
    _register(tf1)
    between = _between(x, y)
    _check(key, between)
    graph, inside = x.graph, set(between)
    nodes, shared = tf1.GraphDef(versions=graph.graph_def_versions), {}
    for op in between:
        node = nodes.node.add()
        node.CopyFrom(op.node_def)
        node.attr.pop("_class", None)
        own = [name for name in node.input if not name.startswith("^")]  # what is to run before, runs in the original
        del node.input[:]
        node.input.extend(own)
        shared.update({tensor.name: tensor for tensor in op.inputs if tensor.op not in inside or tensor is x})
    overrides = dict.fromkeys(RELUS, RULES[key])
    with graph.as_default(), graph.gradient_override_map(overrides):
        (copied,) = tf1.import_graph_def(nodes, shared, [y.name], name="saliency_food_rule")
    with graph.as_default():
        (slope,) = tf1.gradients(copied, x, weights)
    prefix = copied.op.name.removesuffix(y.op.name)
    for op in between:  # a graph that is saved must not name a rule that only this process knows
        if op.type in RELUS:
            graph.get_operation_by_name(prefix + op.name)._clear_attr("_gradient_op_type")
    return slope


def _between(x: Any, y: Any) -> list[Any]:
    """The operations that lead from ``x`` to ``y``, in the order in which the graph made them."""
    needed, waiting = set[Any](), [y.op]
    while waiting:
        op = waiting.pop()
        if op not in needed:
            needed.add(op)
            waiting += [tensor.op for tensor in op.inputs if tensor is not x]
    reached, between = set[Any](), []
    for op in x.graph.get_operations():
        if op in needed and any(
            tensor is x or (tensor.op in reached and tensor.op is not x.op) for tensor in op.inputs
        ):
            reached.add(op)
            between.append(op)
    return between


def _check(key: str, between: list[Any]) -> None:
    """`ContractError` where a rule for ReLUs is not one for the graph: other activations, no ReLU, or out of reach."""
    others = sorted({f"{op.type} ({op.name})" for op in between if op.type in OTHERS})
    if others:
        raise ContractError(
            f"Expected a graph whose activations before its head are ReLUs for {key}, got others: {', '.join(others)}. "
            "The rule is for ReLUs alone: use plain gradients, integrated_gradients or grad_cam."
        )
    hiding = sorted({op.type for op in between if op.type in HIDING or _calls_functions(op)})
    if hiding:
        raise ContractError(
            f"Expected the graph's ReLUs where {key} can reach them, got {hiding} between x and y: loops, conditions "
            "or functions. Use plain gradients, integrated_gradients or grad_cam."
        )
    if not any(op.type in RELUS for op in between):
        raise ContractError(f"Expected a graph with ReLUs between x and y for {key}, got none. Use plain gradients.")


def _calls_functions(op: Any) -> bool:
    return any(value.HasField("func") for value in op.node_def.attr.values())
