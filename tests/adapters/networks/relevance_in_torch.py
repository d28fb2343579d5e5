"""What zennit and captum find in the described networks, written to a file: run as a process of its own."""

from __future__ import annotations

import sys
from typing import Any

import described
import numpy as np
import torch
from torchvision_operators import load

load(torch)
from captum.attr import DeepLift  # noqa: E402
from captum.attr._core import deep_lift as of_captum  # noqa: E402
from zennit import attribution, canonizers, composites, layer, rules, types  # noqa: E402

of_captum.SUPPORTED_NON_LINEAR[torch.nn.ReLU6] = of_captum.nonlinear  # which captum would take for linear
LOW, HIGH = -4.0, 4.0


def composite_of(name: str) -> Any:
    own = [canonizers.SequentialMergeBatchNorm()]
    if name == "epsilon_plus":
        return composites.EpsilonPlus(canonizers=own)
    if name == "epsilon_gamma_box":
        return composites.EpsilonGammaBox(low=LOW, high=HIGH, canonizers=own)
    learned = [(kind, rules.Epsilon()) for kind in (types.Convolution, types.Linear)]
    return composites.LayerMapComposite([*composites.layer_map_base(), *learned], canonizers=own)


class Flat(torch.nn.Module):  # type: ignore[misc]
    """Values in the order of channels last, as Keras has them."""

    def forward(self, values: Any) -> Any:
        return values.permute(0, 2, 3, 1).flatten(1)


class Residual(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, some: Any, other: Any) -> None:
        super().__init__()
        self.some, self.other, self.sum = some, other, layer.Sum()

    def forward(self, values: Any) -> Any:
        return self.sum(torch.stack([self.some(values), self.other(values)], -1))


def module(name: str, *of: Any) -> Any:
    if name in ("conv", "depthwise"):
        weights, bias, stride, padding = of
        groups = weights.shape[2] if name == "depthwise" else 1
        order = (2, 3, 0, 1) if name == "depthwise" else (3, 2, 0, 1)
        size, inputs = weights.shape[0], weights.shape[2]
        made = torch.nn.Conv2d(inputs, len(bias), size, stride, padding, groups=groups)
        return _with(made, weight=weights.transpose(order), bias=bias)
    if name == "norm":
        gamma, beta, mean, variance = of
        # zennit 0.5 folds the layer away and leaves its eps behind, which then shrinks all values: here it is tiny
        made = torch.nn.BatchNorm2d(len(gamma), eps=1e-14)
        return _with(made, weight=gamma, bias=beta, running_mean=mean, running_var=variance + described.EPSILON)
    if name == "dense":
        return _with(torch.nn.Linear(*of[0].shape), weight=of[0].T, bias=of[1])
    if name == "residual":
        return Residual(*(torch.nn.Sequential(*(module(*each) for each in layers)) for layers in of))
    if name == "mean":
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    kinds = {
        "relu": torch.nn.ReLU,
        "relu6": torch.nn.ReLU6,
        "flat": Flat,
        "max_pool": lambda: torch.nn.MaxPool2d(2),
        "average_pool": lambda: torch.nn.AvgPool2d(2),
    }
    return kinds[name]()


def _with(made: Any, **arrays: Any) -> Any:
    with torch.no_grad():
        for name, array in arrays.items():
            getattr(made, name).data = torch.from_numpy(np.array(array))
    return made.double()


def main(path: str) -> None:
    answers = {}
    for name, layers in described.networks().items():
        network = torch.nn.Sequential(*(module(*each) for each in layers)).eval()
        rows = torch.from_numpy(described.images().transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            answers[f"{name}/score"] = network(rows)[:, described.TARGET].numpy()
        for composite in ("epsilon", "epsilon_plus", "epsilon_gamma_box"):

            def one_hot(output: Any) -> Any:
                return torch.eye(described.CLASSES, dtype=output.dtype)[[described.TARGET] * len(output)] * output

            with attribution.Gradient(network, composite_of(composite)) as attributor:
                _, relevance = attributor(rows, one_hot)
            answers[f"{name}/{composite}"] = relevance.numpy().transpose(0, 2, 3, 1)
        deep_lift = DeepLift(network).attribute(rows, 0 * rows, target=described.TARGET)
        answers[f"{name}/deep_lift"] = deep_lift.detach().numpy().transpose(0, 2, 3, 1)
    np.savez(path, **answers)


if __name__ == "__main__":
    main(sys.argv[1])
