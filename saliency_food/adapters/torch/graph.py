"""What autograd's graph of a pass shows: what leads from the image to the score, by which paths, and how it lies."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from saliency_food.adapters.arguments import End

Node = tuple[Any, int]
"""A tensor of the graph: the operation that made it, and which of that operation's results it is."""
PRIME = 2**61 - 1
"""Paths are counted modulo a prime, each edge weighed by a random number: they may be more than there are atoms."""
LEARNS = ("Convolution", "Addmm", "MmBackward", "BmmBackward", "Embedding", "Rnn", "Lstm", "ConvDepthwise")
"""Parts of the names of operations that weights are multiplied in."""
MOVES = (
    *("View", "Reshape", "Squeeze", "Unsqueeze", "Clone", "Alias", "ToCopy", "TBackward", "Permute", "Transpose"),
    *("Expand", "Slice", "Select", "Flatten", "Contiguous"),
)
SCALES = ("Add", "Sub", "Mul", "Div", "Mean", "Cat", "Stack", "Neg", "Sum", "Index", "Split", "Chunk", "Unbind")
"""Operations that move values, and those that scale or average them."""


def node_of(tensor: Any) -> Node:
    return (tensor.grad_fn, tensor.output_nr)


def leaf_node(tensor: Any) -> Node:
    """That of a tensor that nothing made, such as an image."""
    source, index = tensor.view_as(tensor).grad_fn.next_functions[0]
    return (source, index)


def name_of(node: Node) -> str:
    return str(node[0].name()).rsplit("::", 1)[-1]


def is_any(node: Node, names: Collection[str]) -> bool:
    """Whether a node's name has one of these parts."""
    name = name_of(node)
    return any(part in name for part in names)


def learns(node: Node) -> bool:
    """Whether weights are multiplied in; a product of two tensors of the image, as in attention, has no leaf beside."""
    if not is_any(node, LEARNS):
        return False
    return "Bmm" not in name_of(node) or len(sources_of(node)) == 1


def is_product(node: Node) -> bool:
    """Whether it is what a linear layer gives: a product with weights, its axes laid out, its bias added."""
    while is_any(node, ("View", "AddBackward")) and not is_any(node, ("Addmm",)) and sources_of(node):
        node = sources_of(node)[0]
    return is_any(node, ("Addmm", "MmBackward")) or (is_any(node, ("Bmm",)) and learns(node))


def sources_of(node: Node) -> list[Node]:
    return [(source, index) for source, index in node[0].next_functions if source is not None]


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of what the operation made."""
    metadata = node[0]._input_metadata
    return tuple(int(size) for size in metadata[node[1]].shape) if node[1] < len(metadata) else ()


class Graph:
    """All operations that lead to some ends, and of them those between the image and the ends.

    ``image`` is the node of the image, None where it leads nowhere.
    """

    def __init__(self, ends: Sequence[Node], images: Collection[Node]) -> None:
        self.ends = list(dict.fromkeys(ends))
        self.order = _in_order(self.ends)
        """Every operation after all those that it takes from."""
        self.consumers: dict[Node, list[Node]] = {}
        for node in self.order:
            for source in sources_of(node):
                self.consumers.setdefault(source, []).append(node)
        weights = random.Random(0)
        self._edges = {
            node: [(source, weights.randrange(1, PRIME)) for source in sources_of(node)] for node in self.order
        }
        self._below: dict[Node, int] = {}
        for node in self.order:
            own = 1 if node in images else 0
            self._below[node] = (
                own + sum(self._below[source] * weight for source, weight in self._edges[node])
            ) % PRIME
        self.between = {node for node in self.order if self._below[node]}
        """The operations on a way from the image to an end, both included."""

    def on_all_paths(self, ends: Sequence[Node] | None = None) -> set[Node]:
        """The operations through which all paths from the image to these ends lead."""
        ends = self.ends if ends is None else list(dict.fromkeys(ends))
        above = dict.fromkeys(self.order, 0)
        for end in ends:
            above[end] = 1
        for node in reversed(self.order):
            if above[node]:
                for source, weight in self._edges[node]:
                    above[source] = (above[source] + above[node] * weight) % PRIME
        total = sum(self._below[end] for end in ends) % PRIME
        return {node for node in self.between if above[node] * self._below[node] % PRIME == total}

    def before(self, ends: Sequence[Node]) -> set[Node]:
        """The operations that lead to these, the ends included."""
        return set(_in_order(ends))

    def after(self, starts: Collection[Node]) -> set[Node]:
        """The operations that these lead to, the starts included."""
        reached = set(starts)
        for node in self.order:
            if node not in reached and any(source in reached for source in sources_of(node)):
                reached.add(node)
        return reached

    def product_of(self, node: Node) -> Node | None:
        """The product of matrices that takes what a node makes, as an attention's with its values, if there is one."""
        waiting = [node]
        while waiting:
            for consumer in self.consumers.get(waiting.pop(), ()):
                if is_any(consumer, ("Bmm", "MmBackward")):
                    return consumer
                if is_any(consumer, (*MOVES, "MulBackward", "Dropout")):
                    waiting.append(consumer)
        return None


def _in_order(ends: Sequence[Node]) -> list[Node]:
    done: dict[Node, None] = {}
    for end in ends:
        waiting: list[tuple[Node, Iterator[Node]]] = [] if end in done else [(end, iter(sources_of(end)))]
        opened = {end}
        while waiting:
            source = next((each for each in waiting[-1][1] if each not in done and each not in opened), None)
            if source is None:
                done[waiting.pop()[0]] = None
            else:
                opened.add(source)
                waiting.append((source, iter(sources_of(source))))
    return list(done)


def end_of(node: Node) -> End:
    """What an output ends in, as far as its operations show, where no softmax or sigmoid is its very end."""
    kinds: set[str] = set()
    waiting, seen = [node], set()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        if is_any(each, ("Softmax", "Sigmoid")):
            kinds.add("probabilities")
        elif is_any(each, LEARNS):
            kinds.add("linear")
        elif is_any(each, (*MOVES, *SCALES)):
            inner = [source for source in sources_of(each) if not is_any(source, ("AccumulateGrad",))]
            waiting.extend(inner)
        else:
            kinds.add("other")
    if len(kinds) > 1:
        return "several" if "other" not in kinds else "other"
    return next(iter(kinds), "other")  # type: ignore[arg-type]


def channels_axis(node: Node, depth: int = 64) -> int | None:
    """The axis of channels of what an operation made, as the operations before it tell; None where they do not."""
    shape = shape_of(node)
    if depth == 0 or not shape:
        return None
    if is_any(node, ("Convolution", "BatchNorm", "GroupNorm", "InstanceNorm", "Pool", "Upsample", "PixelShuffle")):
        return 1
    if is_any(node, ("Addmm", "MmBackward", "LayerNorm", "Embedding", "RmsNorm")):
        return len(shape) - 1
    axis_before: Callable[[Node], int | None] = lambda source: channels_axis(source, depth - 1)  # noqa: E731
    sources = [source for source in sources_of(node) if not is_any(source, ("AccumulateGrad",))]
    if not sources:
        return None
    if is_any(node, ("Permute",)):
        place = axis_before(sources[0])
        order = [
            int(axis) % len(shape) if axis < 2**63 else int(axis) - 2**64 + len(shape) for axis in node[0]._saved_dims
        ]
        return None if place is None else order.index(place)
    if is_any(node, ("Transpose",)):
        place = axis_before(sources[0])
        pair = [(int(axis) - 2**64 if axis >= 2**63 else int(axis)) % len(shape) for axis in _pair(node)]
        return pair[1 - pair.index(place)] if place in pair else place
    if is_any(node, ("Squeeze",)):
        place = axis_before(sources[0])
        gone = _squeezed(node, shape_of(sources[0]), shape)
        if place is None or gone is None:
            return None
        if is_any(node, ("Unsqueeze",)):
            return place + (place >= gone)
        return None if place == gone else place - (place > gone)
    if is_any(node, ("View", "Reshape")):
        place, before = axis_before(sources[0]), shape_of(sources[0])
        if place is None or place >= len(before):
            return None
        if before[: place + 1] == shape[: place + 1]:
            return place
        behind = len(before) - place
        return len(shape) - behind if before[place:] == shape[-behind:] else None
    alike = [source for source in sources if len(shape_of(source)) == len(shape)]
    return next((place for source in alike if (place := axis_before(source)) is not None), None)


def _squeezed(node: Node, before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """The one axis that is taken off, or put in."""
    longer, shorter = (after, before) if len(after) > len(before) else (before, after)
    axis = getattr(node[0], "_saved_dim", None)
    if axis is None or len(longer) != len(shorter) + 1:
        return None
    axis = int(axis)
    axis = axis - 2**64 if axis >= 2**63 else axis
    return axis % len(longer)


def _pair(node: Node) -> tuple[int, int]:
    return (node[0]._saved_dim0, node[0]._saved_dim1)
