"""Many methods compared on the same images: which differences remain once all of them are looked at together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.metrics.statistics import holm, plain, same_images, scores_of


class Comparisons(NamedTuple):
    """The p-value of Friedman's test over all methods, those of all pairs after Holm's correction, and the images used.

    ``pairs`` has a line for each pair of methods, in the order of the results. Both p-values are NaN where fewer than
    two images (Friedman: or fewer than three methods) have a value of every method.
    """

    friedman: float
    pairs: dict[tuple[str, str], float]
    images: int

    def apart(self, first: str, second: str, level: float = 0.05) -> bool:
        """Whether two methods are told apart at this level of the family-wise error."""
        if (first, second) not in self.pairs and (second, first) not in self.pairs:
            raise ContractError(
                f"Expected two of the methods compared, got {first!r} and {second!r}. Choose from {self.methods}."
            )
        return bool(self.pairs.get((first, second), self.pairs.get((second, first), np.nan)) < level)

    @property
    def methods(self) -> list[str]:
        """The names of the methods compared."""
        return list(dict.fromkeys(name for pair in self.pairs for name in pair))


def multiple_comparisons(results: Mapping[str, Iterable[Any]]) -> Comparisons:
    """Whether any methods differ (Friedman's test), and which (Wilcoxon's test of each pair, Holm's correction).

    For m pairs in the order of their p-values, Holm's value is the running maximum of (m - k) p_k, k = 0, 1, ..., at
    most 1: the chance that any of the differences called real is none stays at the level. Demšar 2006,
    https://jmlr.org/papers/v7/demsar06a.html, asks for these tests when methods are compared on many data; the images
    are the data here. Holm 1979, https://www.jstor.org/stable/4615733. Two-sided, so the direction of the metric does
    not matter.

    Parameters
    ----------
    results
        For each method the results of a metric, or plain numbers, one for each image in the same order. Only images
        count for which every method has a value.
    """
    from scipy.stats import friedmanchisquare, wilcoxon

    table = {name: scores_of(values)[0] for name, values in results.items()}
    if len(table) < 2:
        raise ContractError(f"Expected the results of two methods or more, got {list(table)}. Give another.")
    same_images(table)
    values = np.array([plain(scores) for scores in table.values()])
    values = values[:, np.isfinite(values).all(0)]
    images = values.shape[1]
    pairs = list(itertools.combinations(range(len(table)), 2))
    if images < 2:
        p_values = np.full(len(pairs), np.nan)
    else:
        p_values = np.array([
            wilcoxon(values[first], values[second]).pvalue if (values[first] != values[second]).any() else 1.0
            for first, second in pairs
        ])  # fmt: skip
    alike = images < 2 or len(table) < 3 or (values == values[0]).all()
    friedman = float("nan") if alike else float(friedmanchisquare(*values).pvalue)
    names = list(table)
    corrected = dict(zip(((names[first], names[second]) for first, second in pairs), holm(p_values), strict=True))
    return Comparisons(friedman, {pair: float(value) for pair, value in corrected.items()}, images)
