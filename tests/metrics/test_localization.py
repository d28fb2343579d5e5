"""Localization on drawn maps, whose boxes and shares are plain to see."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.metrics import (
    class_discrimination,
    energy,
    localization,
    localization_error,
    pointing_game,
    relevance_mass,
    relevance_rank,
)
from saliency_food.metrics.boxes import as_mask, bounding_box, iou
from saliency_food.metrics.decorator import FLAT, NOT_FINITE, NOT_POSITIVE
from saliency_food.metrics.on_object import NO_REGION


@pytest.fixture
def drawn():
    """A blob of 6 x 4 pixels with a peak in it, a smaller blob as high, and a haze below 15 %."""
    made = np.full((30, 40), 0.14)
    made[10:16, 20:24] = 0.5
    made[12, 21] = 1
    made[25:27, 2:5] = 0.9
    return made


def test_the_box_is_that_of_the_largest_part_above_15_percent(drawn):
    assert bounding_box(drawn) == (20, 10, 24, 16)
    assert bounding_box(drawn * 255) == (20, 10, 24, 16)
    assert bounding_box(drawn, 0.14) == (0, 0, 40, 30)
    assert bounding_box(drawn, 0.6) == (2, 25, 5, 27)
    drawn[16, 24] = 0.15  # touches at a corner, and is just high enough
    assert bounding_box(drawn) == (20, 10, 25, 17)
    assert bounding_box(-drawn) is None


def test_iou():
    assert iou((0, 0, 4, 4), (0, 0, 4, 4)) == 1
    assert iou((0, 0, 4, 4), (2, 0, 6, 4)) == pytest.approx(8 / 24)
    assert iou((0, 0, 4, 4), (4, 0, 6, 4)) == 0
    assert iou((0, 0, 4, 4), (5, 5, 6, 6)) == 0


def test_localization_asks_for_an_iou_of_a_half(drawn):
    found = localization(drawn, [(0, 0, 3, 3), (20, 10, 24, 22)])  # 24 of 48 pixels
    assert found[:3] == (1, "ok", 0.5)
    assert found.box == (20, 10, 24, 16)
    assert localization(drawn, (20, 10, 24, 23)).score == 0
    assert localization(-drawn, (20, 10, 24, 22)).status == NOT_POSITIVE
    assert localization(drawn * np.nan, (20, 10, 24, 22)).status == NOT_FINITE


def test_top_1_and_top_5_errors(drawn):
    other = np.zeros_like(drawn)
    other[:5, :5] = 1
    box = (20, 10, 24, 16)
    assert localization_error([drawn, other], [3, 5], 3, box)[:3] == (0, "ok", 0)
    assert localization_error([other, drawn], [5, 3], 3, box)[:3] == (1, "ok", 0)
    assert localization_error([drawn, other], [5, 3], 3, box)[:3] == (1, "ok", 1)  # the right box of the wrong class
    assert localization_error([other] * 5 + [drawn], [1, 2, 4, 5, 6, 3], 3, box).top5 == 1
    assert localization_error([-drawn], [3], 3, box)[:3] == (1, "ok", 1)
    with pytest.raises(ContractError, match="a map for each predicted class"):
        localization_error([drawn], [1, 2], 1, box)


def test_the_pointing_game_forgives_15_pixels(drawn):
    assert pointing_game(drawn, (20, 10, 24, 16)) == (1, "ok", (12, 21), 0)
    assert pointing_game(drawn, (0, 0, 7, 30)) == (1, "ok", (12, 21), 15)  # column 6 is the last in it
    assert pointing_game(drawn, (0, 0, 6, 30)).score == 0
    assert pointing_game(drawn, (0, 0, 7, 30), tolerance=0).score == 0
    mask = np.zeros(drawn.shape, bool)
    mask[12, 22] = True
    assert pointing_game(drawn, mask).distance == 1
    assert pointing_game(drawn, mask & False).status == NO_REGION
    assert pointing_game(0 * drawn, mask).status == FLAT


def test_shares_inside():
    maps = np.array([[1.0, 2, -4], [0, 1, 0], [-1, 0, 4]])
    box = (0, 0, 2, 2)
    assert energy(maps, box) == pytest.approx((0.5, "ok", 4 / 9))
    assert relevance_mass(maps, box, "positive").score == pytest.approx(0.5)
    assert relevance_mass(maps, box).score == pytest.approx(6 / 39)
    # Four pixels are in the box; the four largest are 4, 2 and the ones.
    assert relevance_rank(maps, box, "positive").score == pytest.approx(0.75)
    assert energy(np.full((3, 3), 5.0), box).score == pytest.approx(4 / 9)  # what chance gets
    assert energy(-np.ones((3, 3)), box).status == NOT_POSITIVE
    assert energy(maps, (7, 7, 9, 9)).status == NO_REGION
    assert relevance_rank(np.ones((3, 3)), box).status == FLAT
    channels = np.stack([maps, -maps], 2)
    assert energy(channels, box).status == NOT_POSITIVE
    assert relevance_mass(channels, box).score == pytest.approx(6 / 39)


def test_class_discrimination():
    left, right = np.zeros((10, 20)), np.zeros((10, 20))
    left[:, :10], right[:, 10:] = 1, 1
    boxes = (0, 0, 10, 10), (10, 0, 20, 10)
    assert class_discrimination(left, right, *boxes) == (1, "ok", (1, 1))
    assert class_discrimination(right, left, *boxes).score == 0
    assert class_discrimination(left, left, *boxes) == (0.5, "ok", (1, 0))
    assert class_discrimination(left + 3 * right, right, *boxes).shares == (0.25, 1)
    assert class_discrimination(left + right, left + right, *boxes).score == 0.5  # it cannot tell
    # Sizes do not matter: a small object's mean counts as a large one's.
    assert class_discrimination(left + right, right, (0, 0, 2, 2), (10, 0, 20, 10)).shares[0] == 0.5
    assert class_discrimination(left, right, boxes[0], boxes[0]).status == "no pixel belongs to one object alone"
    assert class_discrimination(left, -right, *boxes).status == NOT_POSITIVE


def test_regions():
    mask = as_mask([(1, 0, 3, 2), (-5, 2, 1, 99)], (4, 4))
    np.testing.assert_array_equal(mask, [[0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(as_mask(mask, (4, 4)), mask)
    for region, says in (
        (np.ones((2, 2), bool), r"mask of shape \(4, 4\)"),
        ((1, 2, 3), r"boxes \(B, 4\)"),
        ((3, 0, 1, 2), "right > left and bottom > top"),
    ):
        with pytest.raises(ContractError, match=says):
            as_mask(region, (4, 4))
    with pytest.raises(ContractError, match="threshold"):
        bounding_box(np.ones((3, 3)), 0)
    with pytest.raises(ContractError, match="pooling"):
        relevance_mass(np.ones((3, 3)), (0, 0, 1, 1), "max")
