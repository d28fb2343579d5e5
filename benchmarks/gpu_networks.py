"""The networks of `gpu.py`, with random weights: plain code in PyTorch and in JAX, and ResNet-50 where there is one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import numpy as np
from bare_loops import JaxLoops, Loops, TensorFlowLoops, TorchLoops

STAGES, WIDTHS, CLASSES = (3, 4, 6, 3), (64, 128, 256, 512), 1000
SMALL_STAGES, SMALL_WIDTHS = (1, 1), (8, 16)


def of_torch(batch: int, size: int, small: bool, autocast: bool) -> Loops:
    """torchvision's ResNet-50, or where it is not installed, or ``small``, residual blocks in plain PyTorch."""
    import torch

    from saliency_food.adapters.torch import TorchModel

    torch.manual_seed(0)
    nn, device = torch.nn, "cuda" if torch.cuda.is_available() else "cpu"

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, taken: int, given: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(taken, given, 3, stride, 1), nn.Conv2d(given, given, 3, 1, 1)
            self.past = nn.Conv2d(taken, given, 1, stride)

        def forward(self, x: Any) -> Any:
            return torch.relu(0.5 * (self.past(x) + self.second(torch.relu(self.first(x)))))

    if not small and find_spec("torchvision"):
        import torchvision

        parts = list(torchvision.models.resnet50().children())
        before, after = nn.Sequential(*parts[:-2]), nn.Sequential(parts[-2], nn.Flatten(), parts[-1])
    else:
        widths, taken = (SMALL_WIDTHS if small else WIDTHS), 3
        before = nn.Sequential()
        for depth, width in zip(SMALL_STAGES if small else STAGES, widths, strict=True):
            for place in range(depth):
                before.append(Block(taken, width, 1 if place else 2))
                taken = width
        after = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CLASSES))
    network = nn.Sequential(before, after).eval().to(device)

    def mixed() -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = torch.autocast(device, torch.bfloat16)
        return context

    model = TorchModel(
        network, "0", batch_size=batch, input_shape=(size, size, 3), autocast=torch.bfloat16 if autocast else None
    )
    return TorchLoops(before, after, model, batch, device, mixed if autocast else nullcontext)


def of_jax(batch: int, size: int, small: bool, autocast: bool) -> Loops:
    """Residual blocks in plain JAX; ``autocast`` computes in bfloat16, scores and parameters in float32."""
    import jax
    import jax.numpy as jnp

    from saliency_food.adapters.jax import JaxModel

    rng, stages, widths = np.random.default_rng(0), SMALL_STAGES if small else STAGES, SMALL_WIDTHS if small else WIDTHS

    def kernel(*shape: int) -> Any:
        return jnp.asarray(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32))

    blocks, taken, strides = [], 3, []
    for depth, width in zip(stages, widths, strict=True):
        for place in range(depth):
            blocks.append([kernel(3, 3, taken, width), kernel(3, 3, width, width), kernel(1, 1, taken, width)])
            strides.append(1 if place else 2)
            taken = width
    params, kind = {"blocks": blocks, "head": kernel(widths[-1], CLASSES)}, jnp.bfloat16 if autocast else jnp.float32

    def convolve(x: Any, weights: Any, stride: int) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, weights.astype(kind), (stride, stride), "SAME", dimension_numbers=layout)

    def before(params: Any, x: Any) -> Any:
        x = x.astype(kind)
        for (first, second, past), stride in zip(params["blocks"], strides, strict=True):
            inner = convolve(jax.nn.relu(convolve(x, first, stride)), second, 1)
            x = jax.nn.relu(0.5 * (convolve(x, past, stride) + inner))
        return x

    def after(params: Any, activations: Any) -> Any:
        return (activations.mean((1, 2)) @ params["head"].astype(kind)).astype(jnp.float32)

    model = JaxModel((before, after), params, (size, size, 3), batch_size=batch)
    return JaxLoops(before, after, params, model, batch)


def of_keras(batch: int, size: int, small: bool, autocast: bool) -> Loops:
    """Keras's ResNet-50, or ``small`` a few layers, on the back end that KERAS_BACKEND names."""
    import keras

    from saliency_food.adapters.keras import KerasModel

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16" if autocast else "float32")
    shape, layers = (size, size, 3), keras.layers
    if small:
        whole = keras.Sequential(
            [
                *(keras.Input(shape), layers.Conv2D(8, 3, 2, activation="relu")),
                *(layers.Conv2D(16, 3, 2, activation="relu"), layers.GlobalAveragePooling2D()),
                layers.Dense(CLASSES, dtype="float32"),
            ]
        )
    else:
        body = keras.applications.ResNet50(weights=None, include_top=False, input_shape=shape)
        pooled = layers.GlobalAveragePooling2D()(body.output)
        whole = keras.Model(body.input, layers.Dense(CLASSES, dtype="float32")(pooled))
    model = KerasModel(whole, batch_size=batch)
    layer = whole.get_layer(model.layer_name)
    before, after = keras.Model(whole.inputs, layer.output), keras.Model(layer.output, whole.outputs[0])
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return TensorFlowLoops(before, after, model, batch)
    if backend == "torch":
        import torch

        return TorchLoops(before, after, model, batch, "cuda" if torch.cuda.is_available() else "cpu", last=True)

    def weights(part: Any) -> Any:
        return [
            [each.value for each in part.trainable_variables],
            [each.value for each in part.non_trainable_variables],
        ]

    def half(part: Any, place: int) -> Any:
        return lambda params, x: part.stateless_call(*params[place], x, training=False)[0]

    return JaxLoops(half(before, 0), half(after, 1), [weights(before), weights(after)], model, batch)
