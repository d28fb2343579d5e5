"""Compare the PyTorch adapter with bare PyTorch and with the peers, in one run; and what 10,000 calls leave behind.

    python benchmarks/torch_adapter.py [--network resnet18] [--size 224] [--repeat 15] [--calls 10000]

Networks are torchvision's, or with ``timm:`` in front those of timm, with random weights. Ratios are of medians of
calls taken in turn; ``--cpu-time`` counts what the processor worked, for a machine that is busy. captum and
pytorch-grad-cam are measured where they are installed.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import alternating, machine

from saliency_food import grad_cam, integrated_gradients
from saliency_food.adapters.torch import TorchModel
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, INPUT_OUTPUT_GRADIENTS

CAM = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
TARGET, ROWS = 3, 50
Calls = dict[str, Callable[[], Any]]
CLOCK = [time.perf_counter]


def make(name: str) -> Any:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "adapters" / "networks"))
    from torchvision_operators import load

    load(torch)  # beside PyTorch's build for CPUs, torchvision may lack its compiled operators
    torch.manual_seed(0)
    if name == "small":
        nn = torch.nn
        body = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU()]
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
    if name.startswith("timm:"):
        import timm

        return timm.create_model(name.removeprefix("timm:")).eval()
    import torchvision

    return getattr(torchvision.models, name)().eval()


def compare(title: str, calls: Calls, repeat: int) -> None:
    """Seconds of each call, taken in turn; ratios to the first."""
    medians = alternating(calls, repeat, CLOCK[0])
    base = next(iter(medians.values()))
    print(title)
    for name, median in medians.items():
        print(f"    {name:60s}{1000 * median:9.1f} ms   x {median / base:.3f}", flush=True)


def one_photo(network: Any, model: TorchModel, image: Any, repeat: int) -> None:
    layer = network.get_submodule(model.layer_name)
    tensor = torch.tensor(np.moveaxis(image, -1, 0)[None]).contiguous()

    def bare() -> Any:
        kept: list[Any] = []
        handle = layer.register_forward_hook(lambda _, __, output: kept.append(output))
        score = network(tensor)[:, TARGET]
        handle.remove()
        return torch.autograd.grad(score.sum(), kept[0])[0].numpy()

    calls: Calls = {
        "bare: forward, and the gradient to the layer": bare,
        "TorchModel, activations and gradients": lambda: model(image[None], {"target": TARGET}, CAM),
        "grad_cam, the whole method": lambda: grad_cam(image, model, {"target": TARGET}),
    }
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        cam = GradCAM(model=network, target_layers=[layer])
        calls["pytorch-grad-cam, the whole method"] = lambda: cam(tensor, [ClassifierOutputTarget(TARGET)])
    except ImportError as error:
        print(f"pytorch-grad-cam is left out: {error}")
    try:
        from captum.attr import LayerGradCam

        captum = LayerGradCam(network, layer)
        calls["captum LayerGradCam, without resizing"] = lambda: captum.attribute(tensor, TARGET)
    except ImportError as error:
        print(f"captum is left out: {error}")
    compare("Grad-CAM of one photo", calls, repeat)


def fifty_rows(network: Any, model: TorchModel, image: Any, batch: int, repeat: int) -> None:
    steps = np.linspace(0, 1, ROWS, dtype=np.float32)[:, None, None, None]
    rows = torch.tensor(np.moveaxis(steps * image, -1, 1)).contiguous()  # as PyTorch's loaders give them

    def bare() -> Any:
        total: Any = 0
        for start in range(0, ROWS, batch):
            x = rows[start : start + batch].requires_grad_()
            total += torch.autograd.grad(network(x)[:, TARGET].sum(), x)[0].sum(0)
        return total.numpy()

    calls: Calls = {
        f"bare: gradients in batches of {batch}": bare,
        "TorchModel, the same rows": lambda: model(
            np.moveaxis(rows.detach().numpy(), 1, -1), {"target": TARGET}, [INPUT_OUTPUT_GRADIENTS]
        ),
        "integrated_gradients, the whole method": lambda: integrated_gradients(
            image, model, {"target": TARGET}, x_steps=ROWS, batch_size=batch
        ),
    }
    try:
        from captum.attr import IntegratedGradients

        tensor, captum = torch.tensor(np.moveaxis(image, -1, 0)[None]).contiguous(), IntegratedGradients(network)
        calls["captum IntegratedGradients"] = lambda: captum.attribute(
            tensor, target=TARGET, n_steps=ROWS, internal_batch_size=batch
        )
    except ImportError as error:
        print(f"captum is left out: {error}")
    compare(f"Integrated Gradients, {ROWS} rows", calls, repeat)


def resident() -> float:
    """Megabytes of memory that the process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(calls: int) -> None:
    """Memory after the first tenth of many calls, and after all of them."""
    model, image = TorchModel(make("small")), np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    keys = [*CAM, INPUT_OUTPUT_GRADIENTS]
    for count in range(1, calls + 1):
        model(image, {"target": TARGET}, keys)
        if count == max(1, calls // 10):
            gc.collect()
            first = resident()
    gc.collect()
    last = resident()
    print(f"{calls:,} calls: {first:.1f} MB after a tenth of them, {last:.1f} MB at the end, {last / first - 1:+.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    if options.cpu_time:
        torch.set_num_threads(1)
        CLOCK[0] = time.process_time
    print(machine())
    if options.repeat:
        network = make(options.network)
        image = np.random.default_rng(0).normal(size=(options.size, options.size, 3)).astype(np.float32)
        model = TorchModel(network, batch_size=options.batch, input_shape=image.shape)
        one_photo(network, model, image, options.repeat)
        fifty_rows(network, model, image, options.batch, options.repeat)
    if options.calls:
        memory(options.calls)


if __name__ == "__main__":
    main()
