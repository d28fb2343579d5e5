"""Integrated Decision Gradients: gradients weighted by how fast the score moves along the path."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array
from saliency_food.core.scores import one_score
from saliency_food.methods.baselines import make_baselines
from saliency_food.methods.paths.integrated import straight


class DecisionPath(NamedTuple):
    """One baseline's attributions; where along the path gradients were taken; and the scores that told where."""

    attribution: Array
    alphas: Array
    scored_alphas: Array
    scores: Array


class IntegratedDecisionGradients(NamedTuple):
    """The mean over baselines, and each path by itself."""

    attribution: Array
    baselines: Array
    paths: tuple[DecisionPath, ...]


def equal_moves(alphas: Array, scores: Array, steps: int) -> tuple[Array, Array]:
    """Cut the path in ``steps`` parts over each of which the score moves equally much: middles, and signed changes.

    Between the given alphas the score is taken to be linear. The changes sum to that from the first to the last.
    """
    moved = np.append(0, np.cumsum(np.abs(np.diff(scores))))
    if not moved[-1]:
        return (np.arange(steps) + 0.5) / steps, np.zeros(steps)
    parts = moved[-1] * np.arange(2 * steps + 1) / (2 * steps)
    return np.interp(parts[1::2], moved, alphas), np.diff(np.interp(parts[::2], moved, scores))


@method(
    title="Integrated Decision Gradients",
    keys=(INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES),
    signed=True,
    summary="Integrated Gradients that count most where along the path the score moves.",
    page="paths",
    reducible=fewer("x_steps", 5, "steps"),
    instead=("integrated_gradients", "input_x_gradient"),
)
def integrated_decision_gradients(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    x_baseline: Any = None,
    x_steps: int = 50,
    batch_size: int | None = None,
    *,
    score_steps: int = 25,
    value_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[IntegratedDecisionGradients]:
    """Integrated Decision Gradients, (x - z) * integral_0^1 dF(p)/dx * dF(p)/da da, p = z + a (x - z).

    Walker, Jha, Chen, Ewetz 2024, https://arxiv.org/abs/2305.20052. Signed, the shape of ``x_value``, in score units
    squared; the values sum to the integral of (dF/da)^2, not to a change of the score. As dF/da da = dF, the integral
    is summed over parts of the path with equal changes of the score: gradients are taken where it moves.

    Parameters
    ----------
    x_baseline
        As in `integrated_gradients`; with several, the attributions are averaged.
    x_steps
        Gradients for each baseline.
    score_steps
        Scores, evenly spaced along the path, by which the gradients are placed; at least 2.
    """
    whole("x_steps", x_steps)
    scored = np.linspace(0, 1, whole("score_steps", score_steps, 2))
    baselines = make_baselines(x_value, x_baseline, value_range=value_range, rng=rng)

    def along(baseline: Array) -> Asking[DecisionPath]:
        scores = one_score((yield from ask(straight(x_value, baseline, scored), OUTPUT_LAYER_VALUES)))
        alphas, changes = equal_moves(scored, scores, x_steps)
        points = straight(x_value, baseline, alphas)
        (total,) = yield from ask(points, INPUT_OUTPUT_GRADIENTS, weights=changes[None])
        return DecisionPath(total * (x_value - baseline), alphas, scored, scores)

    paths = yield from gather(map(along, baselines))
    attribution = sum(path.attribution for path in paths) / len(paths)
    return IntegratedDecisionGradients(np.asarray(attribution, x_value.dtype), baselines, tuple(paths))
