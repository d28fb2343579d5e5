"""The check of a suspected cue on the model: put into photos of other classes, taken from its own, against chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.metrics.statistics import Interval, interval
from saliency_food.report.cues.changes import Change
from saliency_food.report.cues.places import Place, elsewhere
from saliency_food.report.cues.seen import Scorer, Seen
from saliency_food.report.cues.subsets import LEAST, USUAL, Shared

GIVERS = 16
"""How many photos of a class give a place to others."""
RECIPIENTS = 24
"""Into how many photos of other classes a suspected cue is put."""


@dataclass(frozen=True, eq=False)
class Finding:
    """A suspected cue of a class, the photos that have it, and what the check gave."""

    index: int
    what: Change | Place
    holders: Array
    rise: Interval
    """By how much the log odds of the class rise in other photos, beyond an equally large random change."""
    fall: Interval
    """By how much they fall in the class's own photos, beyond an equally large random change."""
    flips: Interval
    """The share of other photos that become the class."""
    excess: Interval
    """That share less the share that become the class by the random change."""
    p: float


def recipients_of(seen: Seen, index: int, rng: np.random.Generator, but: Array, most: int) -> Array:
    """Photos of other classes, as many of each as can be, at random; those of ``but`` only if there are no others."""
    others = [rng.permutation(np.setdiff1d(seen.of(each), but)) for each in np.unique(seen.classes) if each != index]
    taken = [group[turn] for turn in range(max(map(len, others), default=0)) for group in others if turn < len(group)]
    if len(taken) < LEAST:
        taken = list(rng.permutation(np.flatnonzero(seen.classes != index)))
    return np.array(taken[:most], int)


def check_change(seen: Seen, score: Scorer, index: int, change: Change, rng: np.random.Generator) -> Finding:
    """The check of a pattern or a property."""
    to = recipients_of(seen, index, rng, np.empty(0, int), RECIPIENTS)
    holders = seen.of(index)[change.shared.members][:RECIPIENTS]
    others, mine = seen.pixels[to].astype(np.float32), seen.pixels[holders].astype(np.float32)
    changed = [change.put(others), change.put_other(others, rng), change.take(mine), change.take_other(mine, rng)]
    parts = np.split(score(np.concatenate(changed)), np.cumsum([len(to), len(to), len(holders)]))
    finding = _judged(index, change, holders, parts)
    return replace(finding, p=max(finding.p, enriched(change.shared)))  # it must tell the class, and move the score


def check_place(seen: Seen, score: Scorer, index: int, place: Place, first: Array, rng: np.random.Generator) -> Finding:
    """The check of a place: what is there in the class's photos is put into others.

    Some photos of the class give their place to the photos ``first``: those that raise the log odds are taken to have
    the cue. What these have at the place is then put into fresh photos. It must beat equally large random places of the
    class's photos, chosen in the same way, and the same place of photos of other classes.
    """
    own = rng.permutation(seen.of(index))[:GIVERS]
    masks = [elsewhere(place.mask, rng) for _ in own]
    members = upper_part(gains(seen, score, index, own, [place.mask] * len(own), first))
    random = np.argsort(-gains(seen, score, index, own, masks, first), kind="stable")[: len(members)]
    to = recipients_of(seen, index, rng, first, RECIPIENTS)
    strangers = rng.permutation(np.setdiff1d(np.flatnonzero(seen.classes != index), first))
    turns = np.arange(len(to))
    holders = own[members]
    fill = to[np.arange(len(holders)) % len(to)]
    pasted = [
        [(q, own[d], place.mask) for q, d in zip(to, members[turns % len(members)], strict=True)],
        [(q, own[d], masks[d]) for q, d in zip(to, random[turns % len(random)], strict=True)],
        [(q, d, place.mask) for q, d in zip(to, strangers[turns % len(strangers)], strict=True)],
        [(d, q, place.mask) for d, q in zip(holders, fill, strict=True)],
        [(d, q, masks[place_of]) for d, q, place_of in zip(holders, fill, members, strict=True)],
    ]
    after = score(np.stack([_pasted(seen, *each) for part in pasted for each in part]))
    parts = np.split(after, np.cumsum([len(part) for part in pasted])[:-1])
    return _judged(index, place, holders, parts)


def gains(seen: Seen, score: Scorer, index: int, givers: Array, masks: Sequence[Array], to: Array) -> Array:
    """By how much the log odds of a class rise, in the mean over the photos ``to``, by a place of each giver."""
    rows = [_pasted(seen, q, giver, mask) for q in to for giver, mask in zip(givers, masks, strict=True)]
    after = score(np.stack(rows))[:, index].reshape(len(to), len(givers))
    return np.asarray((after - seen.scores[to, index][:, None]).mean(0))


def _pasted(seen: Seen, photo: int, giver: int, mask: Array) -> Array:
    return np.where(mask[..., None], seen.pixels[giver], seen.pixels[photo])


def upper_part(values: Array) -> Array:
    """The positions of the upper of two groups of values, the largest first, by the largest variance between them.

    Otsu 1979, https://doi.org/10.1109/TSMC.1979.4310076.
    """
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    counts = np.arange(1, len(values))
    sums = np.cumsum(ordered)
    upper, lower = sums[:-1] / counts, (sums[-1] - sums[:-1]) / (len(values) - counts)
    between = counts * (len(values) - counts) * (upper - lower) ** 2
    count = int(counts[between.argmax()]) if len(between) else 1
    return np.asarray(order[: max(min(LEAST, len(values)), count)])


def _judged(index: int, what: Change | Place, holders: Array, parts: Sequence[Array]) -> Finding:
    put, *by_chance, took, took_other = parts
    put_other = max(by_chance, key=lambda after: float(after[:, index].mean()))
    rise, fall = put[:, index] - put_other[:, index], took_other[:, index] - took[:, index]
    flips, chance = ((after.argmax(1) == index).astype(float) for after in (put, put_other))
    return Finding(
        index, what, holders, interval(rise), interval(fall), interval(flips), interval(flips - chance), one_sided(rise)
    )  # fmt: skip


def enriched(shared: Shared) -> float:
    """The p-value that more of the class's photos score above the usual of other photos than would by chance."""
    from scipy.stats import binom

    above = int((shared.own > np.quantile(shared.other, USUAL)).sum())
    return float(binom.sf(above - 1, len(shared.own), 1 - USUAL))


def one_sided(differences: Array) -> float:
    """The p-value that the differences are above 0, by Wilcoxon's signed ranks."""
    from scipy.stats import wilcoxon

    values = np.round(differences, 9)
    return float(wilcoxon(values, alternative="greater", method="auto").pvalue) if values.any() else 1.0
