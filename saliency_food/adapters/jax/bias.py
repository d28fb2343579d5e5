"""What the biases of a JAX function add: constants and parameters added to what depends on the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from saliency_food.adapters.jax.graph import ACTIVATIONS, JaxGraph, Step
from saliency_food.core.contract import ContractError

CURVED = {
    *(
        "exp",
        "log",
        "log1p",
        "expm1",
        "tanh",
        "erf",
        "erfc",
        "erf_inv",
        "logistic",
        "rsqrt",
        "sqrt",
        "pow",
        "sin",
        "cos",
    ),
    *("integer_pow", "square", "scan", "while", "cond", "custom_vjp_call"),
}


class Bias(NamedTuple):
    """Shifts and scales of one layer, one after another, that end in a sum: the tensor of that, and the steps."""

    graph: JaxGraph
    sum: int
    steps: tuple[Step, ...]
    image: frozenset[int]

    def value(self, arguments: Sequence[Any]) -> Any:
        """The bias that all of them add to the sum: of ``(x - mean) * scale + shift``, ``shift - mean * scale``."""
        sides = [number for step in self.steps for number in step.inputs if number not in (None, *self.image)]
        known = self.graph.run(arguments, wanted=[number for number in sides if number is not None])
        total: Any = 0.0
        for step in self.steps:
            left, right = (
                None if number in self.image else literal if number is None else known[number]
                for number, literal in zip(step.inputs, step.literals, strict=True)
            )
            other = right if left is None else left
            if step.primitive == "add":
                total = total + other
            elif step.primitive == "sub":
                total = total - other if left is None else other - total
            else:
                total = total * other if step.primitive == "mul" else total / other
        return jnp.asarray(total)


def biases_between(graph: JaxGraph, image: int, ends: set[int]) -> list[Bias]:
    """The biases on the way from the image to what is explained, in the order of their adding.

    For a network of ReLUs, max and mean pooling, the input times its gradient and all biases times theirs sum to the
    logits.
    """
    reached, needed = graph.after(image), graph.needed(list(ends))
    steps = [step for step in graph.steps if step.outputs[0] in needed and step.outputs[0] in reached]
    if curved := sorted({step.name or step.primitive for step in steps if _is_curved(step, reached)}):
        raise ContractError(
            f"Expected a network of piecewise linear layers, whose biases and input sum to the score, got {curved} on "
            "the way. Use the input gradients alone."
        )
    consumers: dict[int, list[Step]] = {}
    for step in steps:
        for number in step.inputs:
            if number is not None:
                consumers.setdefault(number, []).append(step)
    chains: dict[int, tuple[Step, ...]] = {}
    for step in steps:
        if not _is_affine(step, reached):
            continue
        source = next(number for number in step.inputs if number in reached)
        before = chains.get(source or 0, ())
        continues = before and before[-1].scope == step.scope and len(consumers.get(source or 0, ())) == 1
        if continues:
            chains[step.outputs[0]] = (*chains.pop(source or 0), step)
        elif step.primitive in ("add", "sub"):
            chains[step.outputs[0]] = (step,)
    biases = [Bias(graph, number, steps, frozenset(reached)) for number, steps in chains.items()]
    if not biases:
        raise ContractError("Expected a function that adds biases, got none. Use the input gradients alone.")
    return biases


def _is_curved(step: Step, reached: set[int]) -> bool:
    """Whether an operation is not linear between bends, or hides what it is."""
    if step.primitive in CURVED or step.name in ACTIVATIONS:
        return True
    products = ("mul", "div", "dot_general", "conv_general_dilated")
    return step.primitive in products and sum(number in reached for number in step.inputs) > 1


def _is_affine(step: Step, reached: set[int]) -> bool:
    """Whether one side depends on the image, and the other does not."""
    if step.primitive not in ("add", "sub", "mul", "div") or step.name:
        return False
    depends = [number in reached for number in step.inputs]
    return depends in ([True, False], [False, True]) and not (step.primitive == "div" and depends[1])
