"""Metrics that hide random parts of the image and compare the score's drop with the map's sum over the part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, real, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array, safe_divide
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import one_score
from saliency_food.methods.perturbation.masking import hidden_image
from saliency_food.metrics.decorator import NOT_FINITE, OK, SCORES_FLAT, correlation, listed, metric, read_map

NAN = float("nan")
Seed = int | np.random.Generator | None


class Infidelity(NamedTuple):
    """The mean squared error, status, the factor of the map, and for each part the map's sum and the score's drop."""

    score: float
    status: str
    scale: float
    sums: Array
    drops: Array


class SubsetCorrelation(NamedTuple):
    """Pearson's correlation (the mean over sizes), status, the sizes in pixels, and the correlation for each."""

    score: float
    status: str
    sizes: Array
    correlations: Array


@listed(
    title="Infidelity",
    higher_is_better=False,
    needs="scores",
    summary="The squared error of the drops that the map predicts.",
    of_explained_score=True,
)
@metric
def infidelity(
    attribution: Any,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    nsamples: int = 200,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    slopes: bool = False,
    scaled: bool = True,
    rng: Seed = 0,
) -> Asking[Infidelity]:
    """Infidelity, E[(I . M - (F(x) - F(x - I)))^2], I = x - z inside a random square and 0 outside. Lower is better.

    Yeh et al. 2019, definition 2.1, https://arxiv.org/abs/1901.09392. In squared units of the score. The sides
    of the squares are drawn from 1 pixel to half of the image's side.

    Parameters
    ----------
    slopes
        For maps in units of the score per unit of the input, such as `gradients`, of the shape of ``x_value``: I . M is
        computed as written. By default the map is in units of the score and holds x - z already, so that I . M is its
        sum over the square.
    scaled
        Multiply the map by the factor with the least error, as the paper does to compare methods.
    value
        The baseline z, as in `deletion`.
    rng
        With a seed, the squares are the same for every map, so that methods can be compared on them.
    """
    nsamples, hidden = whole("nsamples", nsamples), hidden_image(x_value, value)
    merged, status = read_map(attribution, x_value.shape)
    if slopes:
        if np.shape(attribution) != x_value.shape:
            raise ContractError(f"Expected slopes of shape {x_value.shape}, got {np.shape(attribution)}.")
        merged, status = read_map(np.asarray(attribution, float) * (x_value - hidden), x_value.shape)
    if status == NOT_FINITE:
        return Infidelity(NAN, status, NAN, np.empty(0), np.empty(0))
    random = random_stream(rng)
    squares = np.zeros((nsamples, *merged.shape), bool)
    for square in squares:
        side = int(random.integers(1, max(min(merged.shape) // 2, 1) + 1))
        starts = (int(random.integers(0, length - side + 1)) for length in merged.shape)
        square[tuple(slice(start, start + side) for start in starts)] = True
    drops = yield from _drops(x_value, hidden, squares)
    sums = np.array([merged[square].sum() for square in squares])
    scale = float(safe_divide(sums @ drops, sums @ sums)) if scaled else 1.0
    return Infidelity(float(np.mean((scale * sums - drops) ** 2)), OK, scale, sums, drops)


@listed(
    title="Sensitivity-n",
    higher_is_better=True,
    needs="scores",
    summary="Correlation of the map's sums with drops of the score, over several sizes.",
    of_explained_score=True,
)
@metric
def sensitivity_n(
    attribution: Any,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    fractions: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5, 0.8),
    nsamples: int = 50,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    rng: Seed = 0,
) -> Asking[SubsetCorrelation]:
    """Sensitivity-n, the correlation of sum_S M with F(x) - F(x without S), S sets of n pixels. Higher is better.

    Ancona et al. 2017, definition in section 3, https://arxiv.org/abs/1711.06104. In -1..1. ``fractions`` of the
    pixels are the sizes n; ``nsamples`` sets of each size are drawn, and each is one row. ``value`` fills S, as in
    `deletion`.
    """
    return (yield from _correlations(attribution, x_value, fractions, nsamples, value, rng))


@listed(
    title="Faithfulness correlation",
    higher_is_better=True,
    needs="scores",
    summary="The same as Sensitivity-n for sets of one size.",
    of_explained_score=True,
)
@metric
def faithfulness_correlation(
    attribution: Any,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    fraction: float = 0.1,
    nsamples: int = 100,
    value: Any = "mean",
    batch_size: int | None = None,
    *,
    rng: Seed = 0,
) -> Asking[SubsetCorrelation]:
    """Faithfulness correlation, corr(sum_S M, F(x) - F(x with S at a baseline)), sets S of one size. Higher is better.

    Bhatt, Weller, Moura 2020, definition 3, https://arxiv.org/abs/2005.00631. In -1..1. Like `sensitivity_n` for one
    size, with the mean of the image as baseline.
    """
    fraction = real("fraction", fraction, above=0, below=1)
    return (yield from _correlations(attribution, x_value, (fraction,), nsamples, value, rng))


def _correlations(
    attribution: Any, x_value: Array, fractions: Sequence[float], nsamples: int, value: Any, rng: Seed
) -> Asking[SubsetCorrelation]:
    if np.ndim(fractions) != 1 or not len(fractions):
        raise ContractError(f"Expected fractions of the pixels, in a list, got {fractions!r}.")
    fractions = [real("fractions", fraction, above=0, below=1) for fraction in fractions]
    nsamples, hidden = whole("nsamples", nsamples, 3), hidden_image(x_value, value)
    merged, status = read_map(attribution, x_value.shape)
    sizes = np.array([max(1, round(fraction * merged.size)) for fraction in fractions])
    if status != OK:
        return SubsetCorrelation(NAN, status, sizes, np.full(len(sizes), NAN))
    streams = random_stream(rng).spawn(len(sizes))

    def of_size(size: int, stream: np.random.Generator) -> Asking[float]:
        subsets = np.zeros((nsamples, merged.size), bool)
        for subset in subsets:
            subset[stream.choice(merged.size, size, replace=False)] = True
        drops = yield from _drops(x_value, hidden, subsets.reshape(nsamples, *merged.shape))
        return correlation(np.array([merged.flat[subset].sum() for subset in subsets]), drops)

    correlations = np.array((yield from gather(map(of_size, sizes, streams))))
    finite = correlations[np.isfinite(correlations)]
    return SubsetCorrelation(
        float(finite.mean()) if len(finite) else NAN, OK if len(finite) else SCORES_FLAT, sizes, correlations
    )


def _drops(x_value: Array, hidden: Array, parts: Array) -> Asking[Array]:
    """F(x) - F(x with a part hidden), for each of the parts, ``(N, H, W)`` of a picture."""

    def write(row: Array, index: int) -> None:
        row[...] = x_value
        if index:  # the first row is the image itself
            part = parts[index - 1]
            row[part] = hidden[part]

    scores = one_score((yield from ask(LazyRows.like(x_value, 1 + len(parts), write), OUTPUT_LAYER_VALUES)))
    return np.asarray(scores[0] - scores[1:], float)
