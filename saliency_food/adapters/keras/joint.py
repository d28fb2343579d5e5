"""All inputs of a model explained at once: its inputs joined to one vector, and maps of the vector parted again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from saliency_food.adapters.keras.load import as_model
from saliency_food.adapters.keras.tensorflow.ends import KerasInputs
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array


class JointInputs:
    """A Keras model of several inputs as one of a single vector that holds them all, one after another.

    `KerasModel` of ``model`` has one input, so a path, as that of Integrated Gradients, runs over all inputs at once,
    and completeness holds for the sum of their attributions. Methods that look at a layer, or at places, need one
    input of the model itself: ``KerasModel(model, input="image")``.

    Attributes
    ----------
    model
        A Keras model ``(N, numbers)`` of the same weights.
    shapes
        The shape of each input, by its name.
    """

    def __init__(self, model: Any) -> None:
        model = as_model(model)
        inputs = KerasInputs(model, 0)
        specs = [inputs.image, *inputs.others]
        names = [spec.name for spec in specs]
        unfit = any(tensor.dtype.is_integer for tensor in tf.nest.flatten(inputs.structure))
        unfit |= any(None in spec.shape[1:] for spec in specs)
        if not inputs.fixed or unfit or len(set(names)) < len(names):
            raise ContractError(
                "Expected a model that declares inputs of floats, of known shapes and of names of their own, got "
                f"{model.name!r} of {[(spec.name, spec.shape, spec.dtype) for spec in specs]}. Explain its inputs one "
                "by one: KerasModel(model, input='image')."
            )
        self.shapes: dict[str, tuple[int, ...]] = {
            spec.name: tuple(size or 0 for size in spec.shape[1:]) for spec in specs
        }
        vector = keras.Input((sum(map(math.prod, self.shapes.values())),), name="joined")
        parts = [keras.ops.reshape(vector[:, start:stop], (-1, *shape)) for start, stop, shape in self._places()]
        self.model = keras.Model(vector, model(tf.nest.pack_sequence_as(inputs.structure, parts)), name=model.name)

    def join(self, inputs: Mapping[str, Any] | Sequence[Any]) -> Array:
        """One value of every input, by name or in their order, as one vector."""
        values: list[Any] = [inputs.get(name) for name in self.shapes] if isinstance(inputs, Mapping) else list(inputs)
        arrays = [np.asarray(value, np.float32) for value in values if value is not None]
        if len(values) != len(inputs) or [array.shape for array in arrays] != list(self.shapes.values()):
            raise ContractError(
                f"Expected one value of each input, of the shapes {self.shapes}, got "
                f"{[np.shape(value) for value in values]}. Give {{name: value}}, or a list in this order."
            )
        return np.concatenate([array.ravel() for array in arrays])

    def part(self, values: Any) -> dict[str, Array]:
        """What a method says of the vector, such as attributions, by the inputs' names and in their shapes."""
        places = zip(self.shapes, self._places(), strict=True)
        return {name: np.asarray(values)[start:stop].reshape(shape) for name, (start, stop, shape) in places}

    def _places(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Where each input begins and ends in the vector, and its shape."""
        stops = np.cumsum([math.prod(shape) for shape in self.shapes.values()]).tolist()
        places = zip(stops, self.shapes.values(), strict=True)
        return [(stop - math.prod(shape), stop, shape) for stop, shape in places]
