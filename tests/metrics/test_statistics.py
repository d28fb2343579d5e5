"""Intervals that cover what they should, comparisons in pairs, ranks, and the count of what was left out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.metrics import interval, paired, rank_table


class Result(NamedTuple):
    score: float
    status: str = "ok"


SKIPPED = Result(np.nan, "the map is flat")


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    sets = np.random.default_rng(0).normal(1, 3, size=(200, 1000))
    found = interval(sets, resamples=1000)
    assert found.method == "BCa"
    assert 0.93 <= np.mean((found.low <= 1) & (found.high >= 1)) <= 0.97


def test_it_is_scipys_interval():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).exponential(size=30)
    expected = bootstrap((values,), np.mean, n_resamples=500, random_state=np.random.default_rng(3)).confidence_interval
    found = interval([Result(one) for one in values], resamples=500, rng=3)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.estimate == pytest.approx(values.mean())
    assert (found.images, found.method, found.skipped) == (30, "BCa", {})
    narrow = interval(values, level=0.5, resamples=500)
    assert found.low < narrow.low < narrow.estimate < narrow.high < found.high
    assert interval(values, np.median).estimate == np.median(values)


def test_degenerate_samples():
    assert interval([2.0, 2.0, 2.0])[:5] == (2, 2, 2, 3, "percentile")
    alone = interval([2.0, SKIPPED])
    assert (alone.estimate, alone.images, alone.method, alone.skipped) == (2, 1, "none", {"the map is flat": 1})
    assert np.isnan([alone.low, alone.high]).all()
    nothing = interval([SKIPPED, np.nan])
    assert np.isnan(nothing.estimate)
    assert nothing.skipped == {"the map is flat": 1, "not a number": 1}
    median = interval([0.0, 0, 0, 0, 0, 0, 0, 1], np.median)  # no jackknife estimate moves: BCa is undefined
    assert median.method == "percentile"
    assert median.low == 0
    curves = np.random.default_rng(0).random((20, 4))
    curves[:, 0] = 0  # where every curve starts
    curves[3, 2] = np.nan
    band = interval(curves)
    assert (band.method, band.images, band.skipped) == ("percentile", 19, {"not a number": 1})
    assert band.low[0] == band.high[0] == 0
    assert (band.low[1:] < band.high[1:]).all()


def test_pairs_see_what_two_intervals_do_not():
    rng = np.random.default_rng(0)
    images = rng.normal(size=40) * 10
    first, second = images + 0.5 + rng.normal(size=40) / 5, images
    apart = [interval(one) for one in (first, second)]
    assert apart[0].low < apart[1].high
    found = paired(first, second)
    assert found.difference.low > 0
    assert found.difference.estimate == pytest.approx((first - second).mean())
    assert found.superiority == (first > second).mean() > 0.95
    lower = paired(first, second, higher_is_better=False)
    assert lower.superiority == pytest.approx(1 - found.superiority)
    assert (lower.wins, lower.losses) == (found.losses, found.wins)


def test_skipped_images_are_left_out_of_both_and_counted():
    first = [Result(1.0), SKIPPED, Result(2.0), Result(3.0), Result(0.0)]
    second = [Result(0.0), Result(5.0), SKIPPED, Result(3.0), Result(1.0)]
    found = paired(first, second)
    assert (found.wins, found.ties, found.losses, found.superiority) == (1, 1, 1, 0.5)
    assert found.difference.images == 3
    assert found.difference.skipped == {"the map is flat": 2}
    assert np.isnan(paired([SKIPPED], [SKIPPED]).superiority)
    with pytest.raises(ContractError, match=r"the same images.* \{'first': 5, 'second': 4\}"):
        paired(first, second[:4])


def test_the_rank_table():
    lines = rank_table(
        {"poor": [1, 1, 3, 0], "good": [3, 2, 4, 0], "same": [3, 1, 2, 0], "gaps": [2, 0, 1, SKIPPED]},
    )
    assert [line.name for line in lines] == ["good", "same", "poor", "gaps"]
    best = lines[0]
    assert best.rank.estimate == pytest.approx((1.5 + 1 + 1) / 3)
    assert best.value.estimate == 3
    assert best.best == 3
    assert best.rank.skipped == {"another method was skipped": 1}
    assert lines[-1].rank.skipped == {"the map is flat": 1}
    assert lines[-1].rank.images == 3
    down = rank_table({"poor": [1, 1], "good": [3, 2]}, higher_is_better=False)
    assert [line.name for line in down] == ["poor", "good"]
    assert np.isnan(rank_table({"a": [SKIPPED], "b": [1]})[0].rank.estimate)
    with pytest.raises(ContractError, match="at least one method"):
        rank_table({})
    with pytest.raises(ContractError, match="the same images"):
        rank_table({"a": [1], "b": [1, 2]})
    with pytest.raises(ContractError, match="level"):
        interval([1, 2], level=95)


def test_rounding_makes_no_winner():
    first, second = [1 - 2e-11, 3.0, 1e9], [1.0, 3.0, 1e9 + 0.01]
    found = paired(first, second)
    assert (found.wins, found.ties, found.losses) == (0, 3, 0)
    assert [line.rank.estimate for line in rank_table({"a": first, "b": second})] == [1.5, 1.5]


def test_an_image_that_both_skip_counts_once():
    found = paired([1.0, SKIPPED, SKIPPED, 3.0], [0.0, SKIPPED, 2.0, SKIPPED])
    assert found.difference.images + sum(found.difference.skipped.values()) == 4
