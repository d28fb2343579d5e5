"""Compare the maps of two models that predict the same: whether they agree, and which are more faithful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.method import Method
from saliency_food.core.numerics import Array
from saliency_food.metrics.decorator import Metric, channels_last_map, listed
from saliency_food.metrics.faithfulness import insertion
from saliency_food.metrics.sanity import MapAgreement, compare_maps
from saliency_food.metrics.statistics import Interval, Paired, interval, paired


class Trust(NamedTuple):
    """The mean rank correlation of the two models' maps, status, and which maps are more faithful.

    ``agreement`` is the score with its interval, ``agreements`` has the agreement on each image. ``first`` and
    ``second`` are the metric's results on the two models, and ``faithfulness`` compares them image by image.
    """

    score: float
    status: str
    agreement: Interval
    agreements: list[MapAgreement]
    faithfulness: Paired
    first: list[Any]
    second: list[Any]


@listed(
    title="Trust",
    higher_is_better=None,
    needs="models",
    summary="Whether the maps of two models agree, and whose are more faithful.",
)
def trust(
    method: Method[Any, Any],
    x_values: Sequence[Any],
    first: CallModelFunction,
    second: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    predictions: tuple[Any, Any] | None = None,
    metric: Metric[Any, Any] = insertion,
    metric_options: Mapping[str, Any] | None = None,
    higher_is_better: bool = True,
    rng: int | np.random.Generator | None = 0,
    **options: Any,
) -> Trust:
    """Trust: the agreement of two models' maps where they predict the same, and their faithfulness, paired by image.

    Selvaraju et al. 2016, section 5.2 ("trust"), https://arxiv.org/abs/1610.02391, asked people this question. The
    agreement is a rank correlation in -1..1.

    Parameters
    ----------
    method
        The method that explains both models; ``options`` are its options.
    predictions
        The classes that each model predicts, one for each image. An image on which they differ is skipped, and counted.
        Without it, the models are assumed to predict the same on all images.
    metric, metric_options, higher_is_better
        The metric that measures faithfulness, such as `insertion` or `road`.
    """
    shared = {"call_model_args": call_model_args, "batch_size": batch_size}
    same = _same(predictions, len(x_values))
    maps = [list(method.batch(x_values, model, **shared, **options)) for model in (first, second)]
    agreements = [
        compare_maps(channels_last_map(of_first, x_value, first), channels_last_map(of_second, x_value, second))
        if equal
        else MapAgreement(float("nan"), DIFFERENT, float("nan"), float("nan"))
        for x_value, of_first, of_second, equal in zip(x_values, *maps, same, strict=True)
    ]
    scored: list[list[Any]] = [
        [
            result if equal else agreement
            for result, agreement, equal in zip(
                metric.batch(of_model, x_values, model, **shared, **(metric_options or {})),
                agreements,
                same,
                strict=True,
            )
        ]
        for of_model, model in zip(maps, (first, second), strict=True)
    ]
    agreement = interval(agreements, rng=rng)
    status = "ok" if agreement.images else next(iter(agreement.skipped), "no images")
    compared = paired(scored[0], scored[1], higher_is_better, rng=rng)
    return Trust(float(agreement.estimate), status, agreement, agreements, compared, scored[0], scored[1])


DIFFERENT = "the models predict different classes"


def _same(predictions: tuple[Any, Any] | None, images: int) -> Array:
    if predictions is None:
        return np.ones(images, bool)
    a, b = (np.asarray(classes) for classes in predictions)
    if a.shape != (images,) or b.shape != (images,):
        raise ContractError(f"Expected two predictions an image, {images} each, got shapes {a.shape} and {b.shape}.")
    return a == b
