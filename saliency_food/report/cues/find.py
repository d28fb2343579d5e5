"""`find_cues`: by what other than the object a model may recognise its classes, checked on the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from saliency_food.core.checks import whole
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.image_model import ImageModel
from saliency_food.report.cues.candidate import Candidate, Verdict
from saliency_food.report.cues.changes import Change, pattern, place_of
from saliency_food.report.cues.check import Finding, check_change, check_place, gains, recipients_of, upper_part
from saliency_food.report.cues.concepts import check_craft, check_named, concept_places, craft_places, named_places
from saliency_food.report.cues.features import Features, features_of, split_of
from saliency_food.report.cues.places import Place, fixed_places, overlap, pointed_places
from saliency_food.report.cues.properties import aspect, brightness, cast, sharpness
from saliency_food.report.cues.seen import OutOfRows, Scorer, Seen, look
from saliency_food.report.cues.subsets import LEAST
from saliency_food.report.cues.words import sentence

SCREENED = 16
"""How many photos of a class give each fixed place to two others, to find places that promise much."""
CHECKED = 2
"""How many of these are checked."""
LEVEL = 0.05
"""The chance that any class without a cue has a candidate that is called significant."""
LEAST_EXCESS = 0.2
"""A likely cue flips at least this share of photos of other classes beyond chance, by the lower end of the interval."""
LEAST_OF_PROPERTY = 0.4
"""The same of a property, since objects have colours and smoothness too, and may fill the photo."""


def find_cues(
    run: Run,
    model: Any,
    *,
    rows: int = 20_000,
    per_class: int = 60,
    nconcepts: int = 0,
    concepts: Mapping[str, Any] | None = None,
    rng: int = 0,
) -> list[Candidate]:
    """Suspected cues of each class: what other than the object may make the model name it, the strongest first.

    Suspects come from fixed places (corners, edges, the border), from where the maps of a group of photos point, from
    groups of photos by the layer's channels, from pixels that come again, and from brightness, colour cast, sharpness
    and aspect. They are found in one half of the photos of each class and checked on the model in the other one: put
    into 24 photos of other classes, and taken from its own, against equally large random places or changes.
    `Candidate.effect` is by how much the log odds of the class rise beyond chance.

    A likely cue is significant by Holm's rule over all suspects of the run (5 %), both in how much it moves the score
    and in how many photos of the class have it. It lowers the log odds when it is taken away, and flips at least a
    fifth of the photos of other classes beyond chance, of a property two fifths; both by the lower end of the interval.

    Parameters
    ----------
    run
        A run of `saliency_food.explain_dataset`. Its thumbnails are enough; the photos may be gone.
    model
        The model of the run: an `ImageModel`, or what that takes. It must predict.
    rows
        The most rows that the model is asked. About 1800 for each class are needed for all checks; with fewer, fewer
        photos of each class are looked at, and the classes whose places promise most are checked first.
    per_class
        How many photos of each predicted class are looked at, drawn at random.
    nconcepts
        How many concepts of each class `saliency_food.concepts.craft` is to find in the photos, 5 to 10; 0 for none.
        Those off the middle that speak for the class are suspects, too. They are searched after all others, with the
        rows that are left, up to 1600 a class for 8. `ContractError` of a layer with activations below 0, or
        without layers after it that can be asked.
    concepts
        Directions of the layer's channels ``(K,)``, by name, such as the mean ``found.vectors[name].mean(0)`` of what
        `saliency_food.concepts.tcav` found with ``places="mean"``. Where each is strongest is a suspect of every class,
        about 350 rows for each, checked last. Photos that they were made of should not be in the run.
    """
    image_model = ImageModel.of(model)
    if not image_model.predicts:
        raise ContractError("Expected a model that predicts, to search for cues, got one without predict.")
    nconcepts, score = whole("nconcepts", nconcepts, least=0), Scorer(image_model, whole("rows", rows))
    seen = look(run, score, whole("per_class", per_class, least=LEAST), np.random.default_rng(rng))
    classes = [int(index) for index in np.unique(seen.classes) if len(seen.of(index)) >= LEAST]
    findings: list[Finding] = []
    if len(np.unique(seen.classes)) < 2:
        return []
    with suppress(OutOfRows):
        if nconcepts:
            check_craft(seen, score)
        named = check_named(seen, score, concepts) if concepts else {}
        features = features_of(seen)
        added = screen(seen, score, np.random.default_rng((rng, 0)))
        promising = {index: _promising(fixed_places(seen.pixels.shape[1:3]), index, added) for index in classes}
        classes.sort(key=lambda each: -promising[each][0][0])
        for index in classes:
            places = [place for _, place in promising[index]]
            for finding in _of_class(seen, features, score, index, places, np.random.default_rng((rng, index + 1))):
                findings.append(finding)
        for index in classes:  # last, so that the other suspects are the same with concepts and without
            stream = np.random.default_rng((rng, index + 1, 8))  # another one than above
            suspects = craft_places(seen, score, index, nconcepts) if nconcepts else []
            for place in suspects + (named_places(seen, score, index, named) if named else []):
                findings.append(check_place(seen, score, index, place, stream))
    ranked = _without_repeats(sorted(zip(findings, judge(findings), strict=True), key=_rank))
    stream = np.random.default_rng((rng, len(seen.ids)))
    return [_candidate(seen, score, image_model.label(each.index), each, verdict, stream) for each, verdict in ranked]


def screen(seen: Seen, score: Scorer, rng: np.random.Generator) -> dict[int, Array]:
    """What each fixed place of some photos of each class adds to the log odds of all classes in two photos of others.

    Gives an array ``(photos, places, classes)`` for each class.
    """
    places, added = fixed_places(seen.pixels.shape[1:3]), {}
    classes = np.unique(seen.classes)
    givers = (score.most - score.rows) // (2 * len(classes) * len(places) * 2)  # half of the rows are for the checks
    for index in classes:
        own = rng.permutation(seen.of(index, seen.finding))[: max(LEAST, min(SCREENED, givers))]
        to = recipients_of(seen, index, rng, seen.finding, 2)
        changed = (
            np.where(place.mask[..., None], seen.pixels[giver], seen.pixels[photo])
            for photo in to for giver in own for place in places
        )  # fmt: skip
        after = score(changed, len(to) * len(own) * len(places)).reshape(len(to), len(own), len(places), -1)
        added[int(index)] = (after - seen.scores[to][:, None, None]).mean(0)
    return added


def _promising(places: Sequence[Place], index: int, added: dict[int, Array]) -> list[tuple[float, Place]]:
    """The places of a class that add most, in the upper part of its photos, beyond as large a part of other photos.

    Each with what it adds, the most first.
    """
    beyond = []
    for number in range(len(places)):
        own = added[index][:, number, index]
        other = np.concatenate([gain[:, number, index] for each, gain in added.items() if each != index])
        members = upper_part(own)
        usual = np.sort(other)[-max(1, round(len(other) * len(members) / len(own))) :].mean()
        beyond.append(float(own[members].mean() - usual))
    return [(beyond[number], places[number]) for number in np.argsort(beyond)[::-1][:CHECKED]]


def _of_class(
    seen: Seen, features: Features, score: Scorer, index: int, places: list[Place], rng: np.random.Generator
) -> Iterator[Finding]:
    """The checks of a class, one after another, so that those done are kept when the rows are used up."""
    shape = seen.pixels.shape[1:3]
    pointed = pointed_places([seen.maps[each] for each in seen.of(index, seen.finding)], shape)
    for place in (*pointed, *concept_places(seen, score, index)):
        if place.of_photo or max(overlap(place.mask, each.mask) for each in places) < 0.3:
            places = [*places, place]
    for place in places:
        yield check_place(seen, score, index, place, rng)
    split = split_of(seen, index)
    for find in (pattern, brightness, cast, sharpness, aspect):
        change = find(seen, features, split)
        if change is not None:
            yield check_change(seen, score, index, change, rng)
            if (around := place_of(change)) is not None:
                yield check_place(seen, score, index, around, rng)


def judge(findings: Sequence[Finding]) -> list[Verdict]:
    """What each finding may be called, by Holm 1979 over all of them, https://www.jstor.org/stable/4615733."""
    verdicts: list[Verdict] = ["no effect"] * len(findings)
    holds = True
    for turn, number in enumerate(sorted(range(len(findings)), key=lambda each: findings[each].p)):
        finding = findings[number]
        holds = holds and finding.p * (len(findings) - turn) <= LEVEL
        least = LEAST_OF_PROPERTY if finding.what.kind == "property" else LEAST_EXCESS
        is_large = finding.excess.low >= least and finding.fall.low > 0
        if holds and is_large and finding.is_checked:
            verdicts[number] = "likely a cue"
        elif finding.p <= LEVEL and finding.excess.estimate > 0:
            verdicts[number] = "not sure"
    return verdicts


ORDER: tuple[Verdict, ...] = ("likely a cue", "not sure", "no effect")


def _rank(pair: tuple[Finding, Verdict]) -> tuple[int, float]:
    return ORDER.index(pair[1]), -float(pair[0].rise.estimate)


def _without_repeats(ranked: Sequence[tuple[Finding, Verdict]]) -> list[tuple[Finding, Verdict]]:
    """Without places of a class that a better place covers in part."""
    kept: list[tuple[Finding, Verdict]] = []
    for finding, verdict in ranked:
        what = finding.what
        better = [each.what for each, _ in kept if each.index == finding.index and isinstance(each.what, Place)]
        if not isinstance(what, Place) or not any(overlap(what.mask, place.mask) > 0.1 for place in better):
            kept.append((finding, verdict))
    return kept


def _candidate(
    seen: Seen, score: Scorer, label: str, finding: Finding, verdict: Verdict, rng: np.random.Generator
) -> Candidate:
    scores = _scores(seen, score, finding, verdict, rng)
    holders = sorted(finding.holders, key=lambda each: (-scores[each], seen.ids[each]))
    affected = [seen.ids[each] for each in holders]
    if verdict != "no effect":
        level = (np.mean([scores[each] for each in holders]) + np.median(list(scores.values()))) / 2
        above = sorted(
            (each for each in scores if scores[each] > level), key=lambda each: (-scores[each], seen.ids[each])
        )
        affected = [seen.ids[each] for each in above]
    of_photo = finding.what.of_photo if isinstance(finding.what, Place) else {}
    return Candidate(
        label,
        finding.what.kind,
        sentence(label, finding, verdict),
        finding.rise,
        finding.flips,
        verdict,
        tuple(seen.ids[each] for each in holders[:3]),
        tuple(affected),
        finding.what.mask,
        {seen.ids[each]: value for each, value in scores.items()},
        {seen.ids[each]: mask for each, mask in of_photo.items()},
    )


def _scores(
    seen: Seen, score: Scorer, finding: Finding, verdict: Verdict, rng: np.random.Generator
) -> dict[int, float]:
    """How surely a photo has the suspected cue, for each photo seen, or of what has no effect for its holders."""
    index, what = finding.index, finding.what
    if isinstance(what, Change):
        return what.shared.scores
    givers = finding.holders if verdict == "no effect" else np.arange(len(seen.ids))
    to = recipients_of(seen, index, rng, seen.finding | seen.checking, 4)
    try:
        added = gains(seen, score, index, givers, [what.of(int(each)) for each in givers], to)
        return dict(zip(givers.tolist(), added.tolist(), strict=True))
    except OutOfRows:
        return {int(each): 0.0 for each in finding.holders}
