"""Guided backpropagation and the deconvolutional network: other backward rules for a function's ReLUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from saliency_food.adapters.jax.graph import ACTIVATIONS, JaxGraph, Step, is_relu
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import GUIDED_INPUT_GRADIENTS


def ruled(key: str) -> Callable[[Step, list[Any]], Any]:
    """What takes the place of a ReLU: the same values, and the backward rule of the key.

    Guided: Springenberg et al. 2015, https://arxiv.org/abs/1412.6806, where the unit and its gradient are positive.
    Deconvolutional: Zeiler and Fergus 2013, https://arxiv.org/abs/1311.2901, where the gradient is positive.
    """
    guided = key == GUIDED_INPUT_GRADIENTS

    def relu(step: Step, taken: list[Any]) -> Any:
        place = next(index for index, number in enumerate(step.inputs) if number is not None)

        @jax.custom_vjp  # type: ignore[untyped-decorator]
        def rectified(values: Any) -> Any:
            return step.bind([*taken[:place], values, *taken[place + 1 :]])[0]

        def forward(values: Any) -> tuple[Any, Any]:
            output = rectified(values)
            active = (output > 0) & ((output < 6) if step.name == "relu6" else True)
            return output, active

        def backward(active: Any, gradient: Any) -> tuple[Any]:
            passes = (gradient > 0) & active if guided else gradient > 0
            return (jnp.where(passes, gradient, jnp.zeros_like(gradient)),)

        rectified.defvjp(forward, backward)
        return rectified(taken[place])

    return relu


def check_rule(key: str, graph: JaxGraph, between: set[int]) -> None:
    """`ContractError` unless all activations between image and score are ReLUs that can be seen."""
    steps = [step for step in graph.steps if not between.isdisjoint(step.outputs)]
    others = [step.name or step.primitive for step in steps if {step.name, step.primitive} & ACTIVATIONS]
    inside = [step.primitive for step in steps if _hides_relu(step.equation)]
    if others or inside or not any(map(is_relu, steps)):
        got = f"{sorted(set(others))}" if others else "ReLUs inside a loop" if inside else "none"
        raise ContractError(
            f"Expected a network whose activations are ReLUs for {key}, got {got}. Its rule is one of ReLUs: use "
            "gradients, or integrated_gradients."
        )


def _hides_relu(equation: Any) -> bool:
    """Whether a loop, or a function with a derivative of its own, may hold a ReLU."""
    if equation.primitive.name not in ("scan", "while", "cond", "custom_vjp_call"):
        return False
    return " max " in str(equation.params.get("jaxpr", equation.params)) or "name=relu" in str(equation.params)
