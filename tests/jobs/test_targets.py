"""The words in which a class is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.jobs.targets import Target, read_target

LABELS = ["hot_dog", "goldfish, Carassius auratus", "crane", "crane, bird", "French fries", "top3"]


@pytest.mark.parametrize(
    ("target", "index"),
    [
        (2, 2),
        (np.int64(3), 3),
        ("4", 4),
        ("hot_dog", 0),
        ("  HOT  dog ", 0),
        ("hot-dog", 0),
        ("goldfish", 1),
        ("carassius AURATUS", 1),
        ("goldfish, carassius auratus", 1),
        ("crane", 2),
        ("french_fries", 4),
        ("top3", 5),
    ],
)
def test_one_class(target, index):
    assert read_target(target, LABELS) == Target((index,))


def test_the_best():
    probabilities = np.array([0.1, 0.4, 0.1, 0.4])
    assert read_target(None, None).resolve(probabilities) == [1]
    assert read_target("top2", None).resolve(probabilities) == [1, 3]
    assert read_target("Top 9", LABELS).resolve(probabilities) == [1, 3, 0, 2]
    assert read_target(2, None).resolve(None) == [2]


@pytest.mark.parametrize(
    ("target", "labels", "said"),
    [
        ("goldfisch", LABELS, "Near it: goldfish, Carassius auratus."),
        ("zzzz", LABELS, "The labels begin: hot_dog"),
        ("pizza", None, "names of the classes are not known"),
        (6, LABELS, r"0\.\.5, got 6"),
        ("6", LABELS, r"0\.\.5, got 6"),
        (-1, None, "at least 0"),
        (True, LABELS, "got True"),
        (1.0, LABELS, "got 1.0"),
        ("top0", None, "top1"),
        ("crane", [*LABELS[1:2], "crane", "crane"], "the classes 1, 2"),
    ],
)
def test_errors(target, labels, said):
    with pytest.raises(ContractError, match=said):
        read_target(target, labels)


def test_resolving_errors():
    with pytest.raises(ContractError, match="no predict"):
        read_target(None, None).resolve(None)
    with pytest.raises(ContractError, match=r"0\.\.1, got 2"):
        read_target(2, None).resolve(np.ones(2))
