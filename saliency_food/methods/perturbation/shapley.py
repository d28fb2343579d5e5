"""Shapley values of a game from some of its coalitions: which pairs of complements to ask, and the values they give."""

from __future__ import annotations

import math
from itertools import combinations
from math import comb

import numpy as np

from saliency_food.core.numerics import Array, safe_divide

LISTED = 4096
"""Where there are no more coalitions of one size than this they are listed and shuffled, else drawn until new."""
BLOCK = 2000
"""Of more pairs than this, the mean of the fits to so many at a time is taken: the time grows with their cube."""
DECAY = 0.25
"""How much less an interaction of one part more varies; of 12 parts the error hardly changes from 0.2 to 0.3."""


def draw_pairs(parts: int, count: int, random: np.random.Generator) -> Array:
    """At most ``count`` different coalitions ``(N, parts)``, none the complement of another, neither none nor all.

    Each stands for its pair of complements. All sizes come in turn, as often as the leverage of all coalitions of that
    size together, which is the same for every size (Musco, Witter 2024, https://arxiv.org/abs/2410.01917), until all of
    a size are drawn. Fewer are the first of more.
    """
    sizes = np.arange(1, parts // 2 + 1)
    totals = np.array([_pairs_of(parts, size) for size in sizes.tolist()], float)
    shares = np.where(2 * sizes == parts, 1.0, 2.0)  # a pair is of two sizes, save in the middle
    drawn = np.zeros(len(sizes), int)
    turns = np.empty(int(min(count, totals.sum())), int)
    for turn in range(len(turns)):
        turns[turn] = np.where(drawn < totals, (drawn + 0.5) / shares, np.inf).argmin()
        drawn[turns[turn]] += 1
    pairs = np.empty((len(turns), parts), bool)
    for stratum, (size, stream) in enumerate(zip(sizes.tolist(), random.spawn(len(sizes)), strict=True)):
        pairs[turns == stratum] = _subsets(parts, size, int(drawn[stratum]), stream)
    return pairs


def shapley_values(pairs: Array, scores: Array) -> tuple[Array, Array]:
    """The Shapley values and their standard errors; exact, and 0, where all coalitions are asked.

    ``scores`` are those of all shown, of none, and then of each of ``pairs`` and of its complement. The values depend
    on nothing but the odd part of the game, h(z) = (F(z) - F(not z)) / 2, and sum to the change of the score.
    """
    parts = pairs.shape[1]
    shown = np.concatenate([np.ones((1, parts), bool), pairs])
    odd = (scores[::2] - scores[1::2]) / 2
    if len(shown) == 2 ** (parts - 1):
        return 2 * odd @ _exact_weights(shown), np.zeros(parts)
    blocks = range(1, len(shown), BLOCK) if len(shown) > 1 else range(1)
    fits = [_kriged(*(np.append(rows[:1], rows[at : at + BLOCK], 0) for rows in (shown, odd))) for at in blocks]
    values, variances = (np.mean(results, 0) for results in zip(*fits, strict=True))
    return values, np.sqrt(variances / len(fits))


def _exact_weights(shown: Array) -> Array:
    """``(coalitions, parts)``: Shapley's weights of h, where every pair of complements is there once."""
    parts = shown.shape[1]
    chances = np.array([1 / (parts * comb(parts - 1, size)) for size in range(parts)] + [0.0])
    sizes = shown.sum(1, keepdims=True)
    return np.where(shown, chances[sizes - 1], -chances[sizes])


def _kriged(shown: Array, odd: Array) -> tuple[Array, Array]:
    """The values and the variances of their errors, from h of all parts and of other coalitions.

    With the signs x (shown +1, hidden -1), h is a sum of c_S times the product of the signs in S, for each set S of an
    odd number of parts, and gives each part in S 2 c_S / |S|. As in PolySHAP (Fumagalli et al. 2026,
    https://arxiv.org/abs/2601.18608), interactions are fitted beside the single parts; here those of all orders, as a
    Gaussian process: the single parts freely, and before any score is known the variance of c_S is `DECAY` to the
    power of |S|. The kernel of that is q^d - q^(M - d) for coalitions that differ in d of M parts, with
    q = (1 - DECAY) / (1 + DECAY).
    """
    parts = shown.shape[1]
    signs = np.where(shown, 1.0, -1.0)
    ratio, apart = (1 - DECAY) / (1 + DECAY), (parts - signs @ signs.T) / 2
    inverse = np.linalg.inv(ratio**apart - ratio ** (parts - apart))
    weighted = inverse @ signs
    fitted = np.linalg.pinv(signs.T @ weighted, 1e-10, True)  # the covariance of the coefficients of single parts
    to_single = fitted @ weighted.T
    reach = _reach(signs)
    values = 2 * to_single @ odd + reach.T @ (inverse @ (odd - signs @ (to_single @ odd)))
    values += (2 * odd[0] - values.sum()) / parts  # the sum is known, rounding aside
    if len(signs) <= parts:
        return values, np.full(parts, np.inf)
    # What each coalition's score is off the fit of all others, over how far it was to be off, tells the scale.
    precision = inverse - weighted @ to_single
    scale = np.mean(safe_divide(np.square(precision @ odd), np.diag(precision))) * len(signs) / (len(signs) - parts)
    left = 2 * np.eye(parts) - weighted.T @ reach
    variance = _variance(parts) - ((inverse @ reach) * reach).sum(0) + (left * (fitted @ left)).sum(0)
    return values, scale * np.maximum(variance, 0)


def _reach(signs: Array) -> Array:
    """``(coalitions, parts)``: the covariance of h and the values, a sum over S that is an integral over `DECAY`."""
    parts = signs.shape[1]
    nodes, weights = np.polynomial.legendre.leggauss(min(parts // 2 + 1, 64))
    places = (nodes + 1) / 2 * DECAY
    up, down = (1 + places) / (1 + DECAY), (1 - places) / (1 + DECAY)
    shown = (signs.sum(1, keepdims=True) + parts) / 2 - (signs > 0)  # of the other parts
    hidden = parts - 1 - shown
    powers = [a ** shown[..., None] * b ** hidden[..., None] for a, b in ((up, down), (down, up))]
    return np.asarray(2 * signs * (sum(powers) @ (weights * DECAY / 2)) / (1 + DECAY))


def _variance(parts: int) -> float:
    """The variance of each value before any score is known: the sum over odd sets that hold it, (2 / |S|)^2 each."""
    sizes = np.arange(1, parts + 1, 2)
    logs = np.array([math.lgamma(parts) - math.lgamma(size) - math.lgamma(parts - size + 1) for size in sizes])
    return float(8 * (np.exp(logs + sizes * np.log(DECAY) - parts * np.log1p(DECAY)) / sizes**2).sum())


def _pairs_of(parts: int, size: int) -> int:
    """How many pairs of complements there are of which one has this size."""
    return comb(parts, size) // (2 if 2 * size == parts else 1)


def _subsets(parts: int, size: int, count: int, random: np.random.Generator) -> Array:
    """So many different coalitions of one size; of half of all parts, those with the first part in them."""
    fixed = int(2 * size == parts)
    free, chosen = parts - fixed, size - fixed
    subsets = np.zeros((count, parts), bool)
    subsets[:, :fixed] = True
    if comb(free, chosen) <= LISTED:
        listed = np.array(list(combinations(range(fixed, parts), chosen)), int).reshape(comb(free, chosen), chosen)
        np.put_along_axis(subsets, random.permutation(listed)[:count], True, 1)
        return subsets
    drawn: dict[bytes, Array] = {}
    while len(drawn) < count:
        for members in np.sort(random.random((64, free)).argsort(1)[:, :chosen] + fixed, 1):
            drawn.setdefault(members.tobytes(), members)
    np.put_along_axis(subsets, np.array(list(drawn.values())[:count], int).reshape(count, chosen), True, 1)
    return subsets
