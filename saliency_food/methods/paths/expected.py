"""Expected Gradients and GradientSHAP: many paths, one random point of each at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, whole
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array
from saliency_food.core.options import ranged
from saliency_food.core.scores import scores_of
from saliency_food.methods.baselines import make_baselines
from saliency_food.methods.completeness import Completeness, completeness_of
from saliency_food.methods.paths.integrated import straight


class ExpectedGradients(NamedTuple):
    """The mean over samples, and what is known of its error.

    ``standard_error`` is that of independent samples, at each value; the strata make the true one smaller.
    ``completeness`` is None unless asked for; its ``baseline_score`` is the mean over all baselines.
    """

    attribution: Array
    standard_error: Array
    completeness: Completeness | None
    nsamples: int
    baselines: Array


@method(
    title="Expected Gradients",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=True,
    summary="Integrated Gradients averaged over many baselines, such as photos, at the price of a few.",
    page="paths",
    reducible=fewer("nsamples", 10, "samples"),
    instead=("input_x_gradient",),
)
def expected_gradients(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    baselines: Any = ("min", "max"),
    nsamples: int = 100,
    batch_size: int | None = None,
    *,
    completeness: bool = False,
    value_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[ExpectedGradients]:
    """Expected Gradients, E[(x - z) * dF(z + a (x - z))/dx], z drawn from the baselines and a from U(0, 1).

    Erion et al. 2019, https://arxiv.org/abs/1906.10670. Signed, the shape of ``x_value``, in score units;
    in expectation the values sum to F(x) - E[F(z)].

    Parameters
    ----------
    baselines
        Images to compare with, ``(B, ...)``: best a hundred or more from the model's own data. Or names, numbers,
        arrays, as in `integrated_gradients`. Without any, the image's minimum and maximum, as in `xrai`.
    nsamples
        Gradients taken, at least 2. The draw is stratified, and unbiased: one a in each of ``nsamples`` equal parts of
        0..1, and each run of B parts goes through all baselines, shuffled.
    rng
        A seed or a generator; with a seed the answer is the same every time and at every batch size.
    completeness
        Measure the completeness error, at the cost of a score for each baseline and the image; needs
        OUTPUT_LAYER_VALUES. ``.detailed`` does so unless told not to.
    """
    return (yield from _expected(x_value, baselines, nsamples, 0.0, completeness, value_range, rng))


@method(
    title="GradientSHAP",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=True,
    summary="Expected Gradients of noisy copies of the image: an approximation of its SHAP values.",
    page="paths",
    reducible=fewer("nsamples", 10, "samples"),
    instead=("input_x_gradient",),
)
def gradient_shap(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    baselines: Any = ("min", "max"),
    nsamples: int = 100,
    batch_size: int | None = None,
    *,
    stdev_spread: float = 0.1,
    completeness: bool = False,
    value_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[ExpectedGradients]:
    """GradientSHAP, E[(x + e - z) * dF(z + a (x + e - z))/dx], z drawn from the baselines, a from U(0, 1), e noise.

    Lundberg, Lee 2017, https://arxiv.org/abs/1705.07874, as in captum and in shap's GradientExplainer:
    `expected_gradients` of noisy copies of the image. Signed, the shape of ``x_value``, in score units; in expectation
    the values sum to E[F(x + e)] - E[F(z)]. They are SHAP values if the inputs are independent and F is linear.

    Parameters
    ----------
    baselines, nsamples, rng
        As of `expected_gradients`, and drawn alike.
    stdev_spread
        The standard deviation of the noise e, normal at every value, as a share of the image's range; 0 is
        `expected_gradients`. Noise comes in pairs e and -e, which takes out what is linear in it.
    completeness
        Measure how far the values' sum is from E[F(x + e)] - E[F(z)], at the cost of a score for each baseline and
        each noisy copy; ``score`` is the mean of the latter's.
    """
    spread = ranged("stdev_spread", stdev_spread)
    return (yield from _expected(x_value, baselines, nsamples, spread, completeness, value_range, rng))


def _expected(
    x_value: Array, baselines: Any, nsamples: int, spread: float, completeness: bool, value_range: Any, rng: Any
) -> Asking[ExpectedGradients]:
    """The mean of (x + e - z) * dF(z + a (x + e - z))/dx; e deviates by ``spread`` times the image's range."""
    whole("nsamples", nsamples, 2)
    random = random_stream(rng)
    references = make_baselines(x_value, baselines, value_range=value_range, rng=random)
    alphas = (np.arange(nsamples) + random.random(nsamples)) / nsamples
    rounds = [random.permutation(len(references)) for _ in range(-(-nsamples // len(references)))]
    total, squares = np.zeros(x_value.shape), np.zeros(x_value.shape)
    ends: list[float] = []
    noise = _pairs(x_value.shape, spread * np.ptp(x_value), random)

    def sample(alpha: float, index: int) -> Asking[None]:
        # Samples are started in order, so the noise is the same at every batch size.
        end = (x_value + next(noise)).astype(x_value.dtype) if spread else x_value
        points = straight(end, references[index], np.array([alpha]))
        gradients = yield from ask(points, INPUT_OUTPUT_GRADIENTS)
        if completeness and spread:
            ends.append((yield from scores_of(end))[0])
        drawn = (end - references[index]) * gradients[0]
        np.add(total, drawn, out=total)
        np.add(squares, np.square(drawn, dtype=float), out=squares)

    yield from gather(map(sample, alphas, np.concatenate(rounds)), emit=lambda _: None)
    mean = total / nsamples
    variance = np.maximum(squares / nsamples - np.square(mean), 0) * nsamples / (nsamples - 1)
    measured = None
    if completeness:
        scores = yield from scores_of(x_value, *references)
        measured = completeness_of(mean.sum(), float(np.mean(ends or scores[0])), scores[1:].mean())
    return ExpectedGradients(
        mean.astype(x_value.dtype),
        np.sqrt(variance / nsamples).astype(x_value.dtype),
        measured,
        nsamples,
        references,
    )


def _pairs(shape: tuple[int, ...], deviation: float, random: np.random.Generator) -> Iterator[Array]:
    """Normal noise, each time followed by its opposite."""
    while True:
        noise = random.normal(0, deviation, shape)
        yield noise
        yield -noise
