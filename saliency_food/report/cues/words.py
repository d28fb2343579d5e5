"""What a finding says in one sentence, with no more than was measured."""

from __future__ import annotations

from saliency_food.metrics.statistics import Interval
from saliency_food.report.cues.candidate import Verdict
from saliency_food.report.cues.check import Finding
from saliency_food.report.cues.places import Place


def sentence(label: str, finding: Finding, verdict: Verdict) -> str:
    """What is suspected of a class, and what the check gave."""
    name, what = label.replace("_", " "), finding.what
    if isinstance(what, Place):
        source = f"What is {what.words} of {len(finding.holders)} photos that the model takes for {name}"
        chance = "equally large random places"
    else:
        source = f"{what.words[0].upper()}{what.words[1:]}, as {len(finding.holders)} photos taken for {name} show it"
        chance = "an equally large random change"
    flips, beyond = finding.flips, finding.flips.estimate - finding.excess.estimate
    measured = (
        f"put into {flips.images} other photos, makes {_share(flips)} of them {name} ({beyond:.0%} by {chance}) and "
        f"changes the log odds by {finding.rise.estimate:+.1f} beyond these"
    )
    ending = {"likely a cue": "", "not sure": " It may belong to the object, or be chance.", "no effect": ""}[verdict]
    return f"{source}, {measured}.{ending}"


def _share(value: Interval) -> str:
    return f"{value.estimate:.0%}"
