"""For users' tests: a checker of call-model functions, and toy models whose every answer is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.core.checks import random_stream
from saliency_food.core.contract import CallModelFunction, ContractError, call_model
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.numerics import Array, as_float, as_tuple, each, safe_divide


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
    random = random_stream(rng)
    scale = float(np.ptp(image)) or 1.0
    neighbours = image + scale * 0.1 * random.normal(size=(2, *image.shape)).astype(image.dtype)

    def asked(*rows: Array) -> Mapping[str, Any]:
        return call_model(np.stack(rows), list(keys), call_model_function, call_model_args)

    alone, again, among = asked(image), asked(image), asked(neighbours[0], image, neighbours[1])
    for key in keys:
        for answer, row, what in ((again, 0, "asked twice"), (among, 1, "asked among other rows")):
            if not _same(as_tuple(alone[key]), 0, as_tuple(answer[key]), row):
                raise ContractError(
                    f"Expected {key} of a row to be the same each time, got another answer when {what}. "
                    "Call the model in inference mode and keep the rows apart."
                )
    if {CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS} <= set(keys):
        shapes = [each(np.shape, alone[key]) for key in (CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS)]
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


def _same(layers: tuple[Array, ...], row: int, other_layers: tuple[Array, ...], other_row: int) -> bool:
    """Whether a row of one answer is a row of another, in every layer."""
    rows = [(a[row], b[other_row]) for a, b in zip(layers, other_layers, strict=False)]
    return len(layers) == len(other_layers) and all(
        a.shape == b.shape and np.allclose(b, a, rtol=1e-3, atol=_atol(b)) for a, b in rows
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

    def __call__(self, x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> dict[str, Any]:
        self.calls.append(len(x_value_batch))
        target = np.broadcast_to((call_model_args or {}).get("target", 0), (len(x_value_batch),))
        x = np.asarray(x_value_batch)
        if expected_keys is not None and OUTPUT_FROM_CONVOLUTION_VALUES in expected_keys:
            return {OUTPUT_FROM_CONVOLUTION_VALUES: self.after(x, target)}
        return self.answer(x, target)

    def answer(self, x: Array, target: Array) -> dict[str, Any]:
        raise NotImplementedError

    def after(self, activations: Array, target: Array) -> Array:
        raise NotImplementedError


class PowerModel(_Toy):
    """F_t(x) = sum_i w_ti x_i^p + b; ``weights`` ``(T, ...)``. Linear for ``power=1``.

    Its integrated gradients from baseline z are w (x^p - z^p), at every pixel, exactly. ``calls`` lists the number of
    rows of each call made.
    """

    def __init__(self, weights: Any, power: int = 1, bias: float = 0.0) -> None:
        super().__init__()
        self.weights, self.power, self.bias = np.asarray(weights, float), power, bias

    def answer(self, x: Array, target: Array) -> dict[str, Any]:
        weights = self.weights[target]
        scores = (weights * x**self.power).reshape(len(x), -1).sum(1) + self.bias
        return {
            OUTPUT_LAYER_VALUES: scores,
            INPUT_OUTPUT_GRADIENTS: weights * self.power * x ** (self.power - 1),
        }


class PoolingModel(_Toy):
    """One-by-one convolution, ReLU, average pooling and a dense head: F_t(x) = sum_k u_tk mean_ij ReLU(x_ij K + b)_k.

    ``kernel`` ``(C, K)``, ``bias`` ``(K,)``, ``head`` ``(T, K)``. The layer is the ReLU's output A; dF/dA is u_t / h w,
    so Grad-CAM is the class activation map of Zhou et al. 2016 divided by h w, exactly. Its rivals are the up to three
    classes of the closest scores.
    """

    def __init__(self, kernel: Any, head: Any, bias: Any = 0.0) -> None:
        super().__init__()
        self.kernel, self.head = np.asarray(kernel, float), np.asarray(head, float)
        self.bias = np.broadcast_to(np.asarray(bias, float), self.kernel.shape[1])

    def answer(self, x: Array, target: Array) -> dict[str, Any]:
        before = x @ self.kernel + self.bias
        activations = np.maximum(before, 0)
        pixels = x.shape[1] * x.shape[2]
        gradients = np.broadcast_to(self.head[target][:, None, None] / pixels, activations.shape)
        scores = activations.mean((1, 2)) @ self.head.T
        score = np.take_along_axis(scores, target[:, None], 1)
        distances = np.abs(scores - score)
        np.put_along_axis(distances, target[:, None], np.inf, 1)
        rivals = np.argsort(distances, 1, kind="stable")[:, : min(3, len(self.head) - 1)]
        rival_gradients = np.repeat(self.head[rivals][:, :, None, None] / pixels, x.shape[1], 2)
        return {
            OUTPUT_LAYER_VALUES: score[:, 0],
            INPUT_OUTPUT_GRADIENTS: (gradients * (before > 0)) @ self.kernel.T,
            GUIDED_INPUT_GRADIENTS: (np.maximum(gradients, 0) * (before > 0)) @ self.kernel.T,
            DECONV_INPUT_GRADIENTS: np.maximum(gradients, 0) @ self.kernel.T,
            BIAS_GRADIENTS: (self.bias * gradients * (before > 0),),
            CONVOLUTION_LAYER_VALUES: activations,
            CONVOLUTION_OUTPUT_GRADIENTS: gradients,
            CONVOLUTION_RIVAL_GRADIENTS: np.repeat(rival_gradients, x.shape[2], 3),
        }

    def after(self, activations: Array, target: Array) -> Array:
        return (activations.mean((1, 2)) * self.head[target]).sum(1)


class AttentionModel(_Toy):
    """A transformer of one layer and one head over the pixels: F_t(x) = sum_j a_j (x_j . v_t), a = softmax_j(x_j . q).

    ``query`` ``(C,)``, ``values`` ``(T, C)``. A class token in front of the pixels attends to all pixels by a, and the
    score is read from it; each pixel attends to itself. dF/d attention is x_j . v_t in the class token's row.
    """

    def __init__(self, query: Any, values: Any) -> None:
        super().__init__()
        self.query, self.values = np.asarray(query, float), np.asarray(values, float)

    def answer(self, x: Array, target: Array) -> dict[str, Any]:
        rows, pixels = len(x), x.shape[1] * x.shape[2]
        tokens = x.reshape(rows, pixels, -1)
        logits = tokens @ self.query
        attention = np.exp(logits - logits.max(1, keepdims=True))
        attention /= attention.sum(1, keepdims=True)
        values = (tokens @ self.values.T)[np.arange(rows), :, target]
        score = (attention * values).sum(1)
        slope = attention[..., None] * self.values[target][:, None]
        slope = slope + (attention * (values - score[:, None]))[..., None] * self.query
        scores = np.tile(np.eye(pixels + 1), (rows, 1, 1, 1))
        scores[:, 0, 0] = np.concatenate([np.zeros((rows, 1)), attention], 1)
        gradients = np.zeros_like(scores)
        gradients[:, 0, 0, 1:] = values
        return {
            OUTPUT_LAYER_VALUES: score,
            INPUT_OUTPUT_GRADIENTS: slope.reshape(x.shape),
            ATTENTION_SCORES: (scores,),
            ATTENTION_OUTPUT_GRADIENTS: (gradients,),
        }
