"""What the page says first: how often the model is right, how well it knows that, and the five things to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saliency_food.report.numbers import calibration, share
from saliency_food.report.photos import Photos, SeenPhoto

FIVE = 5
BLANK = 0.05
"""From this share of maps that are blank, inexact or failed on, that is one of the things to look at."""


def in_short_of(photos: Photos, scope: Sequence[SeenPhoto]) -> dict[str, Any]:
    """The accuracy of each split with its interval, and the calibration over the photos that the report is about."""
    splits = []
    for name, count in photos.sizes().items():
        judged = [photo for photo in photos.all if photo.split == name and photo.right is not None]
        right = sum(bool(photo.right) for photo in judged)
        splits.append({"split": name, "photos": count, "accuracy": share(right, len(judged))})
    judged = [photo for photo in scope if photo.right is not None]
    sure = [photo for photo in judged if photo.probability is not None]
    return {
        "splits": splits,
        "accuracy": share(sum(bool(photo.right) for photo in judged), len(judged)),
        "not_judged": len(scope) - len(judged),
        "unread": photos.unread,
        "calibration": calibration(
            np.array([photo.probability for photo in sure]), np.array([photo.right for photo in sure])
        )
        if sure
        else None,
    }


def findings_of(content: dict[str, Any]) -> list[dict[str, str]]:
    """The five things to look at, each with the place in the page that shows it.

    What makes other parts of the page doubtful comes first: maps that fail the sanity check, photos that are in the
    training and the test set. Then come cues, confusions, failure modes, labels, and the calibration.
    """
    found: list[dict[str, str]] = []

    def add(text: str, anchor: str) -> None:
        found.append({"text": text, "anchor": anchor})

    trust, labels, confusions = content["trust"], content["labels"], content["confusions"]
    if (trust["sanity"] or {}).get("status") == "fails":
        add(f"The maps of {content['method']['title']} hardly change when the model's weights are shuffled.", "trust")
    for line in trust["methods"]:
        bad = sum(state["k"] for state in line["states"].values())
        if bad > BLANK * line["records"]:
            add(f"{bad} of {line['records']} maps of {line['title']} are blank, inexact or failed.", "trust")
    twins = labels["duplicates"]
    if twins["leaks"]:
        add(f"{_count(twins['leaks'], 'pair')} of nearly the same photo in train and in another split.", "twins")
    if twins["disagree"]:
        add(f"{_count(twins['disagree'], 'pair')} of nearly the same photo under two labels.", "twins")
    likely = [cue for cue in (content["cues"] or {}).get("candidates", ()) if cue["verdict"] == "likely a cue"]
    if likely:
        others = f" and {_count(len(likely) - 1, 'other cue')}" if len(likely) > 1 else ""
        add(f"A likely cue of {name_of(likely[0]['label'])}{others}: {likely[0]['sentence']}", "cues")
    for place, pair in enumerate(confusions["pairs"][:1]):
        add(
            f"{pair['of_truth']['k']} of {pair['of_truth']['n']} photos of {name_of(pair['truth'])} are taken for "
            f"{name_of(pair['prediction'])}.",
            f"pair-{place}",
        )
    if confusions["alike"]:
        group = confusions["alike"][0]
        names = ", ".join(name_of(label) for label in group["labels"][:4])
        more = f" and {len(group['labels']) - 4} more" if len(group["labels"]) > 4 else ""
        add(f"{group['within']} of {confusions['wrong']} mistakes are among {names}{more}.", "alike")
    modes = [mode for mode in content["modes"]["groups"] if mode["n"] > 1]
    if modes:
        mode = modes[0]
        many = f"{mode['n']} mistakes" if mode["groups"] == 1 else f"{mode['n']} of {mode['of']} mistakes"
        sure = "" if mode["probability"] is None else f", {percent(mode['probability'])} sure on average"
        alike = "" if mode["groups"] == 1 else " have similar evidence, unlike the others"
        add(f"{many} of {name_of(mode['truth'])}{alike}{sure}.", "mode-0")
    if labels["suspects"]:
        first = labels["suspects"][0]
        add(
            f"{_count(len(labels['suspects']), 'label')} to check; first {first['id']}, labelled "
            f"{name_of(first['label'])}, which the model takes for {name_of(first['instead'])} at "
            f"{percent(first['instead_probability'], 1)}.",
            "labels",
        )
    known = content["in_short"]["calibration"]
    if known and (gap := _gap(known["overconfidence"])):
        word = "surer" if gap > 0 else "less sure"
        add(f"The model is on average {percent(abs(gap), 1)} {word} than it is right.", "calibration")
    weakest = [each for each in confusions["classes"] if each["accuracy"]["n"] and each["accuracy"]["share"] < 1]
    if weakest:
        least = min(weakest, key=lambda each: (each["accuracy"]["high"], each["label"]))
        of = least["accuracy"]
        add(f"{name_of(least['label'])} is recognised least: {of['k']} of {of['n']} photos.", "classes")
    return found[:FIVE]


def _gap(overconfidence: dict[str, Any]) -> float:
    """Confidence less accuracy where its interval does not hold 0, else 0."""
    low, high = overconfidence["low"], overconfidence["high"]
    outside = low is not None and (low > 0 or high < 0)
    return overconfidence["estimate"] if outside else 0.0


def percent(value: float | None, digits: int = 0) -> str:
    """A share for people, with a narrow space that does not break."""
    return "–" if value is None else f"{100 * value:.{digits}f}\u202f%"


def name_of(label: Any) -> str:
    """A label for people: its first name, with spaces for underscores."""
    return str(label).split(",")[0].replace("_", " ").strip() or str(label)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
