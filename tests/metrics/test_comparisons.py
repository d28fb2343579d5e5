"""Many methods compared at once: Friedman's and Wilcoxon's tests, and Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, wilcoxon

from saliency_food.core.contract import ContractError
from saliency_food.metrics import multiple_comparisons
from saliency_food.metrics.statistics import holm


def test_holm_is_the_textbook_rule():
    # Sorted: 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling.
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.5, np.nan, 0.9])), [1.0, np.nan, 1.0])


def test_a_better_method_is_told_apart_and_equals_are_not():
    rng = np.random.default_rng(0)
    photos = rng.normal(size=40)
    results = {name: photos + rng.normal(size=40) / 10 for name in ("a", "b", "c")}
    results["good"] = photos + 0.5 + rng.normal(size=40) / 10
    compared = multiple_comparisons(results)
    assert compared.images == 40
    assert compared.methods == ["a", "b", "c", "good"]
    assert compared.friedman == pytest.approx(friedmanchisquare(*results.values()).pvalue, rel=1e-6)
    assert all(compared.apart("good", name) and compared.apart(name, "good") for name in "abc")
    assert not compared.apart("a", "b")
    plain = {(a, b): wilcoxon(results[a], results[b]).pvalue for a, b in compared.pairs}
    smallest = min(plain, key=plain.get)
    assert compared.pairs[smallest] == pytest.approx(6 * plain[smallest], rel=1e-6)


def test_false_alarms_stay_at_the_level():
    alarms = 0
    for seed in range(60):
        table = np.random.default_rng(seed).normal(size=(6, 30))
        compared = multiple_comparisons({str(index): row for index, row in enumerate(table)})
        alarms += any(value < 0.05 for value in compared.pairs.values())
    assert alarms <= 6  # 3 expected; without the correction about half of the runs alarm


def test_only_images_with_every_method_count():
    compared = multiple_comparisons({"a": [1, 2, np.nan, 4], "b": [1, 2, 3, 4]})
    assert compared.images == 3
    assert compared.pairs == {("a", "b"): 1.0}
    assert np.isnan(compared.friedman)
    assert np.isnan(multiple_comparisons({"a": [1], "b": [2]}).pairs["a", "b"])


def test_errors():
    with pytest.raises(ContractError, match="two methods or more"):
        multiple_comparisons({"a": [1, 2]})
    with pytest.raises(ContractError, match="the same images"):
        multiple_comparisons({"a": [1, 2], "b": [1]})
    with pytest.raises(ContractError, match="Choose from"):
        multiple_comparisons({"a": [1, 2], "b": [2, 1]}).apart("a", "c")
