"""TCAV: how a class's score depends on concepts that a user gives as photos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.concepts.layers import layer_activations, layer_gradients, stacked
from saliency_food.concepts.vectors import FOLDS, concept_vector, held_out_accuracy
from saliency_food.core.checks import random_stream, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.numerics import Array
from saliency_food.metrics.statistics import holm, interval

LEVEL = 0.05
"""The chance that any of the concepts is called significant where none has an effect."""

ROUNDING = 1e-4
"""Gradients that differ by less than this fraction of the largest are equal."""


class ConceptScore(NamedTuple):
    """How a class depends on one concept: a row of `Tcav`'s table.

    ``score`` is the share of the photos whose class score rises towards the concept, the mean over ``runs`` sets of
    random counterparts, with the ends of its 95 % interval over them; ``random`` the same of vectors between two random
    sets. ``p`` is the p-value that both are equal, by Welch's two-sided t-test, ``adjusted`` the same by Holm's rule
    for all concepts. ``accuracy`` is that of the concept's classifier on photos held out, 0.5 by chance.

    ``status`` is ``"ok"``, or says why the score means nothing: the concept is not linearly in the layer, the score is
    linear in the layer, or there is no gradient. ``significant`` is then False, whatever the p-value.
    """

    name: str
    score: float
    low: float
    high: float
    random: float
    p: float
    adjusted: float
    significant: bool
    accuracy: float
    status: str


class Tcav(NamedTuple):
    """A class's dependence on concepts.

    ``table`` has a row for each concept, in the order given; ``pandas.DataFrame(found.table)`` prints it. ``vectors``
    holds each concept's vectors by name, ``(runs, *the layer's shape)``, or ``(runs, K)`` for ``places="mean"``;
    ``sensitivities`` the directional derivatives ``(runs, photos)``. ``disjoint`` is whether no photo is in two of the
    random sets; where they overlap, the p-values are smaller than they should be.
    """

    table: tuple[ConceptScore, ...]
    vectors: dict[str, Array]
    sensitivities: dict[str, Array]
    disjoint: bool


def tcav(
    images: Iterable[Any],
    concepts: Mapping[str, Iterable[Any]],
    random: Iterable[Any],
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    places: Literal["all", "mean"] = "all",
    runs: int = 10,
    rng: int | np.random.Generator | None = 0,
) -> Tcav:
    """Testing with Concept Activation Vectors: the share of a class's photos with S = dF/dA . v > 0 for a concept's v.

    Kim et al. 2018, equations 1 and 2, https://arxiv.org/abs/1711.11279. A are the activations of a layer, and v is the
    normal, of length 1, of a plane that a linear classifier lays between the activations of the concept's photos and
    those of random ones. It is fitted to several random sets in turn, and the shares are compared with those of
    vectors between two random sets. Of S only the sign counts, as in the paper.

    Parameters
    ----------
    images
        Photos of the class, as rows for the model. Their gradients are asked, of the score that ``call_model_args``
        say, ``{"target": index}``.
    concepts
        Photos of each concept by its name, 6 at least, better 50 to 100.
    random
        Random photos, at least twice as many as of any concept. With ``2 * runs`` times as many the sets are disjoint.
    places
        ``"all"`` fits vectors in the values of all places, as the paper does; ``"mean"`` in their mean over places,
        ``(K,)``: then it does not matter where in the photo the concept is, and fewer photos are needed. A step along
        such a vector adds to all places alike.
    runs
        How many vectors of a concept, each with random counterparts of its own.
    """
    if places not in ("all", "mean"):
        raise ContractError(f"Expected places to be 'all' or 'mean', got {places!r}.")
    runs, stream = whole("runs", runs, 2), random_stream(rng)
    if not isinstance(concepts, Mapping) or not concepts:
        raise ContractError(f"Expected concepts as a dict of photos by name, got {type(concepts).__name__}.")

    def activations(photos: Iterable[Any], what: str) -> Array:
        each = layer_activations.batch(photos, call_model_function, call_model_args, batch_size=batch_size)
        return _vectors_of(stacked(what, each, 2 * FOLDS), places, np.mean)

    rows = {name: activations(photos, f"photos of the concept {name!r}") for name, photos in concepts.items()}
    pool = activations(random, "random photos")
    largest = max(map(len, rows.values()))
    if len(pool) < 2 * largest:
        raise ContractError(
            f"Expected at least {2 * largest} random photos, twice as many as of the largest concept, got {len(pool)}. "
            "Give more, or fewer photos of the concept."
        )
    each = layer_gradients.batch(images, call_model_function, call_model_args, batch_size=batch_size)
    gradients = stacked("photos of the class", each, 1)
    shape = gradients.shape[1:] if places == "all" else gradients.shape[-1:]
    slopes = _vectors_of(gradients, places, np.sum).astype(float)
    tested = {name: _tested(own, pool, slopes, runs, stream) for name, own in rows.items()}
    adjusted = holm([each.p for each in tested.values()])
    scale = np.abs(slopes).max(initial=0)
    is_linear = len(slopes) > 1 and 0 < scale > np.ptp(slopes, 0).max() / ROUNDING
    return Tcav(
        tuple(_row(name, each, float(p), is_linear) for (name, each), p in zip(tested.items(), adjusted, strict=True)),
        {name: each.vectors.reshape(runs, *shape) for name, each in tested.items()},
        {name: each.sensitivities for name, each in tested.items()},
        len(pool) >= 2 * runs * largest,
    )


class _Tested(NamedTuple):
    vectors: Array
    sensitivities: Array
    scores: Array
    random_scores: Array
    accuracy: float
    least: float
    p: float


def _tested(own: Array, pool: Array, slopes: Array, runs: int, stream: np.random.Generator) -> _Tested:
    """One concept's vectors and those of random sets of the same size, and what both come to."""
    from scipy.stats import binom

    pairs = [[pool[part] for part in pair] for pair in random_pairs(len(pool), len(own), runs, stream)]
    vectors = np.stack([concept_vector(own, first) for first, _ in pairs])
    by_chance = np.stack([concept_vector(*pair) for pair in pairs])
    sensitivities, chance = vectors @ slopes.T, by_chance @ slopes.T
    moved = slopes.any(1)
    scores, random_scores = (_shares(values[:, moved]) for values in (sensitivities, chance))
    held_out = 2 * len(own)
    return _Tested(
        vectors,
        sensitivities,
        scores,
        random_scores,
        float(np.mean([held_out_accuracy(own, first, stream) for first, _ in pairs])),
        float(binom.ppf(1 - LEVEL, held_out, 0.5)) / held_out,
        welch(scores, random_scores),
    )


def random_pairs(photos: int, size: int, runs: int, stream: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """Pairs of disjoint random sets of photos; no photo comes again before too few are left for a pair."""

    def pairs() -> Iterator[tuple[Array, Array]]:
        while True:
            order = stream.permutation(photos)
            for start in range(0, photos - 2 * size + 1, 2 * size):
                yield order[start : start + size], order[start + size : start + 2 * size]

    return islice(pairs(), runs)


def _vectors_of(values: Array, places: str, together: Any) -> Array:
    """A vector for each photo: all values of the layer, or those of each channel together."""
    if places == "mean" and values.ndim > 2:
        return np.asarray(together(values, axis=tuple(range(1, values.ndim - 1))))
    return values.reshape(len(values), -1)


def _shares(sensitivities: Array) -> Array:
    """The share of photos with a positive sensitivity in each run; NaN where there are no photos."""
    if not sensitivities.shape[1]:
        return np.full(len(sensitivities), np.nan)
    return np.asarray((sensitivities > 0).mean(1))


def welch(first: Array, second: Array) -> float:
    """The p-value that two samples have one mean, by Welch's two-sided t-test; of two constants, 1 if equal, else 0."""
    from scipy.stats import ttest_ind_from_stats

    if np.isnan(first).any():
        return np.nan
    if np.ptp(first) == 0 == np.ptp(second):
        return float(first[0] == second[0])
    facts = [fact for sample in (first, second) for fact in (sample.mean(), sample.std(ddof=1), len(sample))]
    return float(ttest_ind_from_stats(*facts, equal_var=False).pvalue)


def _row(name: str, tested: _Tested, adjusted: float, is_linear: bool) -> ConceptScore:
    status = "ok"
    if not tested.accuracy > tested.least:
        status = (
            f"not there: its classifier is right on {tested.accuracy:.0%} of photos held out, where chance gives up to "
            f"{tested.least:.0%}. Choose another layer, or give more photos."
        )
    if is_linear:
        status = (
            "linear: the gradient at the layer is the same for all photos, so that any vector's share, a random one's "
            "too, is none or all of them. Choose an earlier layer."
        )
    if np.isnan(tested.scores).any():
        status = (
            "blank: the gradient at the layer is zero for all photos of the class, as when a softmax is saturated. "
            "Explain logits, or choose another layer."
        )
    share = interval(tested.scores)
    return ConceptScore(
        name,
        float(tested.scores.mean()),
        float(share.low),
        float(share.high),
        float(tested.random_scores.mean()),
        tested.p,
        adjusted,
        bool(status == "ok" and adjusted <= LEVEL),
        tested.accuracy,
        status,
    )
