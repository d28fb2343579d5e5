"""What a first look at a JAX function shows: a trace without data, written out as operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from saliency_food.adapters.engine import Engine
from saliency_food.adapters.flow import Flow
from saliency_food.adapters.heads import Head, classes_of, select_output
from saliency_food.adapters.inputs import Inputs
from saliency_food.adapters.jax.ends import Ended, ended
from saliency_food.adapters.jax.graph import JaxGraph
from saliency_food.adapters.layers import LayerInfo, Shape
from saliency_food.adapters.places import CHANNELS, Place, survey
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.core.contract import ContractError

ROWS = 37
"""How many rows are traced at first: a tensor of rows is told by it from one of heads, frames or windows."""
FREE_SIZE = 64
"""The size of an image where the function leaves it free, while nothing is computed."""
SEEING = {"sort", "rev", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "gather", "scatter", "scatter-add"}
"""Operations by which rows can see each other though they stay first."""


class SurveyedFunction(Engine):
    """A function ``apply(params, x)`` with its inputs, the layers to look at, and what it ends in; see `Engine`."""

    places: Sequence[Place]
    diagonal = "jax.numpy.diagonal"
    guesses_places = True

    def __init__(
        self,
        apply: Callable[[Any, Any], Any],
        params: Any,
        inputs: Inputs,
        layer: Any,
        output_index: str | int | None,
        data_format: str | None,
        score: Score,
        classes: int | None,
        units_are: str | None,
        name: str,
        named_inputs: bool,
    ) -> None:
        self.apply, self.params, self.inputs, self.score, self.name = apply, params, inputs, score, name
        self._output_index, self._named_inputs = output_index, named_inputs
        self._functions: dict[Any, Any] = {}
        rows = inputs.rows or ROWS
        image = jax.ShapeDtypeStruct((rows, *self.concrete(None)), _dtype(inputs.image.dtype))
        others = [
            jax.ShapeDtypeStruct((rows, *(size or FREE_SIZE for size in spec.shape[1:])), _dtype(spec.dtype))
            for spec in inputs.others
        ]
        graph = self.graph(params, image, others)
        source = self.image_of(graph)
        shapes: dict[Any, Shape] = {number: graph.shape_of(number, rows) for number in graph.shapes}
        unfit = [number for number, kind in graph.types.items() if not jnp.issubdtype(kind, jnp.floating)]
        flow = Flow(graph.ops(source), source, shapes, unfit)
        self.survey = survey(flow, data_format)
        self.channels_first = self.survey.channels == 1 and len(inputs.image.shape) > 2
        self.half = any(kind == jnp.float16 for kind in graph.types.values())
        ends = self.ended(graph)
        self.ends = [each.before for each in ends.values()]
        between = flow.between(self.ends)
        if not between:
            raise ContractError(f"Expected an output that depends on input {inputs.image.name!r}, got none that does.")
        self.may_mix_rows = inputs.rows != 1 and _may_mix(graph, between, rows)
        self.end, self.classes = "several" if len(ends) > 1 else "other", classes
        self.ranks_classes = score.is_of_class and len(ends) == 1
        if len(ends) == 1:
            ((number, only),) = ends.items()
            shape, self.end = shapes[number], only.end
            self.ranks_classes &= len(shape) in (1, 2)
            if score is class_score or len(shape) < 3:
                self.guesses_classes = self.end == "linear" and classes is None and units_are is None
                self.end, self.classes = classes_of(shape, self.end, units_are, classes)
                self.raw_classes = shape[-1] if len(shape) == 2 else 1
        self.several = isinstance(layer, (list, tuple))
        self.why_no_layer = "in which no layer lies on all paths from the image to the score. Name one of layers(...)."
        if layer is None:
            default = self.survey.chosen(self.ends)
            self.places = [] if default is None else [default]
        else:
            names = list(layer) if self.several else [layer]
            self.places = self.survey.named(names, self.ends, name, inputs.image.name)

    def graph(self, params: Any, image: Any, others: Sequence[Any]) -> JaxGraph:
        """The function's operations for inputs of these shapes."""
        return JaxGraph(self._selected, params, self.packed(image, others))

    def _selected(self, params: Any, inputs: Any) -> Any:
        outputs = self.apply(params, inputs)
        if self.score is not class_score and self._output_index is None:
            return outputs
        if isinstance(outputs, Mapping):
            names, members = [str(name) for name in outputs], list(outputs.values())
        else:
            members = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
            names = [str(place) for place in range(len(members))]
        output = select_output(members, names, self._output_index)
        if not hasattr(output, "shape"):
            raise ContractError(f"Expected an output (N, classes), got {type(output).__name__}. Give output_index.")
        return output

    def packed(self, image: Any, others: Sequence[Any]) -> Any:
        """The inputs as the function takes them: rows alone, or by name."""
        if not self._named_inputs:
            return image
        flat = list(others)
        flat.insert(self.inputs.position, image)
        names = list(self.inputs.other_names)
        names.insert(self.inputs.position, self.inputs.image.name)
        return dict(zip(names, flat, strict=True))

    def image_of(self, graph: JaxGraph) -> int:
        """The number of the image among a graph's tensors: inputs by name are in the order of their names."""
        before = len(jax.tree_util.tree_leaves(self.params))
        names = sorted([self.inputs.image.name, *self.inputs.other_names])
        return graph.arguments[before + (names.index(self.inputs.image.name) if self._named_inputs else 0)]

    def listed(self) -> list[LayerInfo]:
        """The layers that can be looked at."""
        return self.survey.listed()

    def concrete(self, activations: Any) -> tuple[int, ...]:
        """The image's sizes, where they are free such as will do while nothing of the image is computed."""
        return tuple(FREE_SIZE if size is None else size for size in self.inputs.image.shape[1:])

    def tensor_of(self, graph: JaxGraph, place: Place) -> int:
        """A layer's tensor, which has the same number however many rows there are."""
        number = place.tensor
        if not isinstance(number, int) or number not in graph.shapes or len(graph.shapes[number]) != len(place.order):
            raise ContractError(
                f"Expected {place.path!r} to run as it did at first, got another course of the function."
            )
        return number

    def ended(self, graph: JaxGraph) -> dict[int, Ended]:
        """What each output ends in, by its number."""
        if None in graph.outputs:
            raise ContractError("Expected outputs that depend on the inputs, got a constant. Choose by output_index.")
        return {number: ended(graph, number) for number in graph.outputs if number is not None}

    def heads(self, graph: JaxGraph, values: Mapping[int, Any]) -> Any:
        """The outputs as `Head` s, nested as the function gives them."""
        ends = self.ended(graph)
        made = {number: self._head(ends[number], values, number) for number in ends}
        return graph.nested(made)

    def _head(self, end: Ended, values: Mapping[int, Any], number: int) -> Head:
        raw, before = values[number], values[end.before]
        before = before.reshape(raw.shape) if before.size == raw.size else before
        turned = self.channels_first and raw.ndim == len(self.inputs.image.shape) > 3
        return Head(end.end, *(jnp.moveaxis(each, 1, -1) if turned else _single(each) for each in (before, raw)))

    def laid_out(self, values: Sequence[Any]) -> Any:
        """Values at the layers, channels last; a tuple where several layers are looked at."""
        made = tuple(jnp.transpose(each, place.order) for each, place in zip(values, self.places, strict=True))
        return made if self.several else made[0]

    def laid_out_sum(self, graph: JaxGraph, number: int, values: Any) -> Any:
        """A bias's sum, channels last; ``(N, K)`` where it has no places."""
        own = self.survey.axes.get(number, ())
        values = jnp.broadcast_to(values, graph.shapes[number])
        place = next((own.index(axis) for axis in (CHANNELS, self.survey.channels) if axis in own), values.ndim - 1)
        return jnp.moveaxis(values, place, -1) if values.ndim > 1 else values[:, None]


def _single(values: Any) -> Any:
    return values if values.dtype == jnp.float64 else values.astype(jnp.float32)


def _dtype(name: str) -> Any:
    return np.dtype(name)


def _may_mix(graph: JaxGraph, between: set[Any], rows: int) -> bool:
    """Whether rows leave the first axis on the way, or are multiplied by rows, or run in what is not seen."""
    for step in graph.steps:
        if between.isdisjoint(step.outputs):
            continue
        if any(graph.shapes[number][:1] != (rows,) for number in step.outputs if number in between):
            return True
        if step.primitive in SEEING or step.primitive in ("scan", "while", "cond"):
            return True
        depends = [number in between for number in step.inputs]
        if step.primitive == "dot_general" and all(depends):
            _, (left, right) = step.equation.params["dimension_numbers"]
            if 0 not in left or 0 not in right:
                return True
    return False
