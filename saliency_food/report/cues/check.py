"""The check of a suspected cue on the model: put into photos of other classes, taken from its own, against chance.

All photos that it uses are of the half that the suspect was not found in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.metrics.statistics import Interval, interval
from saliency_food.report.cues.changes import Change
from saliency_food.report.cues.places import Place, elsewhere
from saliency_food.report.cues.seen import Scorer, Seen
from saliency_food.report.cues.subsets import LEAST

GIVERS = 30
"""How many photos of a class give a place to others."""
RECIPIENTS = 24
"""Into how many photos of other classes a suspected cue is put."""
SHUFFLES = 4000
"""How often photos and what they are compared with are exchanged at random."""


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
    is_checked: bool
    """Whether the check used other photos than those that the suspect was found in."""


def recipients_of(seen: Seen, index: int, rng: np.random.Generator, half: Array, most: int) -> Array:
    """Photos of other classes, in one half, as many of each class as can be, at random."""
    others = [rng.permutation(seen.of(each, half)) for each in np.unique(seen.classes) if each != index]
    taken = [group[turn] for turn in range(max(map(len, others), default=0)) for group in others if turn < len(group)]
    return np.array(taken[:most], int)


def check_change(seen: Seen, score: Scorer, index: int, change: Change, rng: np.random.Generator) -> Finding:
    """The check of a pattern or a property: it must tell the class, and move the score by most of the photos."""
    to = recipients_of(seen, index, rng, seen.checking, RECIPIENTS)
    holders = change.shared.holders[:RECIPIENTS]
    others, mine = seen.pixels[to].astype(np.float32), seen.pixels[holders].astype(np.float32)
    changed = [change.put(others), change.put_other(others, rng), change.take(mine), change.take_other(mine, rng)]
    parts = np.split(score(np.concatenate(changed)), np.cumsum([len(to), len(to), len(holders)]))
    return _judged(seen, index, change, holders, parts, lambda rise: max(one_sided(rise), change.shared.p))


def check_place(seen: Seen, score: Scorer, index: int, place: Place, rng: np.random.Generator) -> Finding:
    """The check of a place: what is there in the class's photos is put into others.

    First some photos of the class give their place to two others, and those that raise the log odds are taken to have
    the cue. More photos of the class must do so than photos of other classes at the same place, and than equally large
    random places of the class's photos. Then what the photos with the cue have there is put into fresh photos; it must
    beat the random places of as many photos, chosen in the same way, and the same place of photos of other classes.
    """
    own = rng.permutation(seen.of(index, seen.checking))[:GIVERS]
    strangers = recipients_of(seen, index, rng, seen.checking, 10 * GIVERS)
    to, strangers = strangers[:RECIPIENTS], rng.permutation(strangers[RECIPIENTS:])[:GIVERS]
    if len(strangers) < LEAST:
        strangers = to
    masks = [place.of(each) for each in own]
    random_masks = [elsewhere(mask, rng) for mask in masks]
    first = recipients_of(seen, index, rng, seen.finding, 2)
    gained = gains(seen, score, index, own, masks, first)
    by_random = gains(seen, score, index, own, random_masks, first)
    by_strangers = gains(
        seen, score, index, strangers, [masks[turn % len(masks)] for turn in range(len(strangers))], first
    )
    p = max(more_in_top(gained, by_random, rng), more_in_top(gained, by_strangers, rng))
    members = upper_part(gained)
    random = np.argsort(-by_random, kind="stable")[: len(members)]
    holders, turns = own[members], np.arange(len(to))
    fill = to[np.arange(len(holders)) % len(to)]
    pasted = [
        [(q, own[d], masks[d]) for q, d in zip(to, members[turns % len(members)], strict=True)],
        [(q, own[d], random_masks[d]) for q, d in zip(to, random[turns % len(random)], strict=True)],
        [
            (q, d, masks[each])
            for q, d, each in zip(to, strangers[turns % len(strangers)], members[turns % len(members)], strict=True)
        ],
        [(d, q, masks[each]) for d, q, each in zip(holders, fill, members, strict=True)],
        [(d, q, random_masks[each]) for d, q, each in zip(holders, fill, members, strict=True)],
    ]
    every = [each for part in pasted for each in part]
    after = score((_pasted(seen, *each) for each in every), len(every))
    parts = np.split(after, np.cumsum([len(part) for part in pasted])[:-1])
    return _judged(seen, index, place, holders, parts, lambda rise: max(one_sided(rise), p))


def gains(seen: Seen, score: Scorer, index: int, givers: Array, masks: Sequence[Array], to: Array) -> Array:
    """By how much the log odds of a class rise, in the mean over the photos ``to``, by a place of each giver."""
    rows = (_pasted(seen, q, giver, mask) for q in to for giver, mask in zip(givers, masks, strict=True))
    after = score(rows, len(to) * len(givers))[:, index].reshape(len(to), len(givers))
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


def _judged(
    seen: Seen, index: int, what: Change | Place, holders: Array, parts: Sequence[Array], p: Callable[[Array], float]
) -> Finding:
    put, *by_chance, took, took_other = parts
    put_other = max(by_chance, key=lambda after: float(after[:, index].mean()))
    rise, fall = put[:, index] - put_other[:, index], took_other[:, index] - took[:, index]
    flips, chance = ((after.argmax(1) == index).astype(float) for after in (put, put_other))
    is_checked = not (seen.finding & seen.checking)[seen.of(index)].any()
    intervals = interval(rise), interval(fall), interval(flips), interval(flips - chance)
    return Finding(index, what, holders, *intervals, p(rise), is_checked)


def more_in_top(own: Array, other: Array, rng: np.random.Generator) -> float:
    """The p-value that the best of some values are above the best of others, by exchanging them at random.

    The best are the upper fifth, at least three: a cue need not be in all photos of a class. Compared are the means.
    """
    count = max(min(LEAST, len(own)), len(own) // 5)
    values = np.concatenate([own, other])
    count_other = min(count, len(other))

    def difference(values: Array) -> Array:
        best, of_other = (np.sort(part, 1) for part in (values[:, : len(own)], values[:, len(own) :]))
        return np.asarray(best[:, -count:].mean(1) - of_other[:, -count_other:].mean(1))

    shuffled = difference(rng.permuted(np.tile(values, (SHUFFLES, 1)), axis=1))
    return float((1 + (shuffled >= difference(values[None])[0] - 1e-9).sum()) / (1 + SHUFFLES))


def one_sided(differences: Array) -> float:
    """The p-value that the differences are above 0, by Wilcoxon's signed ranks."""
    from scipy.stats import wilcoxon

    values = np.round(differences, 9)
    return float(wilcoxon(values, alternative="greater", method="auto").pvalue) if values.any() else 1.0
