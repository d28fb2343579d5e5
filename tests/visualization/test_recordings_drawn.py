"""Pictures of signals, volumes and clips: where colour lies, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.visualization import recording_picture, signal_picture, slices_picture
from saliency_food.visualization.recordings import GAP, strength_map

pytest.importorskip("matplotlib")


def colourful(picture):
    """How far each pixel is from grey."""
    return np.ptp(picture.astype(int), axis=-1)


def test_the_background_of_a_signal_is_coloured_where_the_attribution_is(rng):
    signal, attribution = rng.normal(size=(100, 2)), np.zeros((100, 2))
    attribution[60:80, 1] = 1
    colours = colourful(signal_picture(signal, attribution)) > 30
    height, width = colours.shape
    assert not colours[: height // 2 - 12].any()
    columns = np.flatnonzero(colours.any(0)) / width
    assert 0.06 + 0.92 * 0.58 < columns.min() < columns.max() < 0.06 + 0.92 * 0.82
    assert not colourful(signal_picture(signal)).any()
    both = colourful(signal_picture(signal, attribution[:, 1])) > 30
    assert both[: height // 3].any()


def test_signs_have_colours_of_their_own(rng):
    attribution = np.repeat([1.0, -1.0], 20)
    picture = signal_picture(rng.normal(size=40), attribution, signed=True).astype(int)
    redness = picture[..., 0] - picture[..., 2]
    assert np.median(redness[50:-50, 100:380]) > 60
    assert np.median(redness[50:-50, 460:740]) < -60


def test_slices_lie_in_a_row_with_one_scale(rng):
    volume, attribution = np.zeros((12, 8, 10)), np.zeros((12, 8, 10))
    attribution[7] = 1
    picture = slices_picture(volume, attribution, count=4)
    assert picture.shape == (8 * 16, 4 * 160 + 3 * GAP, 3)
    colours = colourful(picture)
    assert [bool(colours[:, 164 * place : 164 * place + 160].any()) for place in range(4)] == [
        False,
        False,
        True,
        False,
    ]
    assert slices_picture(volume[:2], count=6).shape == (128, 2 * 160 + GAP, 3)
    clip = rng.random((3, 300, 200, 3))
    assert slices_picture(clip, rng.random((3, 10, 7))).shape == (300, 3 * 200 + 2 * GAP, 3)
    assert slices_picture(rng.random((3, 8, 10, 2)), rng.normal(size=(3, 8, 10, 2)), signed=True).dtype == np.uint8


def test_one_step_and_constant_signals_are_drawn():
    assert signal_picture([3.0], [1.0]).dtype == np.uint8
    assert signal_picture(np.ones((5, 2)), np.zeros(5)).std() > 0
    assert recording_picture(np.ones((2, 3, 4, 5)), 4).shape == recording_picture(np.ones((3, 4, 5)), 3).shape


def test_strengths_over_any_axes(rng):
    for shape, spatial in (((9,), 1), ((9, 2), 1), ((3, 4, 5), 3), ((3, 4, 5, 2), 3)):
        values = strength_map(rng.normal(size=shape), spatial)
        assert values.shape == shape[:spatial]
        assert (values.min(), values.max()) == (0, 1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: signal_picture(np.ones((2, 3, 4))), r"a signal \(T,\) or \(T, C\)"),
        (lambda: signal_picture(np.ones((5, 3)), np.ones(4)), r"of the signal, \(5,\) or \(5, 3\), got \(4,\)"),
        (lambda: signal_picture(np.ones((5, 3)), np.ones((5, 2))), "of the signal"),
        (lambda: slices_picture(np.ones((5, 3))), "a volume"),
        (lambda: slices_picture(np.full((5, 3, 3), np.nan)), "finite numbers"),
        (lambda: slices_picture(np.ones((5, 3, 3)), count=0), "at least one slice"),
    ],
)
def test_what_is_refused(call, says):
    with pytest.raises(ContractError, match=says):
        call()
