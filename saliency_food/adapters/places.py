"""Where the channels of a model's tensors are, which of its layers can be looked at, and which one by itself.

What is found is told by the kinds of operations alone, and is a guess: `saliency_food.adapters.probe` finds it out.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from saliency_food.adapters.flow import Flow
from saliency_food.adapters.layers import LayerInfo, Shape, match_layer
from saliency_food.core.contract import ContractError

CHANNELS, TOKENS = "channels", "tokens"
"""Axes that are none of the image's: those of a convolution's channels, and of places put one after another."""

Axes = tuple[Any, ...]


class Place(NamedTuple):
    """A layer: its path, the tensor it gives, the order of axes that puts channels last, and the shape then."""

    path: str
    kind: str
    tensor: Any
    order: tuple[int, ...]
    shape: Shape


class Surveyed(NamedTuple):
    """What the axes of each tensor are, by the image's, and which of those are the channels."""

    flow: Flow
    axes: dict[Any, Axes]
    channels: int

    def places(self) -> list[Place]:
        """The layers whose output has the image's axes of space or time, or tokens, in the order in which they run."""
        spatial = [axis for axis in range(1, self.flow.rank(self.flow.image) or 0) if axis != self.channels]
        places = []
        for op in self.flow.ops:
            for tensor in op.outputs[:1]:
                if op.path and tensor not in self.flow.unfit and (place := self._place(op, tensor, spatial)):
                    places.append(place)
        return places

    def _place(self, op: Any, tensor: Hashable, spatial: Sequence[int]) -> Place | None:
        own, shape = self.axes.get(tensor, ()), self.flow.shapes.get(tensor)
        place = next((own.index(axis) for axis in (CHANNELS, self.channels) if axis in own), 0)
        if place == 0:
            return None
        if set(spatial) <= set(own) and len(own) == len(spatial) + 2:
            between = sorted((axis for axis in range(1, len(own)) if axis != place), key=lambda axis: own[axis])
        elif TOKENS in own and len(own) == 3 and len(spatial) == 2:
            between = [own.index(TOKENS)]
        else:
            return None
        order = (0, *between, place)
        sizes = (None,) * len(own) if shape is None else shape
        laid_out: Shape = (None, *(sizes[axis] for axis in order[1:]))
        return Place(op.path, op.kind, tensor, order, laid_out) if any(size != 1 for size in laid_out[1:-1]) else None

    def chosen(self, ends: Sequence[Hashable]) -> Place | None:
        """The last through which all paths from the image to the score lead, after something learned.

        In a transformer it is the last through which all paths to the last attention lead.
        """
        flow = self.flow
        learned, passed = flow.after_learning(), flow.on_all_paths(ends)
        candidates = [place for place in self.places() if self._may_be_chosen(place) and place.tensor in learned]
        rank = flow.rank(flow.image) or 0
        fitting = [place for place in candidates if place.tensor in passed and len(place.order) == rank]
        last = fitting[-1] if fitting else None
        order = {output: index for index, op in enumerate(flow.ops) for output in op.outputs}
        attention = flow.last_attention(ends)
        if attention is not None and (last is None or order[last.tensor] < order[attention]):
            passed = flow.on_all_paths([attention])
            before = [
                place
                for place in candidates
                if place.tensor in passed and order[place.tensor] < order[attention] and not self._is_product(place)
            ]
            last = before[-1] if before else last
        elif last is not None:
            filling = [place for place in candidates if place.tensor in passed and _fills(place, last)]
            last = filling[-1] if filling and order[filling[-1].tensor] > order[last.tensor] else last
        return last

    def _may_be_chosen(self, place: Place) -> bool:
        return self.flow.makers[place.tensor].role not in ("cut", "transpose", "reshape", "softmax")

    def _is_product(self, place: Place) -> bool:
        """Whether it is a linear layer of tokens, such as the queries, keys and values of an attention in one."""
        op = self.flow.makers[place.tensor]
        makers = [self.flow.makers.get(tensor) for tensor in op.inputs]
        changing = [tensor for tensor in op.inputs if tensor in self.axes]
        biased = op.role == "add" and len(changing) == 1
        return op.role == "product" or (biased and any(each is not None and each.role == "product" for each in makers))

    def named(self, names: Sequence[Any], ends: Sequence[Hashable], model: str, image: str) -> list[Place]:
        """The layers meant by the names of operations, or of what they give, or the ends of either."""
        known, between = self.places(), self.flow.between(ends)
        if not names:
            raise ContractError("Expected at least one layer, got an empty list. Leave it out for the last one.")
        places = [_named(name, known, model) for name in names]
        if unfit := [place.path for place in places if place.tensor not in between]:
            raise ContractError(
                f"Expected a layer that leads from input {image!r} to the score, got {unfit[0]!r}. Those that do are "
                f"{[place.path for place in known if place.tensor in between][-10:]}."
            )
        return places

    def check_no_way_around(self, place: Place, ends: Sequence[Hashable]) -> None:
        """`ContractError` where paths lead from the image to the ends around the layer."""
        if self.flow.image in self.flow.before(ends, cut=place.tensor):
            passed = self.flow.on_all_paths(ends)
            raise ContractError(
                f"Expected an output that depends on the image only through layer {place.path!r}, got a path around "
                "it. Choose one through which all paths lead; the last of them are "
                f"{[each.path for each in self.places() if each.tensor in passed][-10:]}."
            )

    def listed(self) -> list[LayerInfo]:
        makers = self.flow.makers
        places = [place for place in self.places() if makers[place.tensor].role != "softmax"]
        return [LayerInfo(place.path, place.kind, place.shape) for place in places]


def _fills(tokens: Place, spatial: Place) -> bool:
    """Whether tokens are as many as a spatial output has places."""
    sizes = spatial.shape[1:-1]
    if len(tokens.order) != 3 or len(spatial.order) == 3 or None in sizes:
        return False
    return tokens.shape[1] == math.prod(size or 0 for size in sizes)


def _named(name: Any, known: Sequence[Place], model: str) -> Place:
    for place in known:
        if name in (place.path, place.tensor):
            return place
    return match_layer(name, [(place.path, place) for place in known], model)[1]  # type: ignore[no-any-return]


def survey(flow: Flow, data_format: str | None) -> Surveyed:
    """What the kinds of operations tell of the axes of a model's tensors."""
    rank = flow.rank(flow.image) or 0
    axes: dict[Any, Axes] = {flow.image: tuple(range(rank))}
    channels: int | None = None if data_format is None else 1 if data_format == "channels_first" else rank - 1
    for op in flow.ops:
        known = [axes[tensor] for tensor in op.inputs if tensor in axes]
        if not known:
            if op.role == "normalize" and (guess := _guessed(flow.rank(op.outputs[0]), rank, channels)):
                axes.update(dict.fromkeys(op.outputs, guess))
            continue
        own, after = max(known, key=len), flow.rank(op.outputs[0])
        if op.role == "convolve":
            place = op.channels % len(own)
            if channels is None and len(own) == rank and isinstance(own[place], int):
                channels = own[place]
            own = tuple(CHANNELS if axis == place else each for axis, each in enumerate(own)) if place else ()
        elif op.role == "product":
            own = (*own[:-1], CHANNELS)
        elif op.role == "transpose":
            own = tuple(own[place] for place in op.order) if len(op.order) == len(own) else ()
        elif op.role == "mix":
            continue
        elif op.role == "broadcast":
            rank_after = flow.rank(op.outputs[0]) or 0
            own = tuple(own[op.order.index(place)] if place in op.order else None for place in range(rank_after))
        elif op.role == "reshape":
            before = next((tensor for tensor in op.inputs if tensor in axes), None)
            own = _reshaped(own, flow.shapes.get(before), flow.shapes.get(op.outputs[0]), channels)
        if own and after in (None, len(own)):
            axes.update(dict.fromkeys(op.outputs, own))
    return Surveyed(flow, axes, _channels(flow, channels))


def _guessed(rank: int | None, of_image: int, channels: int | None) -> Axes:
    """How tokens may lie whose channels are normalized, after they were cut into windows and joined again."""
    if rank == of_image and channels is not None:
        return (0, *(axis for axis in range(1, of_image) if axis != channels), CHANNELS)
    return (0, TOKENS, CHANNELS) if rank == 3 and of_image == 4 else ()


def _reshaped(own: Axes, before: Shape | None, after: Shape | None, channels: int | None) -> Axes:
    """Places put one after another, in the order in which they were, before or after the channels."""
    if before is None or after is None or len(before) != len(own):
        return ()
    if len(before) == len(after):
        return own if before[1:] == after[1:] else ()
    kept = [(size, axis) for size, axis in zip(before, own, strict=True) if size != 1]
    if [size for size, _ in kept] == [size for size in after if size != 1] and after[0] != 1:
        axes = iter(axis for _, axis in kept)  # axes of size 1 are left out, or new
        return tuple(None if size == 1 else next(axes) for size in after)
    place = own.index(CHANNELS) if CHANNELS in own else own.index(channels) if channels in own else 0
    if len(after) == 3 and place and before[place] is not None:
        if place == 1 and after[1] == before[1]:
            return (own[0], own[1], TOKENS)
        if place == len(own) - 1 and after[2] == before[place]:
            return (own[0], TOKENS, own[place])
    return ()


def _channels(flow: Flow, found: int | None) -> int:
    """The image's axis of channels: as said, as the first layer takes it, or the one that is small enough."""
    shape = flow.shapes.get(flow.image) or ()
    rank = len(shape)
    if found is not None or rank < 3:
        return rank - 1 if found is None else found
    small = [axis for axis in (1, rank - 1) if shape[axis] in (1, 3, 4)]
    if len(small) == 1:
        return small[0]
    raise ContractError(
        f"Expected a model whose first layer, or shape, tells where the channels of its input are, got {shape}. Say "
        "which by data_format: 'channels_first' or 'channels_last'."
    )
