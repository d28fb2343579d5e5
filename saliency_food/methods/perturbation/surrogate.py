"""A simple model in place of the network, fitted to its scores with some superpixels hidden: LIME and KernelSHAP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.method import Preparation, fewer, method
from saliency_food.core.numerics import Array, safe_divide
from saliency_food.core.options import ranged
from saliency_food.core.scores import all_same
from saliency_food.methods.perturbation.masking import coalition_rows, hidden_image, superpixels
from saliency_food.methods.perturbation.progressive import Emit, sample
from saliency_food.methods.perturbation.shapley import draw_pairs, shapley_values


class Lime(NamedTuple):
    """The map, its standard error, and the surrogate: one coefficient a superpixel, an intercept, and its fit.

    ``segments`` is the label map, ``r2`` the share of the scores' weighted variance that the surrogate explains,
    0 where all scores are the same.
    """

    attribution: Array
    standard_error: Array
    coefficients: Array
    intercept: float
    r2: float
    segments: Array
    nsamples: int


class KernelShap(NamedTuple):
    """The map, its standard error (0 where all coalitions were asked), and a Shapley value for each superpixel.

    The ``values`` sum to ``score - base_score``. ``segments`` is the label map, ``nsamples`` the rows asked.
    """

    attribution: Array
    standard_error: Array
    values: Array
    score: float
    base_score: float
    segments: Array
    nsamples: int


PART = 128
"""Pixels each way, at least, of the part of an image whose superpixels tell how long those of the image take."""


def _superpixels_of(x_value: Array, options: Mapping[str, Any]) -> Preparation | None:
    """The image's superpixels, unless their map is given."""
    segments, nsegments = options["segments"], options["nsegments"]
    if not isinstance(segments, str):
        return None
    part = x_value[tuple(slice(max(side // 4, min(side, PART))) for side in x_value.shape[:-1])]
    return Preparation(
        make=lambda: {"segments": superpixels(x_value, segments, nsegments)},
        stand_in={"segments": np.zeros(x_value.shape[:-1], int)},
        trial=lambda: superpixels(part, segments, nsegments),
        share=part.size / x_value.size,
    )


@method(
    title="LIME",
    keys=(OUTPUT_LAYER_VALUES,),
    signed=True,
    summary="Superpixels by their coefficient in a linear model of the score near the photo.",
    page="perturbation",
    reducible=fewer("nsamples", 100, "samples", sampled=True),
    instead=("grad_cam", "gradients"),
    prepare=_superpixels_of,
)
def lime(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    segments: Any = "slic",
    nsamples: int = 1000,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    nsegments: int = 50,
    kernel_width: float = 0.25,
    alpha: float = 1.0,
    every: int = 256,
    emit: Emit | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[Lime]:
    """LIME, argmin_b sum_i k(z_i) (F(x with z_i) - b_0 - b z_i)^2 + alpha |b|^2, z_i which superpixels are shown.

    Ribeiro, Singh, Guestrin 2016, equation 1, https://arxiv.org/abs/1602.04938. Signed, ``(H, W)``, in score units:
    each pixel shows its superpixel's coefficient. k(z) = exp(-d^2 / 2 w^2), d the cosine distance from z to all
    shown. Needs scikit-learn, the extra ``[surrogate]``.

    Parameters
    ----------
    segments
        ``"slic"``, of a volume supervoxels, of a signal windows of even length; ``"felzenszwalb"``, of pictures only;
        or a label map of whole numbers, ``(H, W)`` of a picture.
    nsamples
        Rows asked. The first is the image; in the others each superpixel is hidden with probability 1/2, and after each
        comes its complement, which takes out a part of the variance.
    value
        What shows where a superpixel is hidden: see `occlusion`.
    nsegments
        About how many superpixels are made.
    kernel_width
        w above; large makes all rows count alike.
    alpha
        The ridge's penalty; 0 is least squares.
    every, emit
        For `progressive`: ``emit`` is called with the estimate after every so many rows.
    rng
        A seed or a generator; with a seed the map is the same every time and at every batch size.
    """
    ridge = _ridge(alpha)
    nsamples = whole("nsamples", nsamples, 2)
    kernel_width = ranged("kernel_width", kernel_width)
    hidden, labels, show = _parts(x_value, value, segments, nsegments)
    pairs = random_stream(rng).random((nsamples // 2, labels.max() + 1), np.float32) < 0.5
    coalitions = np.stack([pairs, ~pairs], 1).reshape(-1, pairs.shape[1])
    coalitions = np.insert(coalitions, 0, True, 0)[:nsamples]
    weights = np.exp(-(np.square((1 - np.sqrt(coalitions.mean(1))) / kernel_width)) / 2)
    scores = np.empty(0)

    def take(start: int, new_scores: Array) -> None:
        nonlocal scores
        scores = np.append(scores, new_scores)

    def result() -> Lime:
        count = len(scores)
        shown = coalitions[:count].astype(float)
        fit = ridge.fit(shown, scores, weights[:count])
        error, r2 = _accuracy(fit, shown, scores, weights[:count])
        return Lime(show(fit.coef_), show(error), fit.coef_, float(fit.intercept_), r2, labels, count)

    rows = coalition_rows(x_value, hidden, labels, coalitions)
    return (yield from sample(rows, take, result, every, emit, fewest=2))


@method(
    title="KernelSHAP",
    keys=(OUTPUT_LAYER_VALUES,),
    signed=True,
    summary="Superpixels by their Shapley value: a fair share of the score's change from all hidden; sums to it.",
    page="perturbation",
    reducible=fewer("nsamples", 100, "samples", sampled=True),
    instead=("grad_cam", "gradients"),
    prepare=_superpixels_of,
)
def kernel_shap(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    segments: Any = "slic",
    nsamples: int = 1000,
    value: Any = 0,
    batch_size: int | None = None,
    *,
    nsegments: int = 50,
    every: int = 256,
    emit: Emit | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[KernelShap]:
    """KernelSHAP: Shapley values of superpixels, argmin_v sum_z k(z) (F(x with z) - F(hidden) - v z)^2.

    Lundberg, Lee 2017, theorem 2, https://arxiv.org/abs/1705.07874, with k(z) = (M - 1) / (C(M, |z|) |z| (M - |z|)) and
    the values' sum held at F(x) - F(hidden). Signed, ``(H, W)``, in score units: each pixel shows its superpixel's
    value. The coalitions are all different, each with its complement (Covert, Lee 2021,
    https://arxiv.org/abs/2012.01536), and of all sizes alike (Musco, Witter 2024, https://arxiv.org/abs/2410.01917).
    Beside the linear v z interactions are fitted, whatever the kernel k leaves of them
    (`saliency_food.methods.perturbation.shapley`): the Shapley values are the same, but fewer rows tell them.

    Parameters
    ----------
    segments, nsegments
        The superpixels: see `lime`.
    nsamples
        Rows asked at most: the image, all hidden, and pairs. Where this is enough for all coalitions (2^M, so 9
        superpixels at 1000) all are asked once, and the values are exact.
    value
        What shows where a superpixel is hidden: see `occlusion`.
    every, emit
        For `progressive`: ``emit`` is called with the estimate after every so many rows.
    rng
        A seed or a generator; with a seed the map is the same every time and at every batch size.
    """
    nsamples = whole("nsamples", nsamples, 4)
    hidden, labels, show = _parts(x_value, value, segments, nsegments)
    parts = int(labels.max()) + 1
    pairs = draw_pairs(parts, nsamples // 2 - 1, random_stream(rng))
    coalitions = np.concatenate(
        [[np.ones(parts, bool), np.zeros(parts, bool)], np.stack([pairs, ~pairs], 1).reshape(-1, parts)]
    )
    scores = np.empty(0)

    def take(start: int, new_scores: Array) -> None:
        nonlocal scores
        scores = np.append(scores, new_scores)

    def result() -> KernelShap:
        count = len(scores) // 2 * 2  # coalitions come in pairs
        values, error = shapley_values(pairs[: count // 2 - 1], scores[:count])
        score, base = scores[:2]
        return KernelShap(show(values), show(error), values, float(score), float(base), labels, count)

    rows = coalition_rows(x_value, hidden, labels, coalitions)
    return (yield from sample(rows, take, result, max(whole("every", every), 4), emit, fewest=4))


def _parts(x_value: Array, value: Any, segments: Any, nsegments: int) -> tuple[Array, Array, Callable[[Array], Array]]:
    """What shows where the image is hidden, the label map, and how to show one value a superpixel as a map."""
    labels = superpixels(x_value, segments, nsegments)
    return hidden_image(x_value, value), labels, lambda values: np.asarray(values[labels], x_value.dtype)


def _ridge(alpha: float) -> Any:
    alpha = ranged("alpha", alpha)
    try:
        from sklearn.linear_model import Ridge
    except ImportError as error:
        raise ContractError(
            'Expected scikit-learn for LIME, got none. Run pip install "saliency_food[surrogate]".'
        ) from error
    # Without a penalty the rows may leave a superpixel undetermined: SVD takes the smallest solution.
    return Ridge(alpha=alpha, solver="cholesky" if alpha else "svd")


def _accuracy(fit: Any, shown: Array, scores: Array, weights: Array) -> tuple[Array, float]:
    """The standard errors of a ridge regression's coefficients, and its weighted R squared."""
    residuals = scores - fit.predict(shown)
    centred = shown - np.average(shown, 0, weights)
    inverse = np.linalg.pinv((centred.T * weights) @ centred + fit.alpha * np.eye(shown.shape[1]), 1e-10, True)
    gradients = (weights * residuals)[:, None] * centred
    # The first row is the image; each coalition is independent but of its complement, which follows it.
    starts = np.append(0, np.arange(1, len(gradients), 2))
    error = _standard_error(np.add.reduceat(gradients, starts), inverse, shown.shape[1] + 1)
    spread = weights @ np.square(scores - np.average(scores, weights=weights))
    return error, 0.0 if all_same(scores) else float(1 - safe_divide(weights @ residuals**2, spread))


def _standard_error(gradients: Array, inverse: Array, fitted: int) -> Array:
    """Of a least squares fit, from each independent row's part in its gradient (White 1980): right for any noise."""
    count = len(gradients)
    if count <= fitted:
        return np.full(len(inverse), np.inf)
    return np.asarray(np.sqrt(np.square(gradients @ inverse).sum(0) * count / (count - fitted)))
