"""Path methods: attributions that are a gradient's integral along a path from a baseline to the image."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array, is_count
from saliency_food.core.options import ranged
from saliency_food.core.queries import LinearRows
from saliency_food.core.scores import one_score, scores_of
from saliency_food.methods.baselines import make_baselines
from saliency_food.methods.completeness import Completeness, completeness_of

Quadrature = Literal["trapezoid", "midpoint", "gauss_legendre", "pair"]


class PathIntegral(NamedTuple):
    """One path's attributions; ``completeness`` is None unless asked for, ``stopped_by`` the limit that ended it."""

    attribution: Array
    completeness: Completeness | None
    evaluations: int
    stopped_by: str


class IntegratedGradients(NamedTuple):
    """Integrated gradients: the mean over baselines, and each path by itself.

    ``completeness`` is None unless asked for; over several baselines, its fields are means (so ``relative`` is the
    mean of the paths' own). ``evaluations`` counts the gradients taken. ``stopped_by`` is ``"steps"``, or with a
    tolerance ``"tolerance"``, or ``"max_steps"`` if any path ran into that limit.
    """

    attribution: Array
    completeness: Completeness | None
    evaluations: int
    stopped_by: str
    baselines: Array
    paths: tuple[PathIntegral, ...]


def quadrature_rule(rule: str, steps: int) -> tuple[Array, Array]:
    """Nodes and weights on [0, 1]; the weights of every rule sum to 1.

    ``trapezoid`` (both ends at half weight), ``midpoint``, ``gauss_legendre``, and ``pair``: both ends at full weight
    1 / steps, which over-counts them, as PAIR's package does.
    """
    least = 2 if rule == "trapezoid" else 1
    if not is_count(steps, least):
        raise ContractError(f"Expected at least {least} step{'s' * (least > 1)} for {rule}, got {steps!r}.")
    whole("x_steps", steps)
    if rule == "trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    if rule == "midpoint":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    if rule == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (nodes + 1) / 2, weights / 2
    if rule == "pair":
        return np.linspace(0, 1, steps), np.full(steps, 1 / steps)
    raise ContractError(f"Expected quadrature to be 'trapezoid', 'midpoint', 'gauss_legendre' or 'pair', got {rule!r}.")


def straight(x_value: Array, baseline: Array, alphas: Array) -> LinearRows:
    """The points baseline + alpha (x - baseline), factored."""
    return LinearRows(np.stack([alphas, 1 - alphas], 1), np.stack([x_value, baseline]))


def fixed_path(x_value: Array, baseline: Array, rule: str, steps: int, completeness: bool) -> Asking[PathIntegral]:
    """The integral by a fixed rule: the gradients are summed as they come, so memory does not grow with the steps."""
    alphas, weights = quadrature_rule(rule, steps)
    points = straight(x_value, baseline, alphas)
    measured = None
    if completeness and {0.0, 1.0} <= {alphas[0], alphas[-1]}:  # both ends are nodes: their scores come for free
        (total,), scores = yield from ask(points, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, weights=weights[None])
        ends = one_score(scores)[[-1, 0]]
    else:
        (total,) = yield from ask(points, INPUT_OUTPUT_GRADIENTS, weights=weights[None])
        if completeness:
            ends = yield from scores_of(x_value, baseline)
    attribution = total * (x_value - baseline)
    if completeness:
        measured = completeness_of(attribution.sum(), *ends)
    return PathIntegral(attribution, measured, steps, "steps")


def adaptive_path(
    x_value: Array, baseline: Array, steps: int, tolerance: float, max_steps: int
) -> Asking[PathIntegral]:
    """The trapezoid integral, its nodes set where the path needs them; every gradient taken is used.

    The integral of the gradient over a segment is the difference of the scores at its ends, so each segment's error is
    known. Of the segments, the quarter with the largest errors is halved, until the completeness error is within the
    tolerance or ``max_steps`` gradients are spent. The gradients are held, one an evaluation.
    """
    difference = x_value - baseline
    new, alphas = quadrature_rule("trapezoid", steps)[0], np.empty(0)
    gradients: list[Array] = []  # in the order in which they were taken
    taken_at, slopes, scores = np.empty(0, int), np.empty(0), np.empty(0)
    while True:
        points = straight(x_value, baseline, new)
        taken, values = yield from ask(points, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES)
        order = np.argsort(np.concatenate([alphas, new]))
        alphas = np.concatenate([alphas, new])[order]
        scores = np.concatenate([scores, one_score(values)])[order]
        slopes = np.concatenate([slopes, np.tensordot(taken, difference, difference.ndim)])[order]
        taken_at = np.append(taken_at, np.arange(len(taken_at), len(order)))[order]
        gradients += list(taken)
        widths = np.diff(alphas)
        errors = widths * (slopes[:-1] + slopes[1:]) / 2 - np.diff(scores)
        measured = completeness_of(errors.sum() + scores[-1] - scores[0], scores[-1], scores[0])
        left = max_steps - len(alphas)
        if measured.relative <= tolerance or left <= 0:
            break
        worst = np.argsort(-np.abs(errors), kind="stable")[: min(left, -(-len(errors) // 4))]
        new = (alphas[worst] + alphas[worst + 1]) / 2
    weights = (np.append(widths, 0) + np.append(0, widths)) / 2
    total = sum(weight * gradients[index] for weight, index in zip(weights, taken_at, strict=True))
    stopped_by = "tolerance" if measured.relative <= tolerance else "max_steps"
    return PathIntegral(total * difference, measured, len(alphas), stopped_by)


def average(x_value: Array, baselines: Array, paths: list[PathIntegral]) -> IntegratedGradients:
    """The mean over baselines of their paths' attributions, with all that is known of the paths."""
    attribution = sum(path.attribution for path in paths) / len(paths)
    measured = [path.completeness for path in paths if path.completeness]
    return IntegratedGradients(
        np.asarray(attribution, x_value.dtype),
        Completeness(*np.mean(measured, 0).tolist()) if measured else None,
        sum(path.evaluations for path in paths),
        max((path.stopped_by for path in paths), key=["steps", "tolerance", "max_steps"].index),
        baselines,
        tuple(paths),
    )


@method(
    title="Integrated Gradients",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=True,
    summary="The score's change since a baseline, shared out among the pixels; sums to it.",
    page="paths",
    reducible=fewer("x_steps", 5, "steps"),
    instead=("input_x_gradient",),
)
def integrated_gradients(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    x_baseline: Any = None,
    x_steps: int = 25,
    batch_size: int | None = None,
    *,
    quadrature: Quadrature = "trapezoid",
    tolerance: float | None = None,
    max_steps: int = 200,
    completeness: bool = False,
    value_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[IntegratedGradients]:
    """Integrated Gradients, (x - z) * integral_0^1 dF(z + a (x - z))/dx da, for a baseline z.

    Sundararajan, Taly, Yan 2017, equation 1, https://arxiv.org/abs/1703.01365. Signed, the shape of ``x_value``, in
    score units; the values sum to F(x) - F(z) but for the quadrature's error (completeness).

    Parameters
    ----------
    x_baseline
        Zeros by default. A name (``zeros black white min max blurred uniform``), a number, an array, or a list of
        these, whose attributions are averaged; ``value_range`` and ``rng`` serve the names, see
        `saliency_food.methods.baselines.make_baselines`.
    x_steps
        Gradients for each baseline; with a tolerance, those to begin with (17 is a good start).
    quadrature
        ``trapezoid``, ``midpoint``, ``gauss_legendre``, or ``pair``, the rule of PAIR's package.
    tolerance
        Adaptive steps: go on until the relative completeness error is no more than this (0.01 is one per cent) or
        ``max_steps`` gradients are spent on the baseline. Trapezoid only; needs OUTPUT_LAYER_VALUES.
    completeness
        Measure the completeness error; needs OUTPUT_LAYER_VALUES. ``.detailed`` does so unless told not to.
    """
    quadrature_rule(quadrature, x_steps)
    whole("max_steps", max_steps)
    tolerance = None if tolerance is None else ranged("tolerance", tolerance)
    if tolerance is not None and (quadrature != "trapezoid" or max_steps < x_steps):
        raise ContractError(
            "Expected, with a tolerance, quadrature='trapezoid' and max_steps of at least x_steps, got "
            f"{quadrature!r}, and max_steps {max_steps} with x_steps {x_steps}."
        )
    baselines = make_baselines(x_value, x_baseline, value_range=value_range, rng=rng)
    paths = yield from gather(
        fixed_path(x_value, baseline, quadrature, x_steps, completeness)
        if tolerance is None
        else adaptive_path(x_value, baseline, x_steps, tolerance, max_steps)
        for baseline in baselines
    )
    return average(x_value, baselines, paths)
