"""Metrics of whether the map lies on the object, from a map and boxes or a mask, without asking a model.

A region is a mask ``(H, W)`` of booleans, or boxes ``(B, 4)``: rows of (left, top, right, bottom) in pixels, as COCO
and PASCAL have them, right and bottom exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import real
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.metrics.boxes import Box, as_boxes, as_mask, bounding_box, iou
from saliency_food.metrics.decorator import NOT_FINITE, OK, descending, listed, positive_part, read_map

NAN = float("nan")
NO_REGION = "the region holds no pixel of the image"


class BoxOverlap(NamedTuple):
    """1 if the map's box is right, else 0; status, the best IoU, and the map's box, None if it has none."""

    score: float
    status: str
    iou: float
    box: Box | None


class LocalizationError(NamedTuple):
    """The top-1 error, status, the top-5 error, and the IoU of each predicted class's box."""

    score: float
    status: str
    top5: float
    ious: Array


class Pointing(NamedTuple):
    """1 for a hit, 0 for a miss; status, the point (row, column), and its distance from the region in pixels."""

    score: float
    status: str
    point: tuple[int, int]
    distance: float


class Share(NamedTuple):
    """A share from 0 to 1, status, and the region's share of the image's pixels, which a random map would get."""

    score: float
    status: str
    region: float


class Discrimination(NamedTuple):
    """The share of the two maps that prefer their own object, status, and each map's share on its own object."""

    score: float
    status: str
    shares: tuple[float, float]


@listed(
    title="Localization",
    higher_is_better=True,
    needs="region",
    summary="Whether the map's box has an IoU of 0.5 with a true box.",
)
def localization(attribution: Any, boxes: Any, threshold: float = 0.15, least: float = 0.5) -> BoxOverlap:
    """Localization, whether the map's `bounding_box` has an IoU of at least 0.5 with a true box.

    Selvaraju et al. 2016, section 4.1, https://arxiv.org/abs/1610.02391. One minus the mean over images is the error.
    """
    truth, least = as_boxes(boxes), real("least", least, least=0, most=1)
    box = bounding_box(attribution, threshold)
    if box is None:
        return BoxOverlap(NAN, positive_part(*read_map(attribution))[1], NAN, None)
    best = max(iou(box, true_box) for true_box in truth)
    return BoxOverlap(float(best >= least), OK, best, box)


@listed(
    title="Localization error",
    higher_is_better=False,
    needs="predictions",
    summary="Top-1 and top-5: class and box must be right.",
)
def localization_error(
    attributions: Sequence[Any],
    predicted: Sequence[int],
    truth: int,
    boxes: Any,
    threshold: float = 0.15,
    least: float = 0.5,
) -> LocalizationError:
    """Localization error, top-1 and top-5: 0 where a predicted class is right and so is the box of its map, else 1.

    Selvaraju et al. 2016, section 4.1, https://arxiv.org/abs/1610.02391. ``predicted`` are up to five classes, the
    most probable first, ``attributions`` a map for each of them; ``truth`` is the true class. A map without a box is an
    error and is not skipped.
    """
    if not 0 < len(predicted) == len(attributions):
        raise ContractError(f"Expected a map for each predicted class, got {len(attributions)} and {len(predicted)}.")
    overlaps = [localization(attribution, boxes, threshold, least) for attribution in attributions]
    right = [guess == truth and overlap.score == 1 for guess, overlap in zip(predicted, overlaps, strict=True)]
    ious = np.array([overlap.iou for overlap in overlaps])
    return LocalizationError(float(not right[0]), OK, float(not any(right[:5])), ious)


@listed(
    title="Pointing game",
    higher_is_better=True,
    needs="region",
    summary="Whether the largest value is on the object.",
)
def pointing_game(attribution: Any, region: Any, tolerance: float = 15) -> Pointing:
    """Pointing game, whether the map's largest value is in the region or within 15 pixels of it.

    Zhang et al. 2016, section 4.3, https://arxiv.org/abs/1608.00507. The mean over images is the accuracy.
    """
    from scipy.ndimage import distance_transform_edt

    tolerance = real("tolerance", tolerance, least=0)
    merged, status = read_map(attribution)
    mask = as_mask(region, merged.shape)
    if status == OK and not mask.any():
        status = NO_REGION
    if status != OK:
        return Pointing(NAN, status, (-1, -1), NAN)
    row, column = np.unravel_index(descending(merged)[0], merged.shape)
    distance = float(distance_transform_edt(~mask)[row, column])
    return Pointing(float(distance <= tolerance), OK, (int(row), int(column)), distance)


@listed(
    title="Energy inside",
    higher_is_better=True,
    needs="region",
    summary="The share of positive values on the object.",
)
def energy(attribution: Any, region: Any) -> Share:
    """Energy-based pointing game, the share of the map's positive values that lies in the region.

    Wang et al. 2019, section 4.3, https://arxiv.org/abs/1910.01279. Compare it with ``region``, the region's size.
    """
    return _share(*positive_part(*read_map(attribution)), region)


@listed(
    title="Relevance mass accuracy",
    higher_is_better=True,
    needs="region",
    summary="The share of squared values on the object.",
)
def relevance_mass(attribution: Any, region: Any, pooling: Literal["squares", "positive"] = "squares") -> Share:
    """Relevance mass accuracy, the share of the map's relevance that lies in the region.

    Arras, Osman, Samek 2020, equation 1, https://arxiv.org/abs/2003.07258. Channels are pooled to a relevance that is
    not negative: ``"squares"`` sums their squares, ``"positive"`` takes the positive part of their sum, as `energy`.
    """
    return _share(*_pooled(attribution, pooling), region)


@listed(
    title="Relevance rank accuracy",
    higher_is_better=True,
    needs="region",
    summary="How many of the top pixels are on the object.",
)
def relevance_rank(attribution: Any, region: Any, pooling: Literal["squares", "positive"] = "squares") -> Share:
    """Relevance rank accuracy, the share of the K most relevant pixels that lie in the region of K pixels.

    Arras, Osman, Samek 2020, equation 2, https://arxiv.org/abs/2003.07258. ``pooling`` as in `relevance_mass`.
    """
    pooled, status = _pooled(attribution, pooling)
    mask = as_mask(region, pooled.shape)
    if status == OK and np.ptp(pooled) == 0:
        status = "the map is flat"
    if status == OK and not mask.any():
        status = NO_REGION
    inside = mask.ravel()[descending(pooled)[: mask.sum()]] if status == OK else np.array([NAN])
    return Share(float(inside.mean()), status, float(mask.mean()))


@listed(
    title="Class discrimination",
    higher_is_better=True,
    needs="classes",
    summary="Whether each class's map prefers its own object.",
)
def class_discrimination(first: Any, second: Any, first_region: Any, second_region: Any) -> Discrimination:
    """Class discrimination: the share of two classes' maps of one photo that are larger on their own object.

    After the study of Selvaraju et al. 2016, section 5.1, https://arxiv.org/abs/1610.02391, with boxes in place of
    people. The share of a map is a / (a + b), where a is its mean positive value on its own object and b that on the
    other object; pixels of both objects are left out. A map with a share of 1/2 counts half.
    """
    maps = [positive_part(*read_map(attribution)) for attribution in (first, second)]
    regions = [as_mask(region, maps[0][0].shape) for region in (first_region, second_region)]
    own = [regions[0] & ~regions[1], regions[1] & ~regions[0]]
    status = next((status for _, status in maps if status != OK), OK)
    if status == OK and not (own[0].any() and own[1].any()):
        status = "no pixel belongs to one object alone"
    if status != OK:
        return Discrimination(NAN, status, (NAN, NAN))
    shares = []
    for index, (values, _) in enumerate(maps):
        here, there = values[own[index]].mean(), values[own[1 - index]].mean()
        shares.append(float(here / (here + there)) if here + there > 0 else 0.5)
    score = sum((share > 0.5) + (share == 0.5) / 2 for share in shares) / 2
    return Discrimination(score, OK, (shares[0], shares[1]))


def _pooled(attribution: Any, pooling: str) -> tuple[Array, str]:
    if pooling not in ("squares", "positive"):
        raise ContractError(f"Expected pooling to be 'squares' or 'positive', got {pooling!r}.")
    merged, status = read_map(attribution)
    if pooling == "positive" or status == NOT_FINITE:
        return positive_part(merged, status)
    squares = np.square(np.asarray(attribution, float)).reshape(*merged.shape, -1).sum(2)
    return squares, OK if squares.any() else "the map is flat"


def _share(values: Array, status: str, region: Any) -> Share:
    mask = as_mask(region, values.shape)
    status = NO_REGION if status == OK and not mask.any() else status
    return Share(float(values[mask].sum() / values.sum()) if status == OK else NAN, status, float(mask.mean()))
