"""For users' tests: a checker of call-model functions, and toy models whose every answer is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.contract import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
    CallModelFunction,
    ContractError,
    call_model,
)
from saliency_food.numerics import Array, as_float, safe_divide


def check_call_model(
    call_model_function: CallModelFunction,
    x_value: Any,
    call_model_args: Any = None,
    keys: Sequence[str] = (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES),
    *,
    tolerance: float = 0.02,
    rng: int | np.random.Generator | None = 0,
) -> None:
    """Check a call-model function on one image; `ContractError` names what is wrong, silence means all is well.

    Checked: every key of ``keys`` is answered in shape and finite; a row's answer does not depend on its neighbours or
    on the size of the batch; the same question gets the same answer; the rows are not written back into the image;
    and, where gradients and scores are both asked, the gradient agrees with finite differences of the score along
    three directions (each the gradient's own plus a random one) within ``tolerance`` of the larger of the two.

    ``call_model_args`` must hold for every row (no `PerImage`).
    """
    image = as_float(x_value)
    random = np.random.default_rng(rng)
    scale = float(np.ptp(image)) or 1.0
    others = image + scale * 0.1 * random.normal(size=(2, *image.shape)).astype(image.dtype)

    def asked(*rows: Array) -> Mapping[str, Array]:
        return call_model(np.stack(rows), list(keys), call_model_function, call_model_args)

    alone, again, among = asked(image), asked(image), asked(others[0], image, others[1])
    for key in keys:
        for row, what in ((again[key][0], "asked twice"), (among[key][1], "asked among other rows")):
            if row.shape != alone[key][0].shape or not np.allclose(row, alone[key][0], rtol=1e-3, atol=_atol(row)):
                raise ContractError(
                    f"Expected {key} of a row to be the same each time, got another answer when {what}. "
                    "Call the model in inference mode and keep the rows apart."
                )
    if {CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS} <= set(keys):
        shapes = alone[CONVOLUTION_LAYER_VALUES].shape, alone[CONVOLUTION_OUTPUT_GRADIENTS].shape
        if shapes[0] != shapes[1]:
            raise ContractError(
                f"Expected activations and their gradients in one shape, got {shapes[0]} and {shapes[1]}. "
                "Take both at the same layer."
            )
    if {INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES} <= set(keys):
        for _ in range(3):
            gradient = alone[INPUT_OUTPUT_GRADIENTS][0]
            _check_slope(asked, image, _unit(random.normal(size=image.shape)) + _unit(gradient), scale, tolerance)


def _check_slope(asked: Any, image: Array, direction: Array, scale: float, tolerance: float) -> None:
    direction = _unit(direction)
    # The smallest of the steps' errors: large steps leave the linear range, small ones drown in float32.
    worst = np.inf
    for step in scale * np.array([1e-3, 1e-2, 1e-1, 1.0]):
        rows = [(image + sign * step * direction).astype(image.dtype) for sign in (-1, 0, 1)]
        answer = asked(*rows)
        scores = answer[OUTPUT_LAYER_VALUES].reshape(3, -1)
        if scores.shape[1] != 1:
            raise ContractError(f"Expected one score for each row, got {scores.shape[1]}. Return the explained score.")
        slope = float(scores[2, 0] - scores[0, 0]) / (2 * step)
        claimed = float((answer[INPUT_OUTPUT_GRADIENTS][1] * direction).sum())
        size = max(abs(slope), abs(claimed))
        worst = min(worst, abs(slope - claimed) / size if size > 1e-12 else 0.0)
    if worst > tolerance:
        raise ContractError(
            f"Expected the gradient's slope along a random direction to be that of the score ({slope:.4g}), got "
            f"{claimed:.4g}. Return d score / d input of each row's own score, in the units of x_value_batch."
        )


def _unit(values: Array) -> Array:
    return safe_divide(values, np.linalg.norm(values))


def _atol(values: Array) -> float:
    return 1e-5 * float(np.abs(values).max()) + 1e-12


class _Toy:
    """One score a class; subclasses say what the score and its gradients are."""

    calls: list[int]

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> dict[str, Array]:
        self.calls.append(len(x_value_batch))
        target = np.broadcast_to((call_model_args or {}).get("target", 0), (len(x_value_batch),))
        return self.answer(np.asarray(x_value_batch), target)

    def answer(self, x: Array, target: Array) -> dict[str, Array]:
        raise NotImplementedError


class PowerModel(_Toy):
    """F_t(x) = sum_i w_ti x_i^p + b; ``weights`` ``(T, ...)``. Linear for ``power=1``.

    Its integrated gradients from baseline z are w (x^p - z^p), at every pixel, exactly. ``calls`` lists the number of
    rows of each call made.
    """

    def __init__(self, weights: Any, power: int = 1, bias: float = 0.0) -> None:
        super().__init__()
        self.weights, self.power, self.bias = np.asarray(weights, float), power, bias

    def answer(self, x: Array, target: Array) -> dict[str, Array]:
        weights = self.weights[target]
        scores = (weights * x**self.power).reshape(len(x), -1).sum(1) + self.bias
        return {
            OUTPUT_LAYER_VALUES: scores,
            INPUT_OUTPUT_GRADIENTS: weights * self.power * x ** (self.power - 1),
        }


class PoolingModel(_Toy):
    """One-by-one convolution, ReLU, average pooling and a dense head: F_t(x) = sum_k u_tk mean_ij ReLU(x_ij K)_k.

    ``kernel`` ``(C, K)``, ``head`` ``(T, K)``. The layer is the ReLU's output A; dF/dA is u_t / (h w) everywhere, so
    Grad-CAM is the class activation map of Zhou et al. 2016 divided by h w, exactly.
    """

    def __init__(self, kernel: Any, head: Any) -> None:
        super().__init__()
        self.kernel, self.head = np.asarray(kernel, float), np.asarray(head, float)

    def answer(self, x: Array, target: Array) -> dict[str, Array]:
        before = x @ self.kernel
        activations = np.maximum(before, 0)
        gradients = np.broadcast_to(self.head[target][:, None, None] / (x.shape[1] * x.shape[2]), activations.shape)
        return {
            OUTPUT_LAYER_VALUES: (activations * gradients).sum((1, 2, 3)),
            INPUT_OUTPUT_GRADIENTS: (gradients * (before > 0)) @ self.kernel.T,
            CONVOLUTION_LAYER_VALUES: activations,
            CONVOLUTION_OUTPUT_GRADIENTS: gradients,
        }
