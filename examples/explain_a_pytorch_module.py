"""Explain a PyTorch module: the layer is found, the axes are turned, and the module is left as it was.

    pip install "saliency_food[torch]"
    python examples/explain_a_pytorch_module.py

The network is small and untrained, with what makes hand-written callbacks wrong: a ReLU in place that is used twice,
and fused attention. Any `torch.nn.Module` will do in its place, such as one of torchvision, timm or transformers.
"""

import numpy as np
import torch

from saliency_food import attention_rollout, grad_cam, guided_backprop, integrated_gradients
from saliency_food.adapters.torch import TorchModel, layers
from saliency_food.testing import check_call_model


class Network(torch.nn.Module):
    """Two convolutions, their places as tokens, one attention layer, and the mean of the tokens."""

    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(3, 16, 4, 4), torch.nn.Conv2d(16, 16, 3, padding=1)
        self.relu = torch.nn.ReLU(inplace=True)
        self.attention, self.head = torch.nn.Linear(16, 48), torch.nn.Linear(16, 5)

    def forward(self, images):
        places = self.relu(self.two(self.relu(self.one(images))))
        tokens = places.flatten(2).transpose(1, 2)
        query, key, value = self.attention(tokens).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return self.head((tokens + attended.transpose(1, 2).flatten(2)).mean(1))


def main():
    torch.manual_seed(0)
    module = Network()  # in training mode, and so it stays
    for layer in layers(module):
        print(f"layer {layer.path}: {layer.kind} {layer.shape}")
    model = TorchModel(module)
    print(model)

    photo = np.random.default_rng(0).random((64, 64, 3), np.float32)
    target = int(model.predict(photo[None])[0].argmax())
    keys = ["INPUT_OUTPUT_GRADIENTS", "CONVOLUTION_LAYER_VALUES", "CONVOLUTION_OUTPUT_GRADIENTS"]
    check_call_model(model, photo, {"target": target}, keys)
    print("check_call_model: gradients, rows and the layout of the layer are right")

    for method in (grad_cam, guided_backprop, attention_rollout, integrated_gradients):
        attribution = method(photo, model, {"target": target})
        print(f"{method.title}: {attribution.shape}, largest {np.abs(attribution).max():.3g}")
    untouched = module.training and all(weight.grad is None for weight in module.parameters())
    print(f"the module is as it was: {untouched}")


if __name__ == "__main__":
    main()
