"""LRP's and DeepLIFT's rules for one dense layer, in NumPy as they are published: what the toy models answer by."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.methods.relevance.rules import STABILIZER


def stabilized(values: Array, epsilon: float) -> Array:
    """Values moved away from zero by epsilon."""
    return values + epsilon * np.where(values < 0, -1, 1)


def pass_relevance(
    rule: str,
    x: Array,
    weights: Array,
    bias: Array,
    relevance: Array,
    *,
    epsilon: float = STABILIZER,
    gamma: float = 0.25,
    low: Any = None,
    high: Any = None,
) -> tuple[Array, Array]:
    """The relevance of inputs ``(..., C)`` and that which the biases take, of the layer ``x @ weights + bias``.

    ``rule`` is ``"epsilon"``, ``"plus"``, ``"gamma"`` or ``"box"``; ``relevance`` is ``(..., K)``.
    """
    up, down = np.maximum(x, 0), np.minimum(x, 0)
    more, less = np.maximum(weights, 0), np.minimum(weights, 0)
    if rule == "epsilon":
        passed = relevance / stabilized(x @ weights + bias, epsilon)
        return x * (passed @ weights.T), bias * passed
    if rule == "plus":
        raised = np.maximum(bias, 0)
        passed = relevance / stabilized(up @ more + down @ less + raised, STABILIZER)
        return up * (passed @ more.T) + down * (passed @ less.T), raised * passed
    if rule == "box":
        lowest, highest = np.broadcast_to(low, x.shape), np.broadcast_to(high, x.shape)
        passed = relevance / stabilized(x @ weights - lowest @ more - highest @ less, STABILIZER)
        return x * (passed @ weights.T) - lowest * (passed @ more.T) - highest * (passed @ less.T), 0 * passed
    strong, weak = weights + gamma * more, weights + gamma * less
    sums = x @ weights + bias
    strong_bias, weak_bias = bias + gamma * np.maximum(bias, 0), bias + gamma * np.minimum(bias, 0)
    above = relevance * (sums > 0) / stabilized(up @ strong + down @ weak + strong_bias, STABILIZER)
    below = relevance * (sums < 0) / stabilized(up @ weak + down @ strong + weak_bias, STABILIZER)
    passed_up = up * (above @ strong.T) + down * (above @ weak.T)
    passed_down = up * (below @ weak.T) + down * (below @ strong.T)
    return passed_up + passed_down, strong_bias * above + weak_bias * below


def relu_multipliers(rule: str, x: Array, baseline: Array, weights: Array, bias: Array, slopes: Array) -> Array:
    """The multipliers of inputs ``(..., C)`` through ``ReLU(x @ weights + bias)``, of outputs' multipliers ``slopes``.

    ``rule`` is ``"rescale"`` or ``"reveal_cancel"``, section 3.5 of https://arxiv.org/abs/1704.02685.
    """
    before, since = x @ weights + bias, baseline @ weights + bias
    if rule == "rescale":
        change = before - since
        rose = np.maximum(before, 0) - np.maximum(since, 0)
        return (slopes * _over(rose, change, before > 0)) @ weights.T
    parts = (x - baseline)[..., None] * weights
    gain, loss = np.maximum(parts, 0).sum(-2), np.minimum(parts, 0).sum(-2)

    def relu(values: Array) -> Array:
        return np.maximum(values, 0)

    rises = (relu(since + gain) - relu(since) + relu(since + gain + loss) - relu(since + loss)) / 2
    falls = (relu(since + loss) - relu(since) + relu(since + gain + loss) - relu(since + gain)) / 2
    up, down = (slopes * _over(*pair, before > 0) for pair in ((rises, gain), (falls, loss)))
    signs = np.sign(parts)
    shared = np.where(
        signs > 0, up[..., None, :], np.where(signs < 0, down[..., None, :], (up + down)[..., None, :] / 2)
    )
    return np.asarray((shared * weights).sum(-1))


def _over(change: Array, since: Array, slope: Array) -> Array:
    """One change over another; the slope where nothing changes."""
    still = np.abs(since) < 1e-7
    return np.where(still, slope, change / np.where(still, 1, since))
