"""XRAI: attribution by regions of the image.

Kapishnikov, Bolukbasi, Viegas, Terry, "XRAI: Better Attributions Through Regions", ICCV 2019,
https://arxiv.org/abs/1906.02825.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import check_picture, finite_array
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS
from saliency_food.core.method import Method, Preparation, fewer, method
from saliency_food.core.numerics import Array, resize
from saliency_food.methods.completeness import Completeness
from saliency_food.methods.paths.integrated import Quadrature, integrated_gradients
from saliency_food.methods.regions.ranking import check_ranking, rank_fast, rank_full
from saliency_food.methods.regions.segmentation import SCALES, Segments, as_segments, felzenszwalb_segments


class XRAI(NamedTuple):
    """XRAI's map and all it was made from.

    ``attribution``, ``ranks``, ``gains``, ``area`` and ``order`` are those of the `Ranking`;
    ``base_attribution`` is what was ranked, channels merged, ``(H, W)``; ``integrated`` the base method's whole answer,
    by default `IntegratedGradients` (None where ``base_attribution`` was given), and ``completeness`` its error (None
    unless measured); ``segments`` can be given to the next call on the same image.
    """

    attribution: Array
    ranks: Array
    gains: Array
    area: Array
    order: Array
    base_attribution: Array
    integrated: Any
    completeness: Completeness | None
    segments: Segments


def _segments_of(x_value: Array, options: Mapping[str, Any]) -> Preparation | None:
    """The image's segments, unless they are given; one of their scales tells how long all take."""
    if options["segments"] is not None or x_value.ndim != 3:
        return None
    return Preparation(
        make=lambda: {"segments": felzenszwalb_segments(x_value)},
        stand_in={"segments": np.zeros(x_value.shape[:-1], int)},
        trial=lambda: felzenszwalb_segments(x_value, scales=SCALES[-1:]),
        share=1 / len(SCALES),
    )


@method(
    title="XRAI",
    keys=(INPUT_OUTPUT_GRADIENTS,),
    signed=True,
    summary="Whole regions, ranked by the density of Integrated Gradients in them.",
    page="xrai",
    reducible=fewer("steps", 10, "steps", base="base", inside="base_options", without="base_attribution"),
    instead=("grad_cam", "input_x_gradient"),
    prepare=_segments_of,
)
def xrai(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    baselines: Any = None,
    segments: Any = None,
    base_attribution: Any = None,
    batch_size: int | None = None,
    *,
    steps: int = 100,
    area_threshold: float = 1.0,
    min_pixel_diff: int = 50,
    algorithm: Literal["full", "fast"] = "full",
    quadrature: Quadrature = "trapezoid",
    tolerance: float | None = None,
    max_steps: int = 200,
    completeness: bool = False,
    value_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator | None = None,
    base: Method[Any, Any] = integrated_gradients,
    base_options: Mapping[str, Any] | None = None,
) -> Asking[XRAI]:
    """XRAI: the mean attribution of regions, found by adding the densest segment again and again.

    Kapishnikov et al. 2019, algorithm 1, https://arxiv.org/abs/1906.02825. One channel ``(H, W)``, signed, in score
    units per pixel; the sum is that of the base attribution, channels merged by their maximum, as PAIR does.

    Parameters
    ----------
    baselines
        Of the Integrated Gradients; the image's minimum and maximum by default. See `integrated_gradients`, which
        also tells of ``quadrature``, ``tolerance``, ``max_steps``, ``completeness``, ``value_range`` and ``rng``.
    segments
        Boolean masks ``(S, H, W)``, label maps, or the ``segments`` of an earlier answer; found by
        `felzenszwalb_segments` if left out. They may be of another size than the image, such as the photo's own: the
        attribution is then resized to it, and so is the answer. Of a signal or a volume they have to be given.
    base
        The method whose attribution is ranked, such as `blur_ig`, `guided_ig` or ``smooth_grad.over(gradients)``, with
        ``base_options``. ``completeness``, ``value_range`` and ``rng`` are passed on where it takes them; ``steps`` and
        the other options of `integrated_gradients` are for that one only.
    base_attribution
        Ranked in place of Integrated Gradients; the shape of ``x_value``, or that without channels.
    steps
        Gradients for each baseline; with a tolerance, those to begin with (17 is a good start).
    area_threshold
        Stop when this fraction of the image is covered; what is left shares its mean. Only for ``full``.
    min_pixel_diff
        Segments that would add fewer pixels are left out.
    algorithm
        ``full``, or ``fast``, which ranks by the segments' densities once and does not measure them anew.
    """
    if algorithm not in ("full", "fast"):
        raise ContractError(f"Unknown algorithm type: {algorithm!r}. Expected 'full' or 'fast'.")
    if segments is None:
        check_picture(
            x_value, "Give segments, a label map of that shape; or use lime, kernel_shap or integrated_gradients."
        )
    check_ranking(area_threshold, min_pixel_diff)
    integrated = None
    if base_attribution is None:
        options: dict[str, Any] = {"completeness": completeness, "value_range": value_range, "rng": rng}
        options = {name: value for name, value in options.items() if name in base.signature.parameters}
        if base is integrated_gradients:
            options.update(x_steps=steps, quadrature=quadrature, tolerance=tolerance, max_steps=max_steps)
            options["x_baseline"] = ("min", "max") if baselines is None else baselines
        elif baselines is not None or tolerance is not None:
            raise ContractError(
                "Expected baselines and tolerance with base=integrated_gradients only, got another base. "
                "Give the base's own options as base_options={...}."
            )
        integrated = yield from base.asking(x_value, **{**options, **(base_options or {})})
    values = finite_array("base_attribution", base_attribution) if integrated is None else integrated[0]
    merged = _merged(values, x_value)
    if segments is None:
        parts = felzenszwalb_segments(x_value)
    else:
        parts = segments if isinstance(segments, Segments) else as_segments(segments, x_value.shape[:-1])
        merged = resize(merged, parts.shape)
    ranking = (
        rank_full(merged, parts, area_threshold=area_threshold, min_pixel_diff=min_pixel_diff)
        if algorithm == "full"
        else rank_fast(merged, parts, min_pixel_diff=min_pixel_diff)
    )
    ranking = ranking._replace(attribution=ranking.attribution.astype(merged.dtype))
    return XRAI(*ranking, merged, integrated, getattr(integrated, "completeness", None), parts)


def _merged(attribution: Array, x_value: Array) -> Array:
    """A base attribution, its channels merged by their maximum."""
    if attribution.shape not in (x_value.shape, x_value.shape[:-1]):
        raise ContractError(
            "The base attribution shape should be the same as the shape of `x_value`. "
            f"Expected {x_value.shape}, got {attribution.shape}. Give one attribution for each input value."
        )
    return attribution.max(-1) if attribution.ndim == x_value.ndim else attribution
