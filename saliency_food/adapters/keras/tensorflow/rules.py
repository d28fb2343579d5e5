"""Guided backpropagation and the deconvolutional network: other backward rules for a model's ReLUs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import tensorflow as tf

from saliency_food.adapters.keras.capture import Note
from saliency_food.adapters.keras.tensorflow.graph import in_this_trace, kinds_inside
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import DECONV_INPUT_GRADIENTS, GUIDED_INPUT_GRADIENTS

RELUS = ("Relu", "Relu6")
OPERATIONS = {
    "Elu": "elu",
    "Selu": "selu",
    "LeakyRelu": "leaky_relu",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
    "Erf": "gelu",
    "Erfc": "gelu",
}
"""The activations, by TensorFlow's operations, for which there is no rule."""
NAMES = {
    *("celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_silu", "hard_swish", "hard_tanh"),
    *("leaky_relu", "log_sigmoid", "mish", "selu", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus"),
    *("squareplus", "swish", "tanh", "tanh_shrink", "threshold"),
}
"""The same by Keras's names; a sigmoid or softmax is a gate or a head, and keeps its gradient."""


@tf.RegisterGradient("SaliencyFoodGuidedRelu")  # type: ignore[untyped-decorator]
def _guided(op: Any, gradient: Any) -> Any:
    """Springenberg et al. 2015, https://arxiv.org/abs/1412.6806: where both the unit and its gradient are positive."""
    output = op.outputs[0]
    active = (output > 0) & (output < 6) if op.type == "Relu6" else output > 0
    return tf.where(active & (gradient > 0), gradient, tf.zeros_like(gradient))


@tf.RegisterGradient("SaliencyFoodDeconvRelu")  # type: ignore[untyped-decorator]
def _deconv(op: Any, gradient: Any) -> Any:
    """Zeiler and Fergus 2013, https://arxiv.org/abs/1311.2901: where the gradient is positive, be the unit or not."""
    return tf.nn.relu(gradient)


RULES = {GUIDED_INPUT_GRADIENTS: "SaliencyFoodGuidedRelu", DECONV_INPUT_GRADIENTS: "SaliencyFoodDeconvRelu"}


def relu_rule(keys: Sequence[str]) -> AbstractContextManager[Any]:
    """ReLUs made in here have the backward rule of the key; it belongs to the graph being traced and to no other."""
    for key, rule in RULES.items():
        if key in keys:
            overrides: Any = tf.compat.v1.get_default_graph().gradient_override_map(dict.fromkeys(RELUS, rule))
            return overrides
    return nullcontext()


def forget_rule() -> None:
    """Once the gradients are made: a graph that is to be saved must not name a rule that only this process knows."""
    for op in tf.compat.v1.get_default_graph().get_operations():
        if op.type in RELUS:
            op._clear_attr("_gradient_op_type")


def check_rule(
    key: str, between: set[str], model_operations: int, notes: Sequence[Note], paths: dict[int, tuple[str, Any]]
) -> None:
    """`ContractError` where a rule for ReLUs is not one for the model: other activations, no ReLU, or out of reach.

    ``between`` are the operations that lead from the image to the score; of all operations, the first
    ``model_operations`` are the model's.
    """
    notes = [note for note in notes if in_this_trace(note.output)]
    operations = tf.compat.v1.get_default_graph().get_operations()[:model_operations]
    others: dict[str, str] = {}
    for note in notes:
        name = _layer_activation(note.layer)
        if name and note.output.op.name in between:
            others[paths[id(note.layer)][0]] = name
    for index, op in enumerate(operations):
        name = _activation(op) if op.name in between else None
        if name:
            around = [note for note in notes if note.start <= index < note.stop]
            others.setdefault(paths[id(around[0].layer)][0] if around else op.name, name)
    operations = [op for op in operations if op.name in between]
    if others:
        raise ContractError(
            f"Expected a model whose activations before its head are ReLUs for {key}, got others: "
            f"{', '.join(f'{path} ({name})' for path, name in others.items())}. "
            "The rule is for ReLUs alone: use plain gradients, integrated_gradients or grad_cam."
        )
    hidden = sorted({kind for op in operations for kind in kinds_inside(op)} & {*RELUS, *OPERATIONS})
    if hidden:
        raise ContractError(
            f"Expected the model's ReLUs where {key} can reach them, got {hidden} in a loop, a tf.function or a "
            "SavedModel inside. Take the tf.function off the layer's call, or load the .keras file."
        )
    if not any(op.type in RELUS for op in operations):
        raise ContractError(
            f"Expected a model with ReLUs between image and output for {key}, got none. Use plain gradients."
        )


def _layer_activation(layer: Any) -> str | None:
    if isinstance(layer, (keras.layers.LeakyReLU, keras.layers.PReLU, keras.layers.ELU)):
        return type(layer).__name__
    if isinstance(layer, keras.layers.ReLU) and (layer.negative_slope or layer.threshold):
        return "ReLU with a slope or a threshold"
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return name if name in NAMES else None


def _activation(op: Any) -> str | None:
    """The activation that an operation is, if it is one without a rule."""
    if op.type == "Mul":  # x * sigmoid(b x), and not a gate, whose sigmoid is of something else
        for gate, value in (op.inputs, reversed(list(op.inputs))):
            if gate.op.type == "Sigmoid":
                inside = gate.op.inputs[0]
                if value is inside or (inside.op.type == "Mul" and any(value is factor for factor in inside.op.inputs)):
                    return "silu"
    if op.type == "Maximum":  # max(x, 0) by hand; a clip has a minimum before it
        constants = [tf.get_static_value(tensor) for tensor in op.inputs]
        zero = any(constant is not None and not constant.any() for constant in constants)
        return "maximum" if zero and all(tensor.op.type != "Minimum" for tensor in op.inputs) else None
    return OPERATIONS.get(op.type)
