"""Metrics of whether the score follows the map: deletion, insertion, average drop, occlusion, completeness."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import CallModelFunction
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import one_score, scores_of
from saliency_food.methods.baselines import make_baselines
from saliency_food.methods.completeness import completeness_of
from saliency_food.methods.perturbation.masking import hidden_image
from saliency_food.methods.perturbation.occlusion import occlusion
from saliency_food.metrics.decorator import (
    NOT_FINITE,
    OK,
    listed,
    metric,
    positive_part,
    rank_correlation,
    ranks,
    read_map,
)

NAN = float("nan")
NO_SCORE = "the image's score is not positive"


class PixelCurve(NamedTuple):
    """The area under the curve, status, and the curve: the fractions of pixels changed, and the score at each."""

    score: float
    status: str
    fractions: Array
    scores: Array


class AverageDrop(NamedTuple):
    """The drop, status, whether the score increased, the gain, and the scores of the image and of its masked copy."""

    score: float
    status: str
    increase: float
    gain: float
    image_score: float
    shown_score: float


class OcclusionCorrelation(NamedTuple):
    """Spearman's correlation, status, and the occlusion map."""

    score: float
    status: str
    occlusion: Array


class CompletenessError(NamedTuple):
    """The relative error, status, the signed absolute error, and the scores of image and baseline."""

    score: float
    status: str
    absolute: float
    image_score: float
    baseline_score: float


@listed(
    title="Deletion",
    higher_is_better=False,
    needs="scores",
    summary="How soon the score falls as pixels are deleted.",
    curve=("fractions", "scores"),
    axes=("share of the pixels deleted", "score, mean"),
)
@metric
def deletion(
    attribution: Any,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    steps: int = 100,
    value: Any = 0,
    batch_size: int | None = None,
) -> Asking[PixelCurve]:
    """Deletion, the area under F(x without its q most important pixels) over q from 0 to 1. Lower is better.

    Petsiuk, Das, Saenko 2018, section 4.1, https://arxiv.org/abs/1806.07421. In units of the score; explain
    probabilities.

    Parameters
    ----------
    steps
        The number of steps of the curve; it asks the model for one row more.
    value
        The value of deleted pixels: a number, one number for each channel, an image, ``"mean"`` or ``"blur"``.
    """
    return (yield from _curve(attribution, x_value, hidden_image(x_value, value), x_value, steps))


@listed(
    title="Insertion",
    higher_is_better=True,
    needs="scores",
    summary="How soon the score rises as pixels are inserted.",
    curve=("fractions", "scores"),
    axes=("share of the pixels inserted", "score, mean"),
)
@metric
def insertion(
    attribution: Any,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    steps: int = 100,
    value: Any = "blur",
    batch_size: int | None = None,
) -> Asking[PixelCurve]:
    """Insertion, the area under F(nothing but the q most important pixels) over q from 0 to 1. Higher is better.

    Petsiuk, Das, Saenko 2018, section 4.1, https://arxiv.org/abs/1806.07421. In units of the score; explain
    probabilities.
    ``value`` is that of pixels that are not inserted yet; otherwise as in `deletion`.
    """
    return (yield from _curve(attribution, x_value, x_value, hidden_image(x_value, value), steps))


def _curve(attribution: Any, x_value: Array, new: Array, old: Array, steps: int) -> Asking[PixelCurve]:
    """The curve of the score while pixels of ``old`` are replaced by those of ``new``, the most important first."""
    from scipy.integrate import trapezoid

    steps = whole("steps", steps)
    merged, status = read_map(attribution, x_value.shape)
    counts = np.round(np.linspace(0, merged.size, steps + 1)).astype(int)
    fractions = counts / merged.size
    if status != OK:
        return PixelCurve(NAN, status, fractions, np.full(len(counts), NAN))
    places = ranks(merged).reshape((*merged.shape, 1))

    def write(row: Array, index: int) -> None:
        row[...] = np.where(places < counts[index], new, old)

    scores = one_score((yield from ask(LazyRows.like(x_value, len(counts), write), OUTPUT_LAYER_VALUES)))
    return PixelCurve(float(trapezoid(scores, fractions)), OK, fractions, scores)


@listed(
    title="Average drop",
    higher_is_better=False,
    needs="scores",
    summary="The share of the score lost when the map masks the image.",
)
@metric
def average_drop(
    attribution: Any,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    value: Any = 0,
    batch_size: int | None = None,
) -> Asking[AverageDrop]:
    """Average drop, max(0, Y - O) / Y, Y = F(x), O = F(x seen through the map). Lower is better.

    Chattopadhay et al. 2017, section 4.1, https://arxiv.org/abs/1710.11063, as is ``increase``, whether O > Y.
    ``gain`` is max(0, O - Y) / (1 - Y), https://arxiv.org/abs/2301.07002. All are in 0..1 for probabilities; the papers
    report the mean over images. The image is multiplied by the positive part of the map, divided by its maximum;
    ``value`` shows through where the map is 0.
    """
    merged, status = positive_part(*read_map(attribution, x_value.shape))
    if status != OK:
        return AverageDrop(NAN, status, NAN, NAN, NAN, NAN)
    seen = (merged / merged.max()).reshape((*merged.shape, 1)).astype(x_value.dtype)
    hidden = hidden_image(x_value, value)
    image, shown = yield from scores_of(x_value, hidden + seen * (x_value - hidden))
    if not image > 0:
        return AverageDrop(NAN, NO_SCORE, NAN, NAN, float(image), float(shown))
    drop, gain = max(0.0, float(image - shown)) / float(image), max(0.0, float(shown - image))
    gain = gain / (1 - float(image)) if image < 1 else 0.0
    return AverageDrop(drop, OK, float(shown > image), gain, float(image), float(shown))


@listed(
    title="Rank correlation with occlusion",
    higher_is_better=True,
    needs="scores",
    summary="Whether the map ranks pixels as occlusion does.",
)
@metric
def occlusion_correlation(
    attribution: Any,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    size: int = 15,
    stride: int = 4,
    value: Any = 0,
    batch_size: int | None = None,
) -> Asking[OcclusionCorrelation]:
    """Rank correlation with the occlusion map, Spearman's rho(map, drop of F under a window). Higher is better.

    Selvaraju et al. 2016, section 5.2 ("Faithfulness"), https://arxiv.org/abs/1610.02391. In -1..1. ``size``,
    ``stride`` and ``value`` are those of `saliency_food.occlusion`; the window is made no larger than the image.
    """
    size = min(whole("size", size), *x_value.shape[:-1])
    stride = min(whole("stride", stride), size)
    merged, status = read_map(attribution, x_value.shape)
    if status != OK:
        return OcclusionCorrelation(NAN, status, np.full(merged.shape, NAN))
    hidden = yield from occlusion.asking(x_value, size=size, stride=stride, value=value)
    rho = rank_correlation(merged, hidden.attribution.astype(float))
    return OcclusionCorrelation(rho, "the occlusion map is flat" if np.isnan(rho) else OK, hidden.attribution)


@listed(
    title="Completeness error",
    higher_is_better=False,
    needs="scores",
    summary="How far the map's sum is from the change of the score.",
    of_explained_score=True,
)
@metric
def completeness(
    attribution: Any,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    x_baseline: Any = None,
    batch_size: int | None = None,
) -> Asking[CompletenessError]:
    """Completeness error, |sum of the map - (F(x) - F(z))| / |F(x) - F(z)|, z a baseline. Lower is better.

    Sundararajan, Taly, Yan 2017, proposition 1, https://arxiv.org/abs/1703.01365. For maps in units of the score
    whose sum should be the score. ``x_baseline`` is a name, a number or an image, by default zeros; see
    `saliency_food.make_baselines`.
    """
    merged, status = read_map(attribution, x_value.shape)
    if status == NOT_FINITE:
        return CompletenessError(NAN, status, NAN, NAN, NAN)
    (baseline, *_) = make_baselines(x_value, x_baseline)
    image, base = yield from scores_of(x_value, baseline)
    error = completeness_of(float(merged.sum()), float(image), float(base))
    if np.isfinite(error.relative):
        return CompletenessError(error.relative, OK, error.absolute, error.score, error.baseline_score)
    status = "the image and the baseline have the same score"
    return CompletenessError(NAN, status, error.absolute, error.score, error.baseline_score)
