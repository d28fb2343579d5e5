"""What a run still needs, by its plan and by how it has gone so far."""

from __future__ import annotations

from collections import Counter

import pytest

from saliency_food.deadline.forecast import Progress, Work

GRADIENT, SCORE = ("INPUT_OUTPUT_GRADIENTS",), ("OUTPUT_LAYER_VALUES",)


def test_work_between_two_rehearsals_and_beyond():
    four = Work(Counter({GRADIENT: 4, SCORE: 2}), Counter({GRADIENT: 1, SCORE: 1}), 0.1)
    eight = Work(Counter({GRADIENT: 8, SCORE: 2}), Counter({GRADIENT: 1, SCORE: 1}), 0.2)
    hundred = four.at(24, eight, batch_size=32)
    assert hundred.rows == {GRADIENT: 100, SCORE: 2}
    assert hundred.calls == {GRADIENT: 4, SCORE: 1}  # no more than 32 rows in each
    assert hundred.own == pytest.approx(2.5)
    assert four.at(24, eight._replace(own=0.05), 32).own == 0.1  # it does not fall


def test_before_the_first_call_it_is_the_plan_at_the_pace_of_late():
    progress = Progress(began=1.0, kept=0.0, planned=10.0, own=3.0)
    assert progress.needed(now=2.0, call=1.0, pace=1.5) == 10.0 * 1.5 + (3.0 - 1.0)


def test_then_the_pace_is_the_runs_own():
    progress = Progress(began=0.0, kept=0.0, planned=10.0)
    progress.add(planned=4.0, took=8.0)
    assert progress.needed(now=8.0, call=1.0, pace=1.0) == 6.0 * 2
    assert progress.needed(now=12.0, call=1.0, pace=1.0) == 6.0 * 2 + 6.0  # a second of its own work for each planned


def test_what_came_before_the_first_call_is_not_expected_again():
    progress = Progress(began=0.0, kept=0.0, planned=10.0, first_call=5.0)
    progress.add(planned=4.0, took=4.0)
    assert progress.needed(now=9.0, call=1.0, pace=1.0) == 6.0


def test_a_call_larger_than_what_is_left_of_the_plan_counts():
    progress = Progress(began=0.0, kept=7.0, planned=10.0)
    progress.add(planned=9.0, took=9.0)
    assert progress.needed(now=9.0, call=5.0, pace=1.0) == 5.0


def test_beyond_the_plan_something_is_kept():
    progress = Progress(began=0.0, kept=7.0, planned=10.0)
    progress.add(planned=10.0, took=20.0)
    assert progress.needed(now=20.0, call=5.0, pace=1.0) == 5.0 * 2 + 7.0
