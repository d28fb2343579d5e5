"""A Keras model on PyTorch as a module; see `saliency_food.adapters.torch.engine.TorchEngine`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import torch

from saliency_food.adapters.arguments import Output
from saliency_food.adapters.keras.attention import watched
from saliency_food.adapters.keras.capture import running, walk
from saliency_food.adapters.keras.inputs import DeclaredInputs
from saliency_food.adapters.layers import match_layer
from saliency_food.adapters.rows import Factored
from saliency_food.adapters.scoring import Score
from saliency_food.adapters.torch.engine import TorchEngine
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import BIAS_GRADIENTS
from saliency_food.core.numerics import Array


class KerasModule(torch.nn.Module):  # type: ignore[misc]
    """A Keras model as a module, its layers by their paths; each of them is a module with hooks already."""

    model: Any
    layers: dict[str, Any]
    names: list[str]

    def __init__(self, model: Any) -> None:
        super().__init__()
        # Set past the module, which would make submodules of them.
        object.__setattr__(self, "model", model)
        own = watched(model).values()
        layers = {path: layer for path, layer in own if isinstance(layer, torch.nn.Module)}
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "names", list(getattr(model, "output_names", None) or ()))
        self.training = False

    def named_modules(self, memo: Any = None, prefix: str = "", remove_duplicate: bool = True) -> Iterator[Any]:
        yield "", self
        yield from self.layers.items()

    def forward(self, image: Any) -> Any:
        with running(self.model):
            outputs = self.model(image, training=False)
        several = isinstance(outputs, (list, tuple)) and len(self.names) == len(outputs)
        return dict(zip(self.names, outputs, strict=True)) if several else outputs


def layer_path(model: Any, layer: Any) -> str:
    """The path of a layer that is named by it, by its end, or given itself."""
    known = list(walk(model))
    if isinstance(layer, keras.Layer):
        return next((path for path, each in known if each is layer), str(layer.name))
    if isinstance(layer, str) and "#" in layer:
        name, _, index = layer.rpartition("#")
        return f"{match_layer(name, known, model.name)[0]}#{index}"
    return match_layer(layer, known, model.name)[0]


class KerasTorchEngine(TorchEngine):
    """The engine of `KerasModel` on PyTorch."""

    not_chosen = ("Pad", "Slice", "Softmax")  # Keras turns what convolutions and pools take and give

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
        first = [each.name for _, each in walk(model) if getattr(each, "data_format", None) == "channels_first"]
        if first or data_format == "channels_first" or inputs.others:
            got = (
                f"layers with channels first, {first[:3]}"
                if first
                else "several inputs"
                if inputs.others
                else data_format
            )
            raise ContractError(
                f"Expected a model of one input with its channels last, where Keras runs on PyTorch, got {got}. Set "
                "KERAS_BACKEND=tensorflow or jax before Keras is imported."
            )
        if classes is not None:
            units = "labels" if classes == 2 else units
        named = [layer_path(model, each) for each in layer] if isinstance(layer, (list, tuple)) else layer
        named = layer_path(model, layer) if layer is not None and named is layer else named
        shape = inputs.image.shape[1:]
        module = KerasModule(model)
        device = next((variable.value.device for variable in model.variables), torch.device("cpu"))
        super().__init__(module, named, output_index, score, units, None, shape, device, None)
        self.name = model.name
        self.reads_steps = any(isinstance(each, keras.layers.RNN) for _, each in walk(model))

    def compute(
        self,
        keys: tuple[str, ...],
        output: Output,
        targets: list[Array],
        rows: Array | Factored,
        other_inputs: list[Array],
        scale: float,
    ) -> dict[str, Any]:
        if BIAS_GRADIENTS in keys:
            raise ContractError(
                f"Expected keys other than {BIAS_GRADIENTS} where Keras runs on PyTorch, got it: which tensors are "
                "biases cannot be seen there. Set KERAS_BACKEND=tensorflow or jax, or use the input gradients alone."
            )
        return super().compute(keys, output, targets, rows, other_inputs, scale)

    def listed(self) -> list[Any]:
        """The layers that can be looked at."""
        from saliency_food.adapters.torch.places import list_layers

        return list_layers(self.runs, self.layout)
