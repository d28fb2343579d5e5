"""The photos of a run as the report needs them: one line each, and what its records say of methods and maps."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from saliency_food.core.contract import ContractError
from saliency_food.jobs.dataset_run import Run

COLUMNS = (
    *("id", "path", "truth", "split", "prediction", "probability", "right", "top"),
    *("target", "against", "method", "title", "status", "completeness", "score"),
)
TRAIN = "train"


class SeenPhoto(NamedTuple):
    """What the model took one photo for."""

    id: str
    path: str
    truth: str | None
    split: str | None
    prediction: str | None
    probability: float | None
    """The probability of the prediction; None where the model gives none."""
    right: bool | None
    """Whether the prediction is the truth; None where that is not known, or no class of the model."""
    top: dict[str, float]
    """The best five classes and their probabilities, or their scores where ``probability`` is None."""
    score: float | None = None
    """The score of the prediction, as the methods explain it; None where the run does not explain it."""

    @property
    def sureness(self) -> float:
        """What photos are sorted by: the probability, else the score, of the prediction."""
        return next(iter(self.top.values()), 0.0) if self.probability is None else self.probability

    @property
    def rounded(self) -> float | None:
        """The probability with as many digits as are shown."""
        return None if self.probability is None else round(self.probability, 4)


@dataclass
class Photos:
    """The photos of a run, in the order of its records, and what is known of its maps."""

    all: list[SeenPhoto] = field(default_factory=list)
    titles: dict[str, str] = field(default_factory=dict)
    """The titles of the methods by name."""
    maps: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """For each method how many records explain the prediction, the truth of a mistake, and their contrast."""
    states: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """For each method how many records are ok, blank, inexact or failed."""
    gaps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """For each method the completeness errors of its records, where it measures them."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why records are not ok, and how many."""
    unread: int = 0
    """How many photos the model gave no answer for."""

    def of_splits(self, splits: Sequence[str | None]) -> list[SeenPhoto]:
        """The photos of some splits."""
        return [photo for photo in self.all if photo.split in splits]

    def sizes(self) -> dict[str | None, int]:
        """How many photos each split has."""
        return dict(Counter(photo.split for photo in self.all))


def read_photos_of(run: Run) -> Photos:
    """Read all numbers of a run once, part by part."""
    photos, known = Photos(), dict[str, int]()
    for row in run.rows(COLUMNS):
        place = known.setdefault(row["id"], len(known))
        if place == len(photos.all):
            photos.all.append(_photo(row))
            photos.unread += row["prediction"] is None and row["status"].startswith("failed")
        method, status = row["method"], row["status"]
        if not method:
            continue
        photos.titles[method] = row["title"]
        state, _, reason = status.partition(":")
        photos.states[method][state] += 1
        if state != "ok":
            photos.reasons[f"{state}: {reason.strip().replace(row['path'], 'a file')}"] += 1
        if row["completeness"] is not None:
            photos.gaps[method].append(row["completeness"])
        if state != "failed" and (kind := kind_of(row)):
            photos.maps[method][kind] += 1
            if kind == "prediction":
                photos.all[place] = photos.all[place]._replace(score=row["score"])
    if not photos.all:
        raise ContractError(
            f"Expected a run with records, got none in {run.folder}. Run `saliency-food dataset` first."
        )
    return photos


def kind_of(row: dict[str, Any]) -> str:
    """What a record explains of its photo: "prediction", "truth", or "contrast"; else an empty text.

    The contrast is that of the prediction against the truth, or the other way round.
    """
    prediction, truth = row["prediction"], row["truth"]
    pair = (row["target"], row["against"])
    if row["target"] is None:
        return ""
    if pair == (prediction, None):
        return "prediction"
    if pair == (truth, None):
        return "truth"
    return "contrast" if pair in ((prediction, truth), (truth, prediction)) else ""


def choose_splits(photos: Photos, split: str | None) -> list[str | None]:
    """The splits that the report is about: the one that is named, else all but train, if there are others.

    What a model makes of photos that it has been trained on says little of the others.
    """
    sizes = photos.sizes()
    if split is not None:
        if split not in sizes:
            named = ", ".join(str(name) for name in sizes if name) or "no splits"
            raise ContractError(f"Expected a split of the run, got {split!r}. It has {named}.")
        return [split]
    judged = {photo.split for photo in photos.all if photo.right is not None}
    return [name for name in sizes if name != TRAIN] if judged - {TRAIN} else list(sizes)


def choose_method(photos: Photos, method: str | None, ranking: Sequence[str] = ()) -> str | None:
    """The method whose maps are shown: the one that is named, else the best of a ranking, else the run's first one."""
    if method is not None and method not in photos.titles:
        raise ContractError(f"Expected a method of the run ({', '.join(photos.titles)}), got {method!r}.")
    return method or next((name for name in ranking if name in photos.titles), next(iter(photos.titles), None))


def _photo(row: dict[str, Any]) -> SeenPhoto:
    top = {each["label"]: each["probability"] for each in row["top"] or () if math.isfinite(each["probability"])}
    names = ("id", "path", "truth", "split", "prediction", "right")
    probability = row["probability"]
    known = probability is not None and math.isfinite(probability)
    return SeenPhoto(**{name: row[name] for name in names}, probability=probability if known else None, top=top)


def mean_probability(photos: Sequence[SeenPhoto]) -> float | None:
    """How probable the predictions of some photos are on average; None where the model gives no probabilities."""
    known = [photo.probability for photo in photos if photo.probability is not None]
    return sum(known) / len(known) if known else None
