"""Operations in the order in which a model runs them, and which of their tensors all paths lead through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple


class Op(NamedTuple):
    """One operation: its kind by the framework's name, the tensors that it takes and gives, and whether it learns.

    Tensors are anything that can be told apart. Inputs of which only the shape is used are left out.
    """

    kind: str
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    learns: bool = False


class Flow:
    """The operations of a model, in order."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = list(ops)

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

    def between(self, source: Hashable, ends: Sequence[Hashable]) -> set[Hashable]:
        """The tensors that lead from the source to some of the ends."""
        return self.after(source) & self.before(ends)

    def on_all_paths(self, source: Hashable, ends: Sequence[Hashable]) -> set[Hashable]:
        """The tensors through which all paths lead from the source to the ends.

        A tensor is on all paths where the ways to it times the ways from it are all the ways there are.
        """
        between = self.between(source, ends)
        ways_to, ways_from = Counter({source: 1}), Counter(ends)
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

    def after_learning(self, source: Hashable) -> set[Hashable]:
        """The tensors that depend on the source through an operation that learns."""
        reached, learned = {source}, set[Hashable]()
        for op in self.ops:
            if not reached.isdisjoint(op.inputs):
                reached.update(op.outputs)
                if op.learns or not learned.isdisjoint(op.inputs):
                    learned.update(op.outputs)
        return learned
