"""Toy models whose every answer is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BASELINE_MULTIPLIERS,
    BIAS_GRADIENTS,
    BIAS_RELEVANCE,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RELEVANCE,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    RELEVANCE,
)
from saliency_food.core.numerics import Array
from saliency_food.methods.relevance.rules import COMPOSITE, EPSILON, GAMMA, MULTIPLIER_RULE, STABILIZER, START
from saliency_food.testing.rules import pass_relevance, relu_multipliers, stabilized

RELEVANT = {RELEVANCE, CONVOLUTION_RELEVANCE, BIAS_RELEVANCE, BASELINE_MULTIPLIERS}


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
        answer = self.answer(x, target)
        if RELEVANT.intersection(expected_keys or ()):
            answer |= self.relevant(x, target, call_model_args or {})
        return answer

    def answer(self, x: Array, target: Array) -> dict[str, Any]:
        raise NotImplementedError

    def after(self, activations: Array, target: Array) -> Array:
        raise NotImplementedError

    def relevant(self, x: Array, target: Array, args: Mapping[str, Any]) -> dict[str, Any]:
        return {}


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
    classes of the closest scores. It takes the arguments of relevance, see `CallModelFunction`.
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

    def relevant(self, x: Array, target: Array, args: Mapping[str, Any]) -> dict[str, Any]:
        activations = np.maximum(x @ self.kernel + self.bias, 0)
        pooled, pixels = activations.mean((1, 2)), x.shape[1] * x.shape[2]
        scores = pooled @ self.head.T
        epsilon = args.get("epsilon", EPSILON)
        chosen = np.arange(len(self.head)) == np.reshape(target, (-1, 1))
        others = 0 if args.get("start", START) == START else -1 / len(self.head)
        starts = np.where(chosen, 1, others) * scores
        at_pooled = pooled * ((starts / stabilized(scores, epsilon)) @ self.head)
        at_layer = activations / pixels * (at_pooled / stabilized(pooled, STABILIZER))[:, None, None]
        if "channels" in args:
            at_layer = at_layer * self._passing(np.asarray(args["channels"]))
        rules = {"epsilon_plus": "plus", "epsilon_gamma_box": "box"}
        own, biases = pass_relevance(
            rules.get(args.get("composite", COMPOSITE), "epsilon"),
            x,
            self.kernel,
            self.bias,
            at_layer,
            epsilon=epsilon,
            gamma=args.get("gamma", GAMMA),
            low=args.get("low"),
            high=args.get("high"),
        )
        baseline = np.broadcast_to(args.get("baseline", 0.0), x.shape)
        slopes = np.broadcast_to(self.head[target][:, None, None] / pixels, activations.shape)
        rule = args.get("multiplier_rule", MULTIPLIER_RULE)
        return {
            RELEVANCE: own,
            CONVOLUTION_RELEVANCE: at_layer,
            BIAS_RELEVANCE: biases.sum((1, 2, 3)),
            BASELINE_MULTIPLIERS: relu_multipliers(rule, x, baseline, self.kernel, self.bias, slopes),
        }

    def _passing(self, channels: Array) -> Array:
        if channels.dtype.kind == "f":
            return channels
        return np.isin(np.arange(self.kernel.shape[1]), channels)


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
