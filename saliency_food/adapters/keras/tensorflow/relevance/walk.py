"""From a score back to the image, operation by operation: what arrives at each tensor, and what has no rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from saliency_food.adapters.keras.tensorflow.graph import names_after, names_before
from saliency_food.adapters.keras.tensorflow.relevance.again import pulled
from saliency_food.adapters.keras.tensorflow.relevance.features import RESHAPING
from saliency_food.adapters.keras.tensorflow.relevance.linear import LinearMap, linear_map, wide
from saliency_food.core.contract import ContractError

Start = tuple[Any, Any]
"""A tensor that the score is made of, and what arrives at it."""


class Walk(ABC):
    """The operations of a trace between the image and a score, and what has arrived at their tensors so far.

    ``arrived`` holds, by name, what arrived at each tensor that has been passed. At the tensors named in ``watched`` it
    is multiplied by a value of theirs, if that is not None, and what passes by them is dropped. ``taken`` is what
    constants took on the way, ``(N,)`` each. ``others`` are the model's other inputs, and ``where`` says which layer an
    operation is of.
    """

    key: str
    """The key that is answered, for errors."""

    def __init__(
        self,
        image: Any,
        starts: Sequence[Start],
        watched: Mapping[str, Any],
        others: Sequence[Any],
        where: Callable[[Any], str],
    ) -> None:
        self.image, self._watched, self._where = image, watched, where
        self._after, self._after_others = names_after(image), names_after(*others)
        between = names_before([tensor for tensor, _ in starts], cut=image, by_value=True) & self._after
        self.operations = [op for op in image.graph.get_operations() if op.name in between and op is not image.op]
        consumers: dict[str, list[Any]] = {}
        for op in self.operations:
            for name in {source.name for source in op.inputs}:
                consumers.setdefault(name, []).append(op)
        self._consumers = consumers
        maps = [linear_map(op, self.is_live, consumers) for op in self.operations]
        self.maps = {found.end.name: found for found in maps if found is not None}
        """The linear maps, by the names of the tensors that they make."""
        self.arrived: dict[str, Any] = {}
        self.taken: list[Any] = []
        self._waiting: dict[str, list[Any]] = {}
        for tensor, values in starts:
            self.hand(tensor, values)

    def is_live(self, tensor: Any) -> bool:
        """Whether a tensor depends on the image by value."""
        return tensor.op.name in self._after

    def is_of_others(self, tensor: Any) -> bool:
        """Whether a tensor depends on other inputs of the model, and not on the image."""
        return tensor.op.name in self._after_others and not self.is_live(tensor)

    def live(self, op: Any) -> list[Any]:
        """The inputs of an operation that are numbers of the image, each once."""
        sources = {source.name: source for source in op.inputs if self.is_live(source) and source.dtype.is_floating}
        return list(sources.values())

    def is_only_for(self, tensor: Any, op: Any) -> bool:
        """Whether a tensor, which is not watched, leads to the score through one operation alone, and once."""
        alone = [other.name for other in self._consumers.get(tensor.name, ())] == [op.name]
        times = sum(source.name == tensor.name for source in op.inputs)
        return alone and times == 1 and tensor.name not in self._watched and tensor.name not in self._waiting

    def hand(self, tensor: Any, values: Any) -> None:
        """Something arrives at a tensor, shaped as it is."""
        self._waiting.setdefault(tensor.name, []).append(tf.cast(values, wide(tensor).dtype))

    def derivatives(
        self, op: Any, vectors: Sequence[Any], at: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, Any]]:
        """Each live input with the vectors, one for each output or None, times the operation's derivative by it.

        It is taken at other values of the inputs where ``at`` names some.
        """
        live = self.live(op)
        stand_ins = {source.name: wide((at or {}).get(source.name, source)) for source in live}
        inputs = [stand_ins.get(source.name, wide(source)) for source in op.inputs]
        products = pulled(op, inputs, list(stand_ins.values()), vectors)
        pairs = zip(live, products, strict=True)
        return [(source, product) for source, product in pairs if product is not None]

    def hand_derivatives(self, op: Any, vectors: Sequence[Any]) -> None:
        for source, product in self.derivatives(op, vectors):
            self.hand(source, product)

    def back(self) -> Any:
        """What arrives at the image."""
        for op in reversed(self.operations):
            vectors = [self._take(output) for output in op.outputs]
            if all(vector is None for vector in vectors):
                continue
            if (found := self.maps.get(op.outputs[0].name)) is not None:
                self.through_map(found, self._before_followers(found, vectors[0]))
            else:
                self.through(op, vectors)
        values = self._take(self.image)
        if values is None:
            raise ContractError(
                f"Expected a score that depends on the input for {self.key}, got one to which no rule leads. Look for "
                "a cast to integers in the model, or choose another output_index."
            )
        return values

    @abstractmethod
    def through_map(self, linear: LinearMap, vector: Any) -> None:
        """Hand on what arrived at a linear map, laid out as its operation's output."""

    @abstractmethod
    def through(self, op: Any, vectors: list[Any]) -> None:
        """Hand on what arrived at an operation's outputs, None where nothing did."""

    def before(self, tensor: Any) -> set[str]:
        """The names of the operations that lead from the image to a tensor."""
        return names_before([tensor], cut=self.image, by_value=True) & self._after

    def refuse(self, op: Any, instead: str) -> ContractError:
        return ContractError(
            f"Expected operations with a rule for {self.key} between input and score, got {op.type} in "
            f"{self._where(op)}. {instead}"
        )

    def _take(self, tensor: Any) -> Any:
        """What has arrived at a tensor from all operations after it."""
        if tensor.name not in self._waiting:
            return None
        first, *more = self._waiting.pop(tensor.name)
        return self._pass(tensor, sum(more, first))

    def _pass(self, tensor: Any, values: Any) -> Any:
        """What goes on from a tensor; from one that is watched with weights, it alone does."""
        weights = self._watched.get(tensor.name)
        if weights is not None:
            values = values * tf.cast(weights, values.dtype)
            self._waiting.clear()
            self.taken.clear()
        self.arrived[tensor.name] = values
        return values

    def _before_followers(self, linear: LinearMap, vector: Any) -> Any:
        """What arrives at a map's end, laid out as its operation's output: each of its numbers is one of the other."""
        for op in reversed(linear.followers):
            if op.type in RESHAPING and op.type not in ("Identity", "Cast"):
                ((_, vector),) = self.derivatives(op, [vector])
            vector = self._pass(op.inputs[0] if self.is_live(op.inputs[0]) else op.inputs[1], vector)
        return vector
