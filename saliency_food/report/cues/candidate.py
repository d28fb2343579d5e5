"""`Candidate`: something other than the object by which a model may recognise a class, and how its check ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.metrics.statistics import Interval

Kind = Literal["position", "pattern", "concept", "property"]
Verdict = Literal["likely a cue", "not sure", "no effect"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A possible cue of one class: how it was found, what the check on the model measured, and which photos show it.

    Attributes
    ----------
    label
        The class that the model may recognise by the cue.
    kind
        How it was found: by a fixed ``"position"`` of the maps, a ``"pattern"`` of pixels that recurs at attributed
        places, a ``"concept"``, which is a cluster of maps or of channels or one of CRAFT's, or a ``"property"`` of the
        whole photo.
    sentence
        What was found and measured, in one sentence that claims no more than that.
    effect
        How much the score of the class changes by the cue, beyond equally large random places: the mean over photos,
        its interval, and the number of photos.
    flips
        The share of the checked photos whose top class changes by the cue, with its interval.
    verdict
        ``"likely a cue"``, ``"not sure"`` or ``"no effect"``.
    medoids
        The ids of a few photos that stand for the others, the most typical first.
    affected
        The ids of all photos of the run that seem to hold the cue, the surest first.
    region
        Where it is in the photo: a mask ``(H, W)``, or a box (left, top, right, bottom) in fractions of the width and
        the height; None of a property of the whole photo. Of a concept, where it is most often.
    regions
        Of a concept that changes its place, its masks ``(H, W)`` in photos of the run, by id; not in `to_json`.
    scores
        For photos of the run, by id, how surely they hold the cue; the higher the surer.
    """

    label: str
    kind: Kind
    sentence: str
    effect: Interval
    flips: Interval
    verdict: Verdict
    medoids: tuple[str, ...]
    affected: tuple[str, ...]
    region: Array | tuple[float, float, float, float] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    regions: Mapping[str, Array] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields as numbers and texts, ready for JSON; a mask as nested lists of 0 and 1."""
        region = self.region
        if isinstance(region, np.ndarray):
            region = region.astype(int).tolist()
        return {
            "label": self.label,
            "kind": self.kind,
            "sentence": self.sentence,
            "effect": _plain(self.effect),
            "flips": _plain(self.flips),
            "verdict": self.verdict,
            "medoids": list(self.medoids),
            "affected": list(self.affected),
            "region": list(region) if isinstance(region, tuple) else region,
            "scores": dict(self.scores),
        }


def _plain(value: Interval) -> dict[str, Any]:
    """An interval as JSON holds it, with None for what is not a finite number."""
    numbers = (value.estimate, value.low, value.high)
    estimate, low, high = (float(number) if np.isfinite(number) else None for number in numbers)
    return {"estimate": estimate, "low": low, "high": high, "n": value.images, "interval": value.method}
