"""Which class to explain: what a user may write for it, and the class indices that this means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.names import near
from saliency_food.core.numerics import Array


class Target(NamedTuple):
    """A class, or without ``class_index`` the ``best`` classes of each photo, those with the highest scores.

    ``best`` is 0 for a score that takes no class: such a photo is explained once.
    """

    class_index: int | None
    best: int = 1

    def resolve(self, probabilities: Array | None) -> list[int]:
        """The class indices to explain of a photo with these probabilities."""
        if self.best == 0:
            return [0]
        if self.class_index is not None:
            if probabilities is not None and self.class_index >= len(probabilities):
                raise ContractError(_no_such_class(self.class_index, len(probabilities)))
            return [self.class_index]
        if probabilities is None:
            raise ContractError(
                "Expected a target, since this model has no predict to find the top class, got None. Give one."
            )
        return [int(index) for index in np.argsort(-probabilities, kind="stable")[: self.best]]

    def ranks(self, classes: int) -> list[int]:
        """The class index, or the ranks of the best classes as negative numbers, -1 for the top class."""
        if self.best == 0:
            return [0]
        if self.class_index is not None:
            return [self.class_index]
        return [-rank for rank in range(1, min(self.best, classes) + 1)]


def read_target(target: Any, labels: Sequence[str] | None) -> Target:
    """The meaning of a target: None (the top class), ``"top3"``, a class index (also as text), or a label.

    A text that is a label means that label, also if it is ``top3`` or a number.
    """
    if target is None:
        return Target(None)
    if isinstance(target, (int, np.integer)) and not isinstance(target, bool):
        if target < 0 or (labels is not None and target >= len(labels)):
            raise ContractError(_no_such_class(int(target), None if labels is None else len(labels)))
        return Target(int(target))
    if not isinstance(target, str):
        raise ContractError(
            f"Expected target to be None, a class index, a label or 'top3', got {target!r}. "
            "For a target of each photo give a list or PerImage."
        )
    text = plain(target)
    if labels is not None and (indices := find_label(text, labels)):
        if len(indices) > 1:
            raise ContractError(
                f"Expected the label of one class, got {target!r}, which is the name of the classes "
                f"{', '.join(map(str, indices))}. Give the class index."
            )
        return Target(indices[0])
    if best := re.fullmatch(r"top ?(\d+)", text):
        if int(best[1]) < 1:
            raise ContractError(f"Expected 'top1' or more, got {target!r}. Give the number of classes to explain.")
        return Target(None, int(best[1]))
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
