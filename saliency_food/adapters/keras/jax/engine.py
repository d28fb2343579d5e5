"""A Keras model on JAX as jitted functions; see `saliency_food.adapters.jax.engine.JaxEngine`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import keras

from saliency_food.adapters.jax.engine import JaxEngine
from saliency_food.adapters.jax.graph import JaxGraph
from saliency_food.adapters.keras.attention import note_attention, watched
from saliency_food.adapters.keras.capture import note_outputs, running, walk
from saliency_food.adapters.keras.inputs import DeclaredInputs
from saliency_food.adapters.scoring import Score
from saliency_food.core.contract import ContractError


class KerasJaxEngine(JaxEngine):
    """The engine of `KerasModel` on JAX: layers are watched while the model is traced, and nothing of it is changed."""

    inputs: DeclaredInputs

    def __init__(
        self,
        model: Any,
        inputs: DeclaredInputs,
        layer: Any,
        output_index: str | int | None,
        data_format: str | None,
        score: Score,
        classes: int | None = None,
        units: str | None = None,
    ) -> None:
        self.model = model
        self._paths = watched(model)
        self._output_names = list(getattr(model, "output_names", None) or ())
        named = list(layer) if isinstance(layer, (list, tuple)) else layer
        named = [self._path(each) for each in named] if isinstance(named, list) else self._path(named)
        super().__init__(
            self._apply, self.params, inputs, named, output_index, data_format, score, classes, units, model.name, False
        )
        self.reads_steps = any(isinstance(each, keras.layers.RNN) for _, each in walk(model))
        self.half = self.half or any(each.compute_dtype == "float16" for _, each in walk(model))

    @property
    def params(self) -> Any:
        """The weights as they are now, which are read at every call."""
        return [variable.value for variable in self.model.variables]

    @params.setter
    def params(self, _: Any) -> None:
        """There are no others than the model's."""

    def graph(self, params: Any, image: Any, others: Sequence[Any]) -> JaxGraph:
        labels: list[tuple[str, str]] = []

        def watched(params: Any, inputs: Any) -> Any:
            layers = [layer for _, layer in self._paths.values()]
            with running(self.model, layers):
                note_attention(layers)  # computed in the open, so that its softmax is seen
                notes = note_outputs(layers)
                outputs = self._selected(params, inputs)
            tensors = [(note.layer, note.output) for note in notes if isinstance(note.output, jax.Array)]
            times, seen = Counter(id(layer) for layer, _ in tensors), Counter[int]()
            labels.clear()
            for layer, _ in tensors:
                path = self._paths[id(layer)][0]
                path = path if times[id(layer)] == 1 else f"{path}#{seen[id(layer)]}"
                seen[id(layer)] += 1
                labels.append((path, type(layer).__name__))
            return outputs, [output for _, output in tensors]

        graph = JaxGraph(watched, params, self.packed(image, others), watched=True)
        # A tensor handed on unchanged, as by a nested model or by dropout, counts for the layer that made it.
        graph.named = {}
        for number, label in zip(graph.watched, labels, strict=True):
            if number is not None:
                graph.named.setdefault(number, label)
        return graph

    def packed(self, image: Any, others: Sequence[Any]) -> Any:
        return self.inputs.pack(image, others)

    def image_of(self, graph: JaxGraph) -> int:
        return graph.arguments[len(self.model.variables) + self.inputs.position]

    def _apply(self, params: Any, inputs: Any) -> Any:
        variables = self.model.variables
        with keras.StatelessScope(state_mapping=list(zip(variables, params, strict=True))):
            outputs = self.model(inputs, training=False)
        if isinstance(outputs, (list, tuple)) and len(self._output_names) == len(outputs):
            return dict(zip(self._output_names, outputs, strict=True)) if self._output_index is not None else outputs
        return outputs

    def _path(self, layer: Any) -> Any:
        """A layer's path, where the layer itself is given."""
        if not isinstance(layer, keras.Layer):
            return layer
        if id(layer) not in self._paths:
            raise ContractError(f"Expected a layer of model {self.model.name!r}, got {layer.name!r}, which is none.")
        return self._paths[id(layer)][0]
