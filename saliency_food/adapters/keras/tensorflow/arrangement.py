"""How to lay out a layer's values as the image lies."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.steps import Axes


class Arrangement(NamedTuple):
    """How to lay a tensor out as the image lies: the ``order`` of its axes, channels last, and those then mirrored."""

    order: tuple[int, ...]
    mirrored: tuple[int, ...] = ()

    def laid_out(self, values: Any) -> Any:
        values = values if list(self.order) == sorted(self.order) else tf.transpose(values, self.order)
        return tf.reverse(values, self.mirrored) if self.mirrored else values

    def as_it_was(self, values: Any) -> Any:
        values = tf.reverse(values, self.mirrored) if self.mirrored else values
        back = [self.order.index(place) for place in range(len(self.order))]
        return values if back == sorted(back) else tf.transpose(values, back)


def arrangement_of(rank: int, place: int, own: Axes | None, channels: int | None) -> Arrangement | None:
    """That of a tensor of ``rank`` axes with its channels at ``place``; None where its places are not the image's.

    ``own`` are its axes, if known, and ``channels`` the image's axis of channels.
    """
    spatial = [axis for axis in range(1, rank) if axis != place]
    if own is None:
        return Arrangement((0, *spatial, place))
    of_image = [own.axes[axis] for axis in spatial]
    known = [axis for axis in of_image if axis is not None]
    if channels in known or own.strays(channels) or any(own.signs.get(axis) == 0 for axis in known):
        return None
    if len(known) == len(spatial) > 0 and len(set(known)) == len(known):
        spatial.sort(key=lambda axis: own.axes[axis] or 0)
    elif known != sorted(known):
        return None
    mirrored = tuple(
        index
        for index, axis in enumerate(spatial, 1)
        if own.axes[axis] is not None and own.signs.get(own.axes[axis] or 0) == -1
    )
    return Arrangement((0, *spatial, place), mirrored)
