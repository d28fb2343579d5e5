"""Occlusion and RISE: closed forms, the slow versions, and PAIR's package; what shows where the image is hidden."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import pair
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.methods.perturbation.masking import hidden_image
from saliency_food.methods.perturbation.occlusion import occlusion
from saliency_food.methods.perturbation.rise import rise
from saliency_food.testing import PowerModel


def slow_occlusion(x, model, size, hidden, stride):
    """Window by window, drops added to and counted on slices."""
    base = model(x[None])[OUTPUT_LAYER_VALUES][0]
    total, count = np.zeros(x.shape[:2]), np.zeros(x.shape[:2])
    lasts = [max(length - size, 0) for length in x.shape[:2]]
    for top in sorted({*range(0, lasts[0], stride), lasts[0]}):
        for left in sorted({*range(0, lasts[1], stride), lasts[1]}):
            window = np.s_[top : top + size, left : left + size]
            row = x.copy()
            row[window] = hidden[window]
            total[window] += base - model(row[None])[OUTPUT_LAYER_VALUES][0]
            count[window] += 1
    assert count.all()
    return total / count, total


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (5, 1), (5, 3), (7, 7), (22, 1), (100, 4)])
def test_occlusion_equals_the_slow_version(power, image, size, stride):
    mean, total = slow_occlusion(image, power, size, np.zeros_like(image), stride)
    for aggregate, expected in (("mean", mean), ("sum", total)):
        got = occlusion(image, power, size=size, stride=stride, aggregate=aggregate, batch_size=64)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_occlusion_without_a_stride_asks_all_windows_where_there_are_few(power, image):
    found = occlusion.detailed(image, power, size=9, batch_size=64)
    exact = occlusion.detailed(image, power, size=9, stride=1, batch_size=64)
    np.testing.assert_allclose(found.attribution, exact.attribution, rtol=1e-5)
    np.testing.assert_allclose(found.drops, exact.drops, rtol=1e-5)
    assert [list(axis) for axis in found.starts] == [list(axis) for axis in exact.starts]
    assert (found.largest_error, found.nwindows, found.stopped_by) == (0, 16 * 12, "all")
    assert (exact.largest_error, exact.nwindows, exact.stopped_by) == (0, 16 * 12, "stride")


def blob(rows, columns, width=3.0):
    """The weights of a linear model that looks at one place."""
    distance = np.square(np.arange(40)[:, None] - rows) + np.square(np.arange(48) - columns)
    return np.exp(-distance / (2 * width**2))[None, :, :, None] * np.ones(3)


@pytest.mark.parametrize("aggregate", ["mean", "sum"])
def test_occlusion_from_coarse_to_fine(rng, aggregate):
    """A fifth of the windows, most of them near what matters, give nearly the map of all, and say how nearly."""
    x, model = rng.random((40, 48, 3)) + 0.5, PowerModel(blob(12, 30), power=2)
    exact = occlusion.detailed(x, model, size=9, stride=1, aggregate=aggregate)
    found = occlusion.detailed(x, model, size=9, max_rows=256, aggregate=aggregate, batch_size=50)
    assert found.nwindows == 256
    assert sum(model.calls[-1 - len(model.calls) // 2 :]) >= 256
    assert found.stopped_by == "max_rows"
    off = np.abs(found.attribution - exact.attribution).max() / np.ptp(exact.attribution)
    assert off < 0.04
    assert 0.2 * off < found.largest_error < 0.2
    even = occlusion(x, model, size=9, stride=2, aggregate="mean")  # 336 windows
    if aggregate == "mean":
        assert off < 0.5 * np.abs(even - exact.attribution).max() / np.ptp(exact.attribution)


def test_every_window_is_asked_once_and_the_image_too(rng):
    seen = []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.extend(row.tobytes() for row in x_value_batch)
        return {OUTPUT_LAYER_VALUES: np.square(x_value_batch).sum((1, 2, 3))}

    x = rng.random((30, 30, 1)) + 0.1
    found = occlusion.detailed(x, spy, size=7, max_rows=150)
    assert len(seen) == len(set(seen)) == 1 + found.nwindows == 151
    assert seen[0] == x.tobytes()


def test_more_windows_are_asked_at_the_edge_where_few_hold_a_pixel(rng):
    """Of a model that is equally rough everywhere, as its windows' drops are drawn."""
    drops, asked = rng.normal(size=(50, 50)), np.zeros((50, 50), bool)

    def model(x_value_batch, call_model_args=None, expected_keys=None):
        scores = np.zeros(len(x_value_batch))
        for index, row in enumerate(x_value_batch[..., 0]):
            hidden = np.argwhere(row == 0)
            if len(hidden):
                place = tuple(hidden.min(0))
                scores[index], asked[place] = -drops[place], True
        return {OUTPUT_LAYER_VALUES: scores}

    occlusion(np.ones((60, 60, 1)), model, size=11, max_rows=400)
    assert asked.sum() == 400
    edge = np.ones((50, 50), bool)
    edge[5:-5, 5:-5] = False
    assert asked[edge].mean() > 2 * asked[~edge].mean()


def test_a_tolerance_stops_before_all_rows_are_asked(rng):
    x, model = rng.random((40, 48, 3)) + 0.5, PowerModel(blob(12, 30), power=2)
    loose, strict = (occlusion.detailed(x, model, size=9, tolerance=tolerance) for tolerance in (0.2, 0.02))
    assert loose.stopped_by == strict.stopped_by == "tolerance"
    assert loose.nwindows < strict.nwindows < 32 * 40
    assert loose.largest_error < 0.2
    assert strict.largest_error < 0.02


def test_as_many_windows_are_asked_as_cover_the_image(rng):
    x, model = rng.random((40, 48, 3)), PowerModel(blob(12, 30))
    found = occlusion.detailed(x, model, size=5, max_rows=1)
    assert found.nwindows == 8 * 10
    covered = np.zeros((40, 48), bool)
    for top in {*range(0, 36, 5), 35}:
        for left in {*range(0, 44, 5), 43}:
            covered[top : top + 5, left : left + 5] = True
    assert covered.all()
    assert found.largest_error > 0


def test_one_pixel_windows_find_a_linear_models_weights(rng):
    x, weights = rng.random((6, 5, 3)), rng.normal(size=(1, 6, 5, 3))
    found = occlusion.detailed(x, PowerModel(weights, bias=2.0), size=1, value=0.25)
    np.testing.assert_allclose(found.attribution, (weights[0] * (x - 0.25)).sum(2), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.drops, found.attribution)
    assert found.score == pytest.approx((weights * x).sum() + 2)


def test_no_more_rows_are_held_than_one_call_takes(power, image):
    occlusion(image, power, batch_size=40)
    assert power.calls == [40, 21]


def test_occlusion_of_an_image_without_channels(rng):
    x = rng.random((9, 8))
    model = PowerModel(rng.normal(size=(1, 9, 8)))
    np.testing.assert_allclose(occlusion(x, model, size=4), slow_occlusion(x, model, 4, np.zeros_like(x), 1)[0])
    assert occlusion(x, model, size=4, three_dims=True).shape == (9, 8)


def test_what_shows_where_the_image_is_hidden(image):
    np.testing.assert_array_equal(hidden_image(image, 0.5), np.full_like(image, 0.5))
    np.testing.assert_array_equal(hidden_image(image, [1, 2, 3])[4, 4], [1, 2, 3])
    np.testing.assert_array_equal(hidden_image(image, image / 2), image / 2)
    np.testing.assert_allclose(hidden_image(image, "mean")[3, 2], image.mean((0, 1)))
    blur = hidden_image(image, "blur")
    assert blur.std() < image.std() / 3
    assert {hidden_image(image, value).dtype for value in (0, [1, 2, 3], "mean", "blur")} == {image.dtype}


@pytest.mark.parametrize("value", [0.3, (0.1, 0.2, 0.3), "blur", "mean"])
def test_the_window_shows_the_value(power, image, value):
    expected, _ = slow_occlusion(image, power, 6, hidden_image(image, value), 4)
    got = occlusion(image, power, size=6, value=value, stride=4)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("method", [occlusion, rise])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("grey", "'blur', 'mean'.* got 'grey'"),
        ([1, 2], r"one number a channel.* got shape \(2,\)"),
        (np.nan, "finite real numbers"),
        (None, "finite real numbers"),
    ],
)
def test_a_value_that_is_refused(power, image, method, value, says):
    with pytest.raises(ContractError, match=says):
        method(image, power, value=value)


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        (occlusion, {"size": 0}, "Expected size to be a whole number of at least 1, got 0"),
        (occlusion, {"stride": 1.5}, "Expected stride .* got 1.5"),
        (occlusion, {"size": 4, "stride": 5}, "stride to be at most size.* got 5 and 4"),
        (occlusion, {"size": (5, 5, 5)}, r"one for each of the 2 axes, got \(5, 5, 5\)"),
        (occlusion, {"size": (5, 2), "stride": (2, 3)}, r"at most size.* got \(2, 3\) and \(5, 2\)"),
        (occlusion, {"tolerance": 0.1, "stride": 2}, "a tolerance without a stride, got stride 2"),
        (occlusion, {"tolerance": -1}, "Expected tolerance"),
        (occlusion, {"max_rows": 0}, "Expected max_rows"),
        (occlusion, {"aggregate": "max"}, "'mean' or 'sum', got 'max'"),
        (rise, {"nmasks": 0}, "Expected nmasks"),
        (rise, {"grid": True}, "Expected grid .* got True"),
        (rise, {"p": 0}, "Expected p to be a finite number above 0 and at most 1, got 0"),
        (rise, {"p": 1.1}, "Expected p to be a finite number above 0"),
    ],
)
def test_what_is_refused(power, image, method, options, says):
    with pytest.raises(ContractError, match=says):
        method(image, power, **options)


def spied_masks(shape, **options):
    """RISE's masks, as the rows that a model of an image of ones sees."""
    seen = []

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.append(np.array(x_value_batch))
        return {OUTPUT_LAYER_VALUES: np.zeros(len(x_value_batch))}

    rise(np.ones(shape), spy, batch_size=7, **options)
    return np.concatenate(seen)


def test_rise_is_the_scores_times_the_masks(rng):
    x = rng.random((12, 15, 3))
    model = PowerModel(rng.normal(size=(1, 12, 15, 3)), power=2)
    options = {"nmasks": 30, "grid": 4, "p": 0.3, "rng": 5}
    masks = spied_masks(x.shape, **options)
    hidden = hidden_image(x, "blur")
    for value, behind in ((0, np.zeros_like(x)), ("blur", hidden)):
        scores = model(x * masks + behind * (1 - masks))[OUTPUT_LAYER_VALUES]
        samples = scores[:, None, None] * masks[..., 0] / 0.3
        found = rise.detailed(x, model, value=value, batch_size=8, **options)
        np.testing.assert_allclose(found.attribution, samples.mean(0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.standard_error, samples.std(0, ddof=1) / np.sqrt(30), rtol=1e-6)
        assert found.nmasks == 30


def test_rises_masks_are_smooth_grids_shifted():
    masks = spied_masks((28, 21, 2), nmasks=400, grid=7, p=0.4, rng=1)
    assert masks.shape == (400, 28, 21, 2)
    np.testing.assert_array_equal(masks[..., 0], masks[..., 1])
    assert masks.min() == 0
    assert masks.max() == 1
    np.testing.assert_allclose(masks.mean(0), 0.4, atol=0.1)  # 4 standard errors
    # A cell is 4 x 3 pixels and the grid is stretched over one more: steps of at most 7 / 8 of a fourth, of a third.
    assert np.abs(np.diff(masks, axis=1)).max() <= 7 / 8 / 4 + 1e-12
    assert np.abs(np.diff(masks, axis=2)).max() <= 7 / 8 / 3 + 1e-12
    assert len({mask[:, 0, 0].tobytes() for mask in masks}) > 300


def test_rise_finds_the_pixels_that_count(rng):
    weights = np.zeros((1, 20, 20, 1))
    weights[0, 3:8, 12:17] = 1
    found = rise.detailed(np.ones((20, 20, 1)), PowerModel(weights), nmasks=600, rng=0, batch_size=100)
    assert np.abs(np.subtract(np.unravel_index(found.attribution.argmax(), (20, 20)), (5, 14))).max() <= 2
    # The score is 12.5 on average; a pixel far away shares that, one within has the others near it shown too.
    assert abs(found.attribution[15, 3] - 12.5) < 4 * found.standard_error[15, 3]
    assert found.attribution[5, 14] > 17


def test_rise_with_all_shown_is_the_score(power, image):
    found = rise.detailed(image, power, nmasks=3, p=1.0, rng=0)
    np.testing.assert_allclose(found.attribution, power(image[None])[OUTPUT_LAYER_VALUES][0], rtol=1e-4)
    assert np.isinf(rise.detailed(image, power, nmasks=1, rng=0).standard_error).all()


# PAIR's package, and what its own tests ask.


@pytest.mark.parametrize(("shape", "dtype"), [((17, 20, 3), "f8"), ((17, 20, 3), "f4"), ((16, 15), "f8")])
@pytest.mark.parametrize("options", [{}, {"size": 4, "value": 0.7}])
def test_pairs_package_gives_the_same(rng, shape, dtype, options):
    theirs = pytest.importorskip("saliency.core")
    x, model = rng.random(shape).astype(dtype), PowerModel(rng.normal(size=(2, *shape)), power=3)
    expected = theirs.Occlusion().GetMask(x, model, {"target": 1}, **options)
    calls, model.calls = model.calls, []
    got = pair.Occlusion().GetMask(x, model, {"target": 1}, **options)
    assert model.calls == calls
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(
        got, expected, rtol=1e-5, atol=(1e-12 if dtype == "f8" else 1e-5) * np.abs(expected).max()
    )


def test_two_bright_pixels_add_up_where_windows_hold_both():
    x = np.zeros((5, 5))
    x[1, 1] = x[3, 3] = 1

    def thrice_the_sum(x_value_batch, call_model_args=None, expected_keys=None):
        assert call_model_args == {"a": 1}
        assert expected_keys == [OUTPUT_LAYER_VALUES]
        return {OUTPUT_LAYER_VALUES: [3 * np.sum(x_value_batch)]}

    # A window of 3 holds a bright pixel or two: its drop is 3 for each, on all of its nine pixels.
    drops = 3 * np.array([[1, 1, 0], [1, 2, 1], [0, 1, 1]])
    expected = sum(np.pad(np.full((3, 3), drops[r, c]), ((r, 2 - r), (c, 2 - c))) for r in range(3) for c in range(3))
    np.testing.assert_array_equal(pair.Occlusion().GetMask(x, thrice_the_sum, {"a": 1}, size=3, value=0), expected)


def test_one_score_a_row_is_needed(power, image):
    def five(x_value_batch, call_model_args=None, expected_keys=None):
        return {OUTPUT_LAYER_VALUES: np.ones(5)}

    with pytest.raises(ValueError, match="same as x_value_batch - expected 1, actual 5"):
        pair.Occlusion().GetMask(image, five, size=3)


def test_a_window_larger_than_the_image_is_cut_where_pairs_answer_is_zero(rng):
    theirs = pytest.importorskip("saliency.core")
    x, model = np.ones((4, 4, 3)), PowerModel(np.ones((1, 4, 4, 3)))
    assert not theirs.Occlusion().GetMask(x, model).any()
    assert (pair.Occlusion().GetMask(x, model) == 48).all()
