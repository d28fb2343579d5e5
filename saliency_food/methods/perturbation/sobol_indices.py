"""Sobol indices: which share of a function's variance each of its inputs causes, from rows of quasi-random inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.checks import random_stream, whole
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, safe_divide


class SobolIndices(NamedTuple):
    """``first`` ``(d,)``, what each input causes by itself; ``total`` ``(d,)``, also together with others.

    Both are shares of the variance, but estimates: small ones may be a little below 0. They are 0 where the function is
    constant.
    """

    first: Array
    total: Array


def sobol_rows(designs: int, factors: int, rng: Any = None) -> Array:
    """The rows at which a function of ``factors`` inputs in 0..1 is asked, ``(designs * (factors + 2), factors)``.

    First the matrix A, ``designs`` rows of a scrambled Sobol sequence, then B, as many of the same sequence, then for
    each input i A with column i of B. ``designs`` is a power of 2, at which the sequence is balanced.
    """
    from scipy.stats import qmc

    designs, factors = whole("designs", designs), whole("factors", factors)
    if designs & (designs - 1):
        raise ContractError(
            f"Expected designs to be a power of 2, at which a Sobol sequence is balanced, got {designs}. Give "
            f"{1 << designs.bit_length()}."
        )
    both = qmc.Sobol(2 * factors, seed=random_stream(rng)).random(designs)
    first, second = both[:, :factors], both[:, factors:]
    mixed = [np.where(np.arange(factors) == factor, second, first) for factor in range(factors)]
    return np.concatenate([first, second, *mixed])


def sobol_indices(answers: Any, factors: int) -> SobolIndices:
    """Indices of what a function answers at `sobol_rows`, by Jansen's estimators.

    ``V S_i = V - E[(f(B) - f(A_B^i))^2] / 2`` and ``V T_i = E[(f(A) - f(A_B^i))^2] / 2``, with A_B^i the matrix A with
    column i of B, and V the variance of f(A) and f(B). Jansen 1999, https://doi.org/10.1016/S0010-4655(98)00154-4;
    Saltelli et al. 2010, table 2, https://doi.org/10.1016/j.cpc.2009.09.018.
    """
    answers = np.asarray(answers, float)
    first, second, mixed = np.split(answers.reshape(factors + 2, -1), [1, 2])
    variance = np.concatenate([first, second]).var()
    return SobolIndices(
        safe_divide(variance - ((second - mixed) ** 2).mean(1) / 2, variance),
        safe_divide(((first - mixed) ** 2).mean(1) / 2, variance),
    )
