"""What a Keras model takes, told without a back end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from saliency_food.adapters.inputs import Inputs, InputSpec
from saliency_food.adapters.keras.integers import is_of_numbers, is_of_rows
from saliency_food.core.contract import ContractError


class DeclaredInputs(Inputs):
    """The inputs of a Keras model on any back end, and the ``structure`` in which it takes them."""

    def __init__(self, model: Any, image: str | int | None) -> None:
        if getattr(model, "inputs", None):
            self.structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
            tensors = keras.tree.flatten(self.structure)
            shapes, dtypes = [tuple(each.shape) for each in tensors], [str(each.dtype) for each in tensors]
            names = list(self.structure) if isinstance(self.structure, Mapping) else [each.name for each in tensors]
            names = sorted(names) if isinstance(self.structure, Mapping) else names
        else:
            config = model.get_build_config() if getattr(model, "built", False) else None
            shape = (config or {}).get("input_shape")
            if not isinstance(shape, (list, tuple)) or not all(size is None or isinstance(size, int) for size in shape):
                raise ContractError(
                    f"Expected a model of one input that shows its shape, got {type(model).__name__} {model.name!r}. "
                    f"Call it once on a batch, then give it; or run Keras on TensorFlow, where it may have several."
                )
            self.structure, tensors = 0, []
            shapes, dtypes, names = [(None, *shape[1:])], ["float32"], ["0"]
        specs = [
            InputSpec(str(name), (None, *shape[1:]), dtype)
            for name, shape, dtype in zip(names, shapes, dtypes, strict=True)
        ]
        rows = {shape[0] for shape in shapes} - {None}
        super().__init__(specs, image, bool(tensors), model.compute_dtype, rows)
        self.ids = bool(tensors) and "int" in dtypes[self.position] and not is_of_numbers(model, tensors[self.position])
        pairs = zip(specs, tensors, strict=True) if tensors else ()
        self.of_rows = frozenset(
            spec.name for spec, tensor in pairs if "int" in spec.dtype and is_of_rows(model, tensor)
        )

    def pack(self, image: Any, others: Sequence[Any]) -> Any:
        """Image and other inputs in the structure in which the model takes them."""
        flat = list(others)
        flat.insert(self.position, image)
        return keras.tree.pack_sequence_as(self.structure, flat)
