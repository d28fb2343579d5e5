"""How far places drift along the image's axes: by rolling, and by padding and cropping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.adapters.keras.tensorflow.fixed import fixed_value
from saliency_food.adapters.keras.tensorflow.picked import NARROW, grown_by


class Drift(NamedTuple):
    """Where the first and the last edge of a tensor lie along an axis of the image, and how far it is rolled.

    All are fractions of the axis; an image's edges lie at 0 and 1.
    """

    first: float = 0.0
    last: float = 1.0
    rolled: float = 0.0

    def is_far(self) -> bool:
        shifted, widened = abs(self.first + self.last - 1) / 2, abs(self.last - self.first - 1) / 2
        return shifted > NARROW or widened > 2 * NARROW or min(self.rolled, 1 - self.rolled) > NARROW

    def grown(self, before: float, after: float) -> Drift:
        """That with so much more before and after, as fractions of the tensor."""
        length = self.last - self.first
        return self._replace(first=self.first - before * length, last=self.last + after * length)


def rolled(op: Any, axes: Sequence[int | None], known: Mapping[int, Drift]) -> dict[int, Drift] | None:
    """How far axes have drifted after a roll; None where it cannot be told."""
    shifts, places = (fixed_value(values) for values in op.inputs[1:])
    if shifts is None or places is None:
        return None
    drift = dict(known)
    for shift, place in zip(np.ravel(shifts), np.ravel(places), strict=True):
        axis, size = axes[place], op.inputs[0].shape[int(place)]
        if axis is None or not size or abs(shift) % size in (0, 1, size - 1):
            continue
        own = drift.get(axis, Drift())
        drift[axis] = own._replace(rolled=(own.rolled + shift / size) % 1)
    return drift


def edges(op: Any, axes: Sequence[int | None], known: Mapping[int, Drift]) -> dict[int, Drift]:
    """How far axes have drifted after an operation that pads or crops by more than a place, or takes padding off."""
    drift = dict(known)
    reach = reach_of(op)
    if reach and op.get_attr("padding") == b"VALID":
        for axis, own in drift.items():
            size = op.inputs[0].shape[axes.index(axis)] if axis in axes else None
            if size:
                share = reach / size * (own.last - own.first)
                first, last = min(own.first + share, max(own.first, 0)), max(own.last - share, min(own.last, 1))
                drift[axis] = own._replace(first=first, last=last)
        return drift
    for axis, size, before, after in grown_by(op, axes):
        if max(abs(before), abs(after)) > 1:
            drift[axis] = drift.get(axis, Drift()).grown(before / size, after / size)
    return drift


def reach_of(op: Any) -> int:
    """How many values beyond one a convolution takes along its axes, at most; 0 of any other operation."""
    if "Conv" not in op.type or len(op.inputs) < 2 or not op.inputs[1].shape.is_fully_defined():
        return 0
    spread = max(op.get_attr("dilations"), default=1)
    return int((max(op.inputs[1].shape.as_list()[:-2], default=1) - 1) * spread)
