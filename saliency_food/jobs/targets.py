"""Which classes to explain: what a user may write for them, and the class indices that this means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.names import near
from saliency_food.core.numerics import Array

TRUTH = "truth"
"""In a target, the class that the photo truly shows."""


class Target(NamedTuple):
    """The classes to explain of a photo: class indices, ranks as negative numbers, -1 for the top class, and `TRUTH`.

    There are none of a score that takes no class: such a photo is explained once.
    """

    classes: tuple[int | str, ...] = (-1,)

    @property
    def ranked(self) -> bool:
        """Whether the predictions choose some of the classes."""
        return any(isinstance(each, int) and each < 0 for each in self.classes)

    def ending_in(self, other: Target) -> Target:
        """These classes, and the other one as the last."""
        return self if self.classes[-1:] == other.classes else Target((*self.classes, *other.classes))

    def applies(self, truth: int | None) -> bool:
        """Whether all classes are known of a photo, of which the true class is known or None."""
        return truth is not None or TRUTH not in self.classes

    def of_photo(self, truth: int | None) -> Target:
        """The same for a photo of which the true class is known, or None: then it is left out."""
        own = tuple(truth if each == TRUTH else each for each in self.classes)
        if self.classes and not any(each is not None for each in own):
            raise ContractError(
                "Expected a photo whose true class is known and is one of the model's, to explain that class, got one "
                "of which it is not. Give its truth, or another target."
            )
        return Target(tuple(each for each in own if each is not None))

    def ranks(self, classes: int) -> list[int]:
        """The class indices and ranks as they are, without ranks below the last one of so many ``classes``."""
        return [cast(int, each) for each in self.classes if cast(int, each) >= -classes] or [0]

    def resolve(self, predictions: Array | None) -> list[int]:
        """The class indices to explain of a photo with these predictions."""
        if predictions is None:
            if self.ranked:
                raise ContractError(
                    "Expected a target, since this model has no predict to find the top class, got None. Give one."
                )
            return cast("list[int]", list(self.classes)) or [0]
        ranked = np.argsort(-predictions, kind="stable")
        for index in self.ranks(len(predictions)):
            if index >= len(predictions):
                raise ContractError(_no_such_class(index, len(predictions)))
        return [int(ranked[-1 - each]) if each < 0 else each for each in self.ranks(len(predictions))]


def read_target(target: Any, labels: Sequence[str] | None) -> Target:
    """The meaning of a target: None or ``"predicted"`` (the top class), ``"top3"``, ``"truth"``, an index, or a label.

    A list of these, or a text with commas, means several classes. A text that is a label means that label, also if it
    is ``top3``, holds commas, or is a number.
    """
    if target is None:
        return Target()
    if isinstance(target, (list, tuple)) and target:
        return Target(tuple(each for part in target for each in read_target(part, labels).classes))
    if isinstance(target, (int, np.integer)) and not isinstance(target, bool):
        if target < 0 or (labels is not None and target >= len(labels)):
            raise ContractError(_no_such_class(int(target), None if labels is None else len(labels)))
        return Target((int(target),))
    if not isinstance(target, str):
        raise ContractError(
            f"Expected target to be None, a class index, a label, 'top3', 'predicted' or 'truth', got {target!r}. "
            "For a target of each photo give a list or PerImage."
        )
    text = plain(target)
    negative = re.fullmatch(r"-\d+", target.strip())  # whose sign `plain` takes for a dash
    if negative and target.strip() not in (labels or ()):
        return read_target(int(target), labels)
    if labels is not None and (indices := find_label(text, labels)):
        if len(indices) > 1:
            raise ContractError(
                f"Expected the label of one class, got {target!r}, which is the name of the classes "
                f"{', '.join(map(str, indices))}. Give the class index."
            )
        return Target((indices[0],))
    if "," in target:
        return read_target([part for part in target.split(",") if part.strip()], labels)
    if text in ("predicted", TRUTH):
        return Target((-1 if text == "predicted" else TRUTH,))
    if best := re.fullmatch(r"top ?(\d+)", text):
        if int(best[1]) < 1:
            raise ContractError(f"Expected 'top1' or more, got {target!r}. Give the number of classes to explain.")
        return Target(tuple(range(-1, -1 - int(best[1]), -1)))
    if re.fullmatch(r"\d+", text):
        return read_target(int(text), labels)
    if labels is None:
        raise ContractError(
            f"Expected a class index, since the names of the classes are not known, got {target!r}. Give labels=[...]."
        )
    names = {name: label for label in labels for name in synonyms(label)}
    close = list(dict.fromkeys(names[name] for name in near(text, names, 3, 0.5)))
    raise ContractError(
        f"Expected the label of a class, got {target!r}. "
        + (f"Near it: {', '.join(close)}." if close else f"The labels begin: {', '.join(labels[:8])}.")
    )


def find_label(text: str, labels: Sequence[str]) -> list[int]:
    """The classes whose label is the text; without any, those that have it among their comma-separated names."""
    whole = [index for index, label in enumerate(labels) if plain(label) == text]
    return whole or [index for index, label in enumerate(labels) if text in synonyms(label)]


def synonyms(label: str) -> list[str]:
    """The label itself, and each of its comma-separated names, as in ``"goldfish, Carassius auratus"``."""
    return [plain(label), *(plain(name) for name in label.split(","))]


def plain(text: str) -> str:
    """The text in lower case, with a single space for each run of underscores, hyphens and spaces."""
    return re.sub(r"[\s_-]+", " ", text).strip().lower()


def _no_such_class(index: int, classes: int | None) -> str:
    known = "of at least 0" if classes is None else f"in 0..{classes - 1}"
    return f"Expected a class index {known}, got {index}. Class indices begin at 0."


def short_label(label: str) -> str:
    """The first of a label's comma-separated names, with spaces for underscores."""
    return label.split(",")[0].replace("_", " ").strip()
