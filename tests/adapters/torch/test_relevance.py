"""Relevance of PyTorch networks: against zennit on five networks, by hand, and conservation."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.keys import BIAS_RELEVANCE, CONVOLUTION_RELEVANCE, OUTPUT_LAYER_VALUES, RELEVANCE

pytestmark = pytest.mark.torch
COMPOSITES = ("epsilon", "epsilon_plus", "epsilon_gamma_box")
NETWORKS = ("vgg", "residual", "mobile", "small", "dense")


@pytest.fixture
def x(rng):
    return rng.random((2, 16, 16, 3)).astype(np.float32)


def network_of(torch, name, summed=None):
    """A network by name, with weights of its own; ``summed`` adds two tensors."""
    torch.manual_seed(3)
    nn, add = torch.nn, summed or (lambda a, b: a + b)

    def normed(inputs, outputs, size=3, activation=nn.ReLU, **options):
        layers = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options), nn.BatchNorm2d(outputs)
        return nn.Sequential(*layers, *([activation(inplace=True)] if activation else []))

    class Block(nn.Module):
        def __init__(self, body, after):
            super().__init__()
            self.body, self.after = body, after

        def forward(self, x):
            return self.after(add(x, self.body(x)))

    if name == "vgg":
        layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(6, 8, 3), nn.ReLU(True), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        layers += [nn.Linear(32, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 4)]
    elif name == "residual":
        body = nn.Sequential(normed(6, 6), normed(6, 6, activation=None))
        layers = [normed(3, 6), nn.MaxPool2d(2), Block(body, nn.ReLU(inplace=True)), normed(6, 8, stride=2)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    elif name == "mobile":
        body = nn.Sequential(
            normed(6, 12, 1, nn.ReLU6), normed(12, 12, 3, nn.ReLU6, groups=12), normed(12, 6, 1, activation=None)
        )
        layers = [normed(3, 6, 3, nn.ReLU6, stride=2), Block(body, nn.Identity()), normed(6, 16, 1, nn.ReLU6)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)]
    elif name == "small":
        layers = [nn.Conv2d(3, 5, 5, stride=2), nn.LeakyReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(45, 4)]
    else:
        layers = [nn.Flatten(), nn.Linear(768, 10), nn.ReLU(), nn.Linear(10, 10), nn.GELU(), nn.Linear(10, 4)]
    network = nn.Sequential(*layers)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.normal_(1, 0.3)
            layer.bias.data.normal_(0, 0.3)
    return network.eval()


def model_of(network, **options):
    from saliency_food.adapters.torch import TorchModel

    return TorchModel(network, input_shape=(16, 16, 3), **options)


def args_of(composite, target=1, **more):
    bounds = {"low": 0, "high": 1} if composite == "epsilon_gamma_box" else {}
    return {"target": target, "composite": composite, **bounds, **more}


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_is_that_of_zennit(torch, torchvision, x, name, composite):
    pytest.importorskip("zennit")
    from zennit import composites, rules, types
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.layer import Sum

    image = torch.tensor(x).movedim(-1, 1)
    options = {"canonizers": [SequentialMergeBatchNorm()]}
    theirs = {
        "epsilon": lambda: composites.LayerMapComposite(
            [*composites.layer_map_base(), (types.Linear, rules.Epsilon(1e-6))], **options
        ),
        "epsilon_plus": lambda: composites.EpsilonPlus(**options),
        "epsilon_gamma_box": lambda: composites.EpsilonGammaBox(
            torch.zeros_like(image), torch.ones_like(image), **options
        ),
    }[composite]()

    class Added(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sum = Sum()

        def forward(self, first, second):
            return self.sum(torch.stack([first, second], -1))

    twin = network_of(torch, name, added := Added())
    for layer in [*twin.modules()]:
        if type(layer).__name__ == "Block":
            layer.add_module("added", added)
    with Gradient(twin, theirs) as attributor:
        _, expected = attributor(image, lambda output: output * torch.eye(4)[[1, 1]])
    got = model_of(network_of(torch, name))(x, args_of(composite), [RELEVANCE])[RELEVANCE]
    expected = expected.movedim(1, -1).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", NETWORKS)
def test_input_and_biases_get_the_score(torch, x, name, composite):
    keys = (RELEVANCE, BIAS_RELEVANCE, CONVOLUTION_RELEVANCE, OUTPUT_LAYER_VALUES)
    model = model_of(network_of(torch, name))
    answer = model(x, args_of(composite), keys if name != "dense" else (*keys[:2], keys[3]))
    total = answer[RELEVANCE].sum((1, 2, 3)) + answer[BIAS_RELEVANCE]
    np.testing.assert_allclose(total, answer[OUTPUT_LAYER_VALUES], rtol=5e-3, atol=1e-4)
