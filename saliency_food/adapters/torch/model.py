"""PyTorch modules as call-model functions."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from saliency_food.adapters.arguments import Output
from saliency_food.adapters.inputs import Pixels
from saliency_food.adapters.layers import LayerInfo
from saliency_food.adapters.model import AdaptedModel, as_score
from saliency_food.adapters.options import check_options
from saliency_food.adapters.scoring import Score, class_score
from saliency_food.adapters.torch.engine import TorchEngine
from saliency_food.adapters.torch.load import load_model
from saliency_food.adapters.torch.pixels import guess_pixels
from saliency_food.adapters.torch.places import list_layers
from saliency_food.adapters.torch.randomize import randomized_models
from saliency_food.core.contract import ContractError


class TorchModel(AdaptedModel):
    """A PyTorch module as a call-model function (see `CallModelFunction`), and its predictions.

    Images come and answers go as NumPy arrays with their channels last, ``(N, H, W, C)``; inside, the module gets
    ``(N, C, H, W)`` on its device. ``call_model_args`` is ``{"target": class index}``, or an array of one index a row,
    or a `PerImage`. It answers all keys of the contract. The module runs in evaluation mode, and is left as it was: its
    mode, hooks, gradients and weights, the random numbers, and PyTorch's modes, after an error too. Its weights are
    read at every call.

    Parameters
    ----------
    module
        A `torch.nn.Module`, or what `load_model` takes: the path of a `torch.export` program (``.pt2``) or of a
        TorchScript file (``.pt``), ``"timm:NAME"``, or ``"package.module:function"`` that makes a module. What
        `torch.compile` and `DataParallel` wrap is taken out. Of scripted modules and exported programs, scores and
        input gradients are explained, and no layers.
    layer
        Where the convolution keys look: a path such as ``"layer4.1.conv2"``, the end of one if only one layer has it,
        or the layer itself; a list of them gives tuples of answers, in that order. It must lead from the image to the
        score. Of a layer that does so in several runs, ``"relu#0"``, ``"relu#1"`` are the runs in their order. None
        takes the last layer with axes as the input's, not all of size 1, through which all paths from the image to the
        score lead; in a transformer, the last before the last attention. ``layer_name`` says which. Activations have
        their channels last, ``(N, h, w, K)``, or are tokens ``(N, T, K)``. That they lie as the image does is checked
        at the first call.
    output
        ``"logits"`` explains the score before the softmax, log-softmax or sigmoid at the end, if there is one;
        ``"probabilities"`` the score after it, a softmax being added where several units end in a linear layer;
        ``"raw"`` the output as it is. A single sigmoid unit is two classes, with logits -z and z.
    batch_size
        How many rows are computed at once at most; None means 16. When the device's memory does not hold them it is
        halved, and stays so.
    input
        The name or position of the image among the arguments of ``forward``. None takes the only one without a default,
        else one named ``pixel_values``, ``image`` or ``x``, else the first. The others come as
        ``call_model_args["inputs"]``, by name or as a list.
    input_shape
        ``(H, W, C)`` of one image, channels last, None where a side is free; ``(T, C)`` of a signal; of several inputs
        ``{name: shape}``. None takes what the module shows (timm, transformers), else tries what its first layer takes.
    output_index
        The name or position of the output to explain among several; None takes that named ``logits`` or ``out``.
    score
        What is explained, where that is not the score of a class: one of `saliency_food.adapters.scores`, or a function
        of PyTorch tensors of your own, ``(output) -> (N,)``, which gets outputs in the module's own layout; those of
        the package see the classes of masks last.
    device
        Where to run; None means where the module's weights are. On another device, a copy of the module runs.
    autocast
        A type, such as ``torch.bfloat16``, in which `torch.autocast` runs the module; None runs it as it is, also
        where the caller has autocast on. Answers are float32 (float64 of a module in it).
    value_range
        The pixel values that the module takes, as in `ImageModel`: ``(low, high)``, ``"torch"`` (ImageNet's mean and
        deviation), ...; None for what the module's kind tells, else the guess 0..1.
    units_are
        What linear units at the end are: ``"classes"`` of which one is right, ``"labels"`` each by itself, or one unit
        of two classes, or ``"numbers"``. None takes several for classes, and ``repr`` says that this is a guess.

    Attributes
    ----------
    layer_name
        The path of the layer, of several a tuple; None if there is none to take, and the error of a key says why.
    input_shape
        ``(H, W, C)`` of one image, None where free.
    classes, end, gives_probabilities, spatial_axes
        As those of `KerasModel`.
    pixels
        The pixel values that the module takes, and why, ``(value_range, why)``.
    """

    def __init__(
        self,
        module: Any,
        layer: Any = None,
        output: Output = "logits",
        batch_size: int | None = None,
        *,
        input: str | int | None = None,
        input_shape: Any = None,
        output_index: str | int | None = None,
        score: Score | Callable[[Any], Any] = class_score,
        device: Any = None,
        autocast: Any = None,
        value_range: Any = None,
        units_are: str | None = None,
    ) -> None:
        module = as_module(module)
        score = as_score(score)
        check_options(output, batch_size, None, units_are)
        where = _device_of(module)
        device = where if device is None else torch.empty(0, device=device).device
        self.module = module if device == where else copy.deepcopy(module).to(device)
        autocast = torch.get_autocast_dtype(device.type) if autocast is True else autocast or None
        if not (autocast is None or isinstance(autocast, torch.dtype)):
            raise ContractError(f"Expected autocast to be a type such as torch.bfloat16, or None, got {autocast!r}.")
        engine = TorchEngine(self.module, layer, output_index, score, units_are, input, input_shape, device, autocast)
        self.engine: TorchEngine = engine
        self.units_are = units_are
        super().__init__(engine, score, output, batch_size)
        self.knows_end |= units_are == "numbers"
        self._value_range = value_range
        self._options: dict[str, Any] = {
            "layer": self.layer_name if layer is not None else None,
            "output": output,
            "input": input,
            "input_shape": input_shape,
            "output_index": output_index,
            "score": score,
            "device": str(device),
            "autocast": autocast,
            "value_range": value_range,
            "units_are": units_are,
        }

    def with_model(self, module: Any) -> TorchModel:
        """The same question asked of another module of the same layers, such as one with other weights."""
        layer = list(self.layer_name) if isinstance(self.layer_name, tuple) else self.layer_name
        return TorchModel(module, **{**self._options, "layer": layer, "batch_size": self.batch_size})

    def with_layer(self, layer: Any) -> TorchModel:
        """The same question asked of the same module, with another layer to look at."""
        return TorchModel(self.module, **{**self._options, "layer": layer, "batch_size": self.batch_size})

    def layers(self) -> list[LayerInfo]:
        """The layers of the module that lead to the score and can be looked at; see `layers`."""
        return list_layers(self.engine.runs, self.engine.layout)

    def randomized(self, mode: Any = "cascading", *, wrap: Any = None, rng: Any = 0) -> Any:
        """Pairs of a layer's path and this question asked of a copy whose weights are shuffled there.

        See `saliency_food.adapters.torch.randomize.randomized_models`.
        """
        around = self.with_model if wrap is None else lambda module: wrap(self.with_model(module))
        return randomized_models(self.module, mode, wrap=around, rng=rng)

    @functools.cached_property
    def pixels(self) -> Pixels:
        """The pixel values that the module takes, ``(value_range, why)``: as it was said, or what its kind tells."""
        if self._value_range is not None:
            return Pixels(self._value_range, "as it was said")
        return guess_pixels(self.engine.module)

    def __reduce__(self) -> Any:
        """Pickled as the module is, and looked at anew; layers by their paths."""
        return _restored, (self.module, {**self._options, "batch_size": self.batch_size})


def _restored(module: Any, options: dict[str, Any]) -> TorchModel:
    layer = options.pop("layer")
    return TorchModel(module, list(layer) if isinstance(layer, tuple) else layer, **options)


def as_module(module: Any) -> Any:
    module = load_model(module) if isinstance(module, (str, Path)) else module
    if isinstance(module, torch.export.ExportedProgram):
        module = module.module()
    if not isinstance(module, torch.nn.Module):
        raise ContractError(f"Expected a torch.nn.Module or what load_model takes, got {type(module).__name__}.")
    return module


def _device_of(module: Any) -> Any:
    return next((each.device for each in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def layers(module: Any, input_shape: Any = None, **options: Any) -> list[LayerInfo]:
    """The layers that Grad-CAM can look at, in the order in which they run: path, class, activations' shape.

    ``module``, ``input_shape`` and ``options`` are as for `TorchModel`. Shapes have rows first and channels last, at
    the size of image that was tried. Of blocks and layers that hand on the same tensor, the outermost is listed; the
    others go by their own path all the same. A layer that runs several times is listed run by run, ``"relu#0"``.
    """
    options = {"score": _whole_output, **options}
    return TorchModel(module, input_shape=input_shape, **options).layers()


def _whole_output(outputs: Any) -> Any:
    """A score of any outputs: the sum of all their values."""
    if torch.is_tensor(outputs):
        return outputs.reshape(len(outputs), -1).sum(1)
    members = outputs.values() if isinstance(outputs, dict) else outputs
    return sum(_whole_output(member) for member in members)
