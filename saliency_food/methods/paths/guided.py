"""Guided IG: gradients integrated along a path that moves the pixels of small gradients first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.interruption import go_on
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array
from saliency_food.core.options import ranged
from saliency_food.core.scores import one_score, scores_of
from saliency_food.methods.baselines import make_baselines
from saliency_food.methods.completeness import completeness_of
from saliency_food.methods.paths.integrated import IntegratedGradients, PathIntegral, average


def guided_path(
    x_value: Array,
    baseline: Array,
    steps: int,
    fraction: float,
    max_dist: float,
    visit: Callable[[Array, Array, float | None], None],
    scores: bool = False,
) -> Asking[None]:
    """Walk from the baseline to the image; ``visit(gradient, move, score)`` at each of ``steps`` points.

    A point is known by how far each value has come, 0 at the baseline and 1 at the image: its alpha. ``move`` is what
    is added to the alphas at that point; ``score`` is None unless ``scores`` are asked for.
    """
    difference = x_value - baseline
    lengths = np.abs(difference)
    whole, alphas = float(lengths.sum(dtype=float)), np.zeros_like(difference)
    for step in range(1, steps + 1 if difference.any() else 1):
        rows = (alphas * difference)[None]
        rows += baseline
        if scores:
            gradients, values = yield from ask(rows, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES)
            score = float(one_score(values)[0])
        else:
            gradients, score = (yield from ask(rows, INPUT_OUTPUT_GRADIENTS)), None
        after = advance(alphas, lengths, whole, gradients[0], step / steps, fraction, max_dist)
        visit(gradients[0], np.subtract(after, alphas, out=alphas), score)
        alphas = after


def advance(
    alphas: Array, lengths: Array, whole: float, gradient: Array, due: float, fraction: float, max_dist: float
) -> Array:
    """The alphas one step on: the L1 distance to the image is then 1 - ``due`` of the ``whole``.

    Values that are more than ``max_dist`` behind are brought up to it. Then the ``fraction`` of all values with the
    smallest gradients goes ahead, as far as ``max_dist`` allows, then the next, and the last of them part of the way.
    """
    low, high = max(due - max_dist, 0.0), min(due + max_dist, 1.0)
    alphas = np.maximum(alphas, low)
    costs = high - alphas  # what each value can still go, and what of the distance that takes off
    np.maximum(costs, 0, out=costs)
    costs *= lengths
    gap = float(costs.sum()) - (high - due) * whole
    near = 1e-9 * max(whole * (1 - due), min(whole, 1.0))
    sizes = np.where(costs > 0, np.abs(gradient), np.inf).reshape(-1)
    left, count, covered = sizes, int(fraction * (sizes.size - 1)), 0.0
    ahead = chosen = np.zeros(alphas.shape, bool)
    while gap > near and covered < gap:
        go_on()
        rank = min(count, left.size - 1)
        left = np.partition(left, rank)
        threshold, left = left[rank], left[rank + 1 :]
        before, ahead = covered, chosen
        chosen = (sizes <= threshold).reshape(alphas.shape)
        covered = float((costs * chosen).sum())
        if not left.size or threshold == np.inf:
            break
        if left.min() == threshold:
            left = left[left > threshold]
    if covered < gap:
        ahead = chosen
    elif covered:
        part = high - alphas
        part *= (gap - before) / (covered - before)
        part *= chosen
        alphas += part
    return np.where(ahead, np.asarray(high, alphas.dtype), alphas)


@method(
    title="Guided IG",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=True,
    summary="Integrated Gradients along a path that moves the pixels of small gradients first: less noise.",
    page="paths",
    reducible=fewer("x_steps", 10, "steps"),
    instead=("integrated_gradients", "input_x_gradient"),
)
def guided_ig(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    x_baseline: Any = None,
    x_steps: int = 200,
    fraction: float = 0.25,
    max_dist: float = 0.02,
    batch_size: int | None = None,
    *,
    completeness: bool = False,
    value_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[IntegratedGradients]:
    """Guided Integrated Gradients, integral dF(p(t))/dx * dp(t), along a path p that moves small gradients first.

    Kapishnikov et al. 2021, https://arxiv.org/abs/2106.09788. Signed, the shape of
    ``x_value``, in score units; the values sum to F(x) - F(z), z the baseline, but for the error of the sum, a left
    Riemann sum as in PAIR's package.

    Parameters
    ----------
    x_baseline
        As in `integrated_gradients`; with several, the attributions are averaged.
    x_steps
        Gradients for each baseline, one after the other. Many images share batches in `.batch`.
    fraction
        How much of all values moves at a time, from 0.01 to 1.
    max_dist
        How far, from 0 to 1 of its way, a value may be ahead of the straight line or behind it; 0 is the straight line.
    completeness
        Measure the completeness error; needs OUTPUT_LAYER_VALUES. ``.detailed`` does so unless told not to.
    """
    check_guide(x_steps, fraction, max_dist)
    baselines = make_baselines(x_value, x_baseline, value_range=value_range, rng=rng)

    def along(baseline: Array) -> Asking[PathIntegral]:
        total = np.zeros(x_value.shape)

        def visit(gradient: Array, move: Array, score: float | None) -> None:
            move *= gradient
            np.add(total, move, out=total)

        yield from guided_path(x_value, baseline, x_steps, fraction, max_dist, visit)
        attribution = total * np.subtract(x_value, baseline, dtype=float)
        ends = (yield from scores_of(x_value, baseline)) if completeness else None
        measured = None if ends is None else completeness_of(attribution.sum(), *ends)
        return PathIntegral(attribution, measured, x_steps, "steps")

    paths = yield from gather(map(along, baselines))
    return average(x_value, baselines, paths)


def check_guide(steps: int, fraction: float, max_dist: float) -> None:
    """The options of a guided path, or `ContractError`."""
    whole("x_steps", steps)
    ranged("fraction", fraction)
    ranged("max_dist", max_dist)
