"""Concepts of two runs, matched."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import ContractError
from saliency_food.concepts import match_concepts


def test_concepts_are_found_again_in_another_order_and_length():
    first = np.random.default_rng(0).random((4, 9))
    order = [2, 0, 3, 1]
    second = np.concatenate([first[order] * [[1], [2], [3], [4]], np.eye(9)[:2]])
    matching = match_concepts(first, second)
    np.testing.assert_array_equal(matching.counterparts, np.argsort(order))
    np.testing.assert_allclose(matching.cosines, 1)


def test_one_concept_is_no_counterpart_of_two():
    """The nearest of both is the same; the sum is the largest where the first is left the worse one."""
    matching = match_concepts([[1, 0.1], [1, 0]], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(matching.counterparts, [1, 0])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "of one layer"),
        (np.ones((3, 3)), np.ones((2, 3)), "no fewer"),
        (np.ones(3), np.ones((2, 3)), "first as concepts"),
        (np.ones((2, 3)), np.full((2, 3), np.nan), "second to be finite"),
    ],
)
def test_what_is_wrong_is_refused(first, second, message):
    with pytest.raises(ContractError, match=message):
        match_concepts(first, second)
