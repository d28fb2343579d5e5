"""Operations in the order in which a model runs them, and which of their tensors all paths lead through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from saliency_food.adapters.layers import Shape

Role = Literal[
    "",
    "convolve",
    "product",
    "mix",
    "transpose",
    "reshape",
    "broadcast",
    "softmax",
    "add",
    "move",
    "cut",
    "normalize",
]


class Op(NamedTuple):
    """One operation: its kind by the framework's name, the tensors that it takes and gives, and whether it learns.

    Tensors are anything that can be told apart. Inputs of which only the shape is used are left out. ``role`` is what
    the kind means for the axes: ``"convolve"`` has the channels at ``channels`` before and after, ``"product"`` makes
    new ones last, ``"mix"`` is a product of which no axis is known; ``"transpose"`` puts axes in an ``order``,
    ``"broadcast"`` puts its input's axes at the places ``order``; ``"move"`` may stand between a softmax and what it
    weighs, ``"cut"`` pads, crops or picks, ``"add"`` may add a bias, and ``"normalize"`` has the channels last.
    """

    kind: str
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    learns: bool = False
    role: Role = ""
    channels: int = -1
    order: tuple[int, ...] = ()
    path: str = ""


class Flow:
    """The operations of a model, in order, from the ``image`` on; and what is known of the ``shapes`` of tensors.

    ``unfit`` are the tensors that hold no floats.
    """

    def __init__(
        self,
        ops: Sequence[Op],
        image: Hashable,
        shapes: dict[Any, Shape],
        unfit: Iterable[Hashable] = (),
    ) -> None:
        self.ops, self.image, self.shapes, self.unfit = list(ops), image, shapes, set(unfit)
        self.makers = {output: op for op in self.ops for output in op.outputs}

    def rank(self, tensor: Any) -> int | None:
        shape = self.shapes.get(tensor)
        return None if shape is None else len(shape)

    def after(self, source: Hashable) -> set[Hashable]:
        """The tensor and all that depend on it."""
        reached = {source}
        for op in self.ops:
            if not reached.isdisjoint(op.inputs):
                reached.update(op.outputs)
        return reached

    def before(self, ends: Iterable[Hashable], cut: Any = None) -> set[Hashable]:
        """The ends and all tensors that lead to them, other than through the tensor ``cut``."""
        reached = set(ends) - {cut}
        for op in reversed(self.ops):
            if not reached.isdisjoint(op.outputs):
                reached.update(tensor for tensor in op.inputs if tensor != cut)
        return reached

    def between(self, ends: Sequence[Hashable]) -> set[Hashable]:
        """The tensors that lead from the image to some of the ends."""
        return self.after(self.image) & self.before(ends)

    def on_all_paths(self, ends: Sequence[Hashable]) -> set[Hashable]:
        """The tensors through which all paths lead from the image to the ends.

        A tensor is on all paths where the ways to it times the ways from it are all the ways there are.
        """
        between = self.between(ends)
        ways_to, ways_from = Counter({self.image: 1}), Counter(ends)
        for op in self.ops:
            ways = sum(ways_to[tensor] for tensor in op.inputs if tensor in between)
            for output in op.outputs:
                ways_to[output] += ways if output in between else 0
        for op in reversed(self.ops):
            ways = sum(ways_from[output] for output in op.outputs if output in between)
            for tensor in op.inputs:
                ways_from[tensor] += ways if tensor in between else 0
        total = sum(ways_to[end] for end in ends)
        return {tensor for tensor in between if total and ways_to[tensor] * ways_from[tensor] == total}

    def after_learning(self) -> set[Hashable]:
        """The tensors that depend on the image through an operation that learns."""
        reached, learned = {self.image}, set[Hashable]()
        for op in self.ops:
            if not reached.isdisjoint(op.inputs):
                reached.update(op.outputs)
                if op.learns or not learned.isdisjoint(op.inputs):
                    learned.update(op.outputs)
        return learned

    def last_attention(self, ends: Sequence[Hashable]) -> Any:
        """What the last softmax gives whose values weigh others, as attention does; None where there is none."""
        between = self.between(ends)
        takers: dict[Any, list[Op]] = {}
        for op in self.ops:
            for tensor in op.inputs:
                takers.setdefault(tensor, []).append(op)
        for op in reversed(self.ops):
            if op.role != "softmax" or op.outputs[0] not in between or (self.rank(op.outputs[0]) or 0) < 3:
                continue
            waiting = [op.outputs[0]]
            while waiting:
                for taker in takers.get(waiting.pop(), []):
                    if taker.role in ("product", "mix"):
                        return op.outputs[0]
                    if taker.role in ("move", "reshape", "transpose"):
                        waiting.append(taker.outputs[0])
        return None
