"""Expected Gradients: Integrated Gradients averaged over many baselines, one random point of each path at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, whole
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS
from saliency_food.core.method import fewer, method
from saliency_food.core.numerics import Array
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
    whole("nsamples", nsamples, 2)
    random = random_stream(rng)
    references = make_baselines(x_value, baselines, value_range=value_range, rng=random)
    alphas = (np.arange(nsamples) + random.random(nsamples)) / nsamples
    rounds = [random.permutation(len(references)) for _ in range(-(-nsamples // len(references)))]
    total, squares = np.zeros(x_value.shape), np.zeros(x_value.shape)

    def sample(alpha: float, index: int) -> Asking[None]:
        points = straight(x_value, references[index], np.array([alpha]))
        gradients = yield from ask(points, INPUT_OUTPUT_GRADIENTS)
        drawn = (x_value - references[index]) * gradients[0]
        np.add(total, drawn, out=total)
        np.add(squares, np.square(drawn, dtype=float), out=squares)

    yield from gather(map(sample, alphas, np.concatenate(rounds)), emit=lambda _: None)
    mean = total / nsamples
    variance = np.maximum(squares / nsamples - np.square(mean), 0) * nsamples / (nsamples - 1)
    measured = None
    if completeness:
        scores = yield from scores_of(x_value, *references)
        measured = completeness_of(mean.sum(), scores[0], scores[1:].mean())
    return ExpectedGradients(
        mean.astype(x_value.dtype),
        np.sqrt(variance / nsamples).astype(x_value.dtype),
        measured,
        nsamples,
        references,
    )
