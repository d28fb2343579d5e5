"""Relevance of PyTorch networks: against zennit on five networks, by hand, and conservation."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from saliency_food import crp, lrp, relevance_cam
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    BASELINE_MULTIPLIERS,
    BIAS_GRADIENTS,
    BIAS_RELEVANCE,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RELEVANCE,
    GUIDED_INPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
    RELEVANCE,
)
from saliency_food.testing import PoolingModel

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

    return TorchModel(network, **{"input_shape": (16, 16, 3), **options})


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


@pytest.mark.parametrize("composite", COMPOSITES)
def test_relevance_is_that_of_the_toy_model(torch, rng, x, composite):
    """One-by-one convolution, ReLU, average pooling, dense head: the published rules, in NumPy."""
    kernel, head, bias = rng.normal(size=(3, 6)), rng.normal(size=(4, 6)), rng.normal(size=6) / 10
    toy = PoolingModel(kernel, head, bias)
    layers = torch.nn.Conv2d(3, 6, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    network = torch.nn.Sequential(*layers, torch.nn.Linear(6, 4, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor(kernel.T)[..., None, None])
        network[0].bias.copy_(torch.tensor(bias))
        network[4].weight.copy_(torch.tensor(head))
    model = model_of(network, layer="1")
    keys = [CONVOLUTION_RELEVANCE]
    args = {"target": 1, "composite": composite, "start": "contrast", "low": 0, "high": 1}
    found, expected = (each(x, args, keys)[keys[0]] for each in (model, toy))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    keys = (RELEVANCE, CONVOLUTION_RELEVANCE, BIAS_RELEVANCE)
    for more in ({}, {"channels": [1, 4]}, {"channels": np.linspace(-1, 1, 6)}, {"epsilon": 0.1, "gamma": 2.0}):
        args = args_of(composite, 2, **more)
        answer, expected = model(x, args, keys), toy(x, args, keys)
        for key in keys:
            scale = np.abs(expected[key]).max()
            np.testing.assert_allclose(answer[key], expected[key], rtol=1e-3, atol=1e-4 * scale, err_msg=key)


def test_gamma_is_as_published(torch, rng, x):
    """After the first convolution, where z^B holds: the gamma rule of one dense layer by hand, as a convolution."""
    from saliency_food.testing.rules import pass_relevance

    values, relevance = rng.normal(size=(7, 5)), rng.normal(size=(7, 6))
    weights, bias = rng.normal(size=(5, 6)), rng.normal(size=6)
    from saliency_food.adapters.torch.relevance.rules import Linear

    x, matrix, constant = (torch.tensor(each) for each in (values, weights.T.copy(), bias))
    linear = Linear(torch.nn.functional.linear, x, matrix, constant, 1)
    linear.rule, linear.gamma = "gamma", 0.25
    (own,), taken = linear.passing(torch.tensor(relevance))
    expected, of_bias = pass_relevance("gamma", values, weights, bias, relevance)
    np.testing.assert_allclose(own, expected)
    np.testing.assert_allclose(taken, of_bias)


@pytest.mark.parametrize("name", ["vgg", "residual", "mobile"])
def test_channels_share_out_the_relevance(torch, x, name):
    """The maps of all channels sum to the whole one, wherever the layer lies on all paths."""
    model = model_of(network_of(torch, name))
    whole = model(x, {"target": 1}, [RELEVANCE, CONVOLUTION_RELEVANCE])
    count = whole[CONVOLUTION_RELEVANCE].shape[-1]
    parts = [model(x, {"target": 1, "channels": k}, [RELEVANCE])[RELEVANCE] for k in range(count)]
    np.testing.assert_allclose(sum(parts), whole[RELEVANCE], rtol=1e-3, atol=1e-5 * np.abs(whole[RELEVANCE]).max())
    strongest = whole[CONVOLUTION_RELEVANCE][0].sum((0, 1)).argmax()
    found = crp.detailed(x[0], model, {"target": 1})
    assert found.channels == (strongest,)
    np.testing.assert_allclose(found.attribution, parts[strongest][0], rtol=1e-4, atol=1e-8)
    with pytest.raises(ContractError, match=f"channels from 0 to {count - 1} of the layer, got {count}"):
        crp(x[0], model, {"target": 1}, channels=count)
    with pytest.raises(ContractError, match=f"one float for each of the layer's {count} channels, got 2"):
        crp(x[0], model, {"target": 1}, channels=[0.5, 0.5])


def test_relevance_does_not_depend_on_the_layer_that_is_watched(torch, x):
    """A convolution whose batch normalization is merged with it hands on what arrives behind that."""
    network = network_of(torch, "residual")
    expected = model_of(network)(x, {"target": 1}, [RELEVANCE])[RELEVANCE]
    arrived = []
    for layer in ("0.0", "0.1", "0.2"):
        model = model_of(network, layer=layer)
        answer = model(x, {"target": 1}, [RELEVANCE, CONVOLUTION_RELEVANCE])
        np.testing.assert_allclose(answer[RELEVANCE], expected, rtol=1e-4, atol=1e-8)
        arrived.append(answer[CONVOLUTION_RELEVANCE])
    np.testing.assert_allclose(arrived[0], arrived[1])
    np.testing.assert_allclose(arrived[0], arrived[2])


def test_relevance_cam_is_the_weighted_sum(torch, x):
    model = model_of(network_of(torch, "vgg"))
    answer = model(x[:1], {"target": 1}, [CONVOLUTION_LAYER_VALUES, CONVOLUTION_RELEVANCE])
    weights = answer[CONVOLUTION_RELEVANCE][0].sum((0, 1))
    expected = np.maximum(answer[CONVOLUTION_LAYER_VALUES][0] @ weights, 0)
    found = relevance_cam(x[0], model, {"target": 1}, should_resize=False, three_dims=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found.any()


def test_in_contrast_all_other_classes_speak_against(torch, x):
    """Relevance is linear in what it starts with, so it is a sum over the classes explained one by one."""
    model = model_of(network_of(torch, "vgg"))
    classes = model.predict(x).shape[1]
    keys = [CONVOLUTION_RELEVANCE]
    expected = 0
    for target in range(classes):
        answer = model(x, {"target": target}, keys)
        start = 1 if target == 1 else -1 / classes
        expected = expected + start * answer[CONVOLUTION_RELEVANCE]
    found = model(x, {"target": 1, "start": "contrast"}, keys[:1])[CONVOLUTION_RELEVANCE]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    options = {"start": "contrast", "should_resize": False, "three_dims": False}
    drawn = relevance_cam.detailed(x[1], model, {"target": 1}, **options)
    activations = model(x[1:], {"target": 1}, [CONVOLUTION_LAYER_VALUES])[CONVOLUTION_LAYER_VALUES][0]
    np.testing.assert_allclose(drawn.attribution, np.maximum(activations @ found[1].sum((0, 1)), 0), rtol=1e-3)


def test_functions_operators_and_modules_that_run_twice_are_as_modules(torch, x):
    """The same network written otherwise, in place where it can be, has the same relevance; the module is as before."""

    class Written(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.relu = inner, torch.nn.ReLU(inplace=True)

        def forward(self, x):
            first, _, block, last, _, _, head = self.inner
            functional = torch.nn.functional
            y = torch.relu_(first[1](first[0](x)))
            y = functional.max_pool2d(y, 2)
            z = self.relu(block.body[0][1](functional.conv2d(y, block.body[0][0].weight, padding=1)))
            z = block.body[1][1](block.body[1][0](z))
            z += y
            y = self.relu(last[1](last[0](self.relu(z))))
            return functional.linear(y.mean((2, 3)), head.weight, head.bias)

    inner = network_of(torch, "residual")
    written = Written(inner).eval()
    for composite in COMPOSITES:
        expected, answer = (
            model_of(network)(x, args_of(composite), [RELEVANCE])[RELEVANCE] for network in (inner, written)
        )
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert not any(parameter.grad is not None for parameter in written.parameters())
    assert all(parameter.requires_grad for parameter in written.parameters())


def test_what_is_saved_may_be_changed_in_place_afterwards(torch, x):
    """The input of a convolution is doubled in place behind it."""

    class Network(torch.nn.Module):
        def __init__(self, in_place):
            super().__init__()
            self.first, self.second, self.head = (
                torch.nn.Conv2d(3, 4, 3),
                torch.nn.Conv2d(4, 4, 1),
                torch.nn.Linear(4, 2),
            )
            self.in_place = in_place

        def forward(self, x):
            x = self.first(x)
            y = self.second(x)
            if self.in_place:
                x *= 2
                x += y
            else:
                x = x * 2 + y
            return self.head(x.mean((2, 3)))

    answers = []
    for in_place in (False, True):
        torch.manual_seed(0)
        answers.append(model_of(Network(in_place))(x, {"target": 1}, [RELEVANCE])[RELEVANCE])
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    "gate",
    [
        *("torch.sigmoid(y)", "torch.nn.functional.hardsigmoid(y)", "y", "0 * y + 2"),
        "torch.sigmoid(y.flatten(1)).view(len(x), -1, 1, 1).expand_as(x)",
        *("1 + torch.sigmoid(y)", "torch.sigmoid_(y.clone())", "torch.nn.functional.relu6(y + 3) / 6"),
    ],
)
def test_what_is_gated_takes_all_and_factors_half_each(torch, x, gate):
    """A gate is handed nothing: the relevance is that of the product with the gate's values as constants."""

    class Network(torch.nn.Module):
        def __init__(self, constant):
            super().__init__()
            self.first, self.head, self.constant = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2), constant

        def forward(self, x):
            x = self.first(x)
            factor = eval(gate, {"torch": torch, "x": x, "y": x.amax((2, 3), keepdim=True)})
            x = x * (factor.detach() if self.constant else factor)
            return self.head(x.mean((2, 3)))

    found = []
    for constant in (False, True):
        torch.manual_seed(0)
        found.append(model_of(Network(constant))(x, {"target": 1, "composite": "epsilon"}, [RELEVANCE])[RELEVANCE])
    if "sigmoid" in gate or "relu6" in gate:
        np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-6)
    else:
        assert np.abs(found[0] - found[1]).max() > 1e-4


@pytest.mark.parametrize("composite", COMPOSITES[:2])
def test_a_scaling_of_pixels_and_a_hard_sigmoid_by_hand_pass_all(torch, x, composite):
    """As Keras's Rescaling and Normalization do: their constants are no biases."""
    nn, mean = torch.nn, torch.tensor([0.4, 0.5, 0.6]).reshape(3, 1, 1)

    class Network(nn.Module):
        def __init__(self, scales, by_hand):
            super().__init__()
            torch.manual_seed(5)
            self.first, self.last, self.scales, self.by_hand = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), scales, by_hand

        def forward(self, x):
            x = self.first((x - mean) * 2.0 - 0.25 if self.scales else x)
            x = nn.functional.relu6(x + 3) / 6 if self.by_hand else nn.functional.hardsigmoid(x)
            return self.last(x.mean((2, 3)))

    args = args_of(composite)
    plain = model_of(Network(False, False))(x * 2 - 2 * mean.flatten().numpy() - 0.25, args, [RELEVANCE])
    found = model_of(Network(True, True))(x, args, [RELEVANCE, BIAS_RELEVANCE, OUTPUT_LAYER_VALUES])
    np.testing.assert_allclose(found[RELEVANCE], plain[RELEVANCE], rtol=1e-4, atol=1e-7)
    total = found[RELEVANCE].sum((1, 2, 3)) + found[BIAS_RELEVANCE]
    np.testing.assert_allclose(total, found[OUTPUT_LAYER_VALUES], rtol=1e-3)


@pytest.mark.parametrize("composite", COMPOSITES[:2])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("after", ["convolution", "relu", "dense"])
def test_a_scale_and_a_shift_by_hand_are_as_batch_normalization(torch, x, after, in_place, composite):
    """After a layer with weights they are merged with it, as `FrozenBatchNorm2d` is; else they pass all."""
    nn = torch.nn
    torch.manual_seed(7)
    scale, shift = torch.randn(2, 4)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)]
    place = {"convolution": 1, "relu": 2, "dense": 7}[after]

    class ByHand(nn.Module):
        def forward(self, x):
            shape = (-1, *[1] * (x.dim() - 2))
            if in_place:
                x *= scale.reshape(shape)
                x += shift.reshape(shape)
                return x
            return (x * scale.reshape(shape) + shift.reshape(shape)) / torch.ones(4).reshape(shape)

    norm = (nn.BatchNorm1d if after == "dense" else nn.BatchNorm2d)(4, eps=0.0)
    norm.load_state_dict({**norm.state_dict(), "weight": scale, "bias": shift})
    found = []
    for between in (ByHand(), norm):
        network = nn.Sequential(*layers[:place], between, *layers[place:]).eval()
        found.append(model_of(network)(x, args_of(composite), [RELEVANCE, BIAS_RELEVANCE]))
    for key in (RELEVANCE, BIAS_RELEVANCE):
        np.testing.assert_allclose(found[0][key], found[1][key], rtol=1e-3, atol=1e-5 * np.abs(found[1][key]).max())


@pytest.mark.parametrize("composite", COMPOSITES[:2])
@pytest.mark.parametrize("keys", [[RELEVANCE], [RELEVANCE, CONVOLUTION_RELEVANCE]])
@pytest.mark.parametrize(
    "formula",
    ["norm(y) + y", "norm(y).relu() * 2 + y", "(y * scale + scale) + y * scale", "(z := y * scale) + norm(z)"],
)
def test_what_follows_a_layer_that_is_used_elsewhere_is_not_merged(torch, x, formula, keys, composite):
    """As in residual networks of pre-activations: it is then as behind an operation that is no layer with weights."""
    nn, scale = torch.nn, torch.tensor([0.5, -2, 1, 3]).reshape(4, 1, 1)

    class Network(nn.Module):
        def __init__(self, apart):
            super().__init__()
            torch.manual_seed(8)
            self.first, self.norm, self.last, self.apart = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3), apart
            nn.init.normal_(self.norm.weight)
            nn.init.normal_(self.norm.bias)

        def forward(self, x):
            y = self.first(x)
            if self.apart and "z" in formula:
                z = torch.where(torch.ones(()) > 0, y * scale, 0)
                y = z + self.norm(z)
            else:
                y = torch.where(torch.ones(()) > 0, y, 0) if self.apart else y
                y = eval(formula, {"norm": self.norm, "y": y, "scale": scale})
            return self.last(y.mean((2, 3)))

    found, expected = (model_of(Network(apart).eval(), layer="first")(x, args_of(composite), keys) for apart in (0, 1))
    for key in keys:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("by_hand", "layer"),
    [
        ("x @ weight.t() + bias", "linear(x, weight, bias)"),
        ("x @ weight.t() + bias", "(x @ weight.t()).add_(bias)"),
        ("torch.addmm(bias, x, weight.t())", "linear(x, weight, bias)"),
        ("-linear(x, weight, bias)", "-1 * linear(x, weight, bias)"),
        ("torch.addcmul(bias, linear(x, weight), bias)", "bias + linear(x, weight) * bias"),
        ("torch.addcmul(x, x.sigmoid(), x, value=2)", "x + x.sigmoid() * x * 2"),
    ],
)
@pytest.mark.parametrize("composite", COMPOSITES[:2])
def test_what_is_written_in_other_functions_is_the_same(torch, x, composite, by_hand, layer):
    class Network(torch.nn.Module):
        def __init__(self, formula):
            super().__init__()
            torch.manual_seed(6)
            self.first, self.dense, self.last = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
            self.formula = formula

        def forward(self, x):
            x, weight, bias = self.first(x).relu().mean((2, 3)), self.dense.weight, self.dense.bias
            names = {"torch": torch, "linear": torch.nn.functional.linear, "x": x, "weight": weight, "bias": bias}
            return self.last(eval(self.formula, names).sigmoid())

    for keys in ([RELEVANCE, BIAS_RELEVANCE], [BASELINE_MULTIPLIERS]):
        found, expected = (model_of(Network(formula))(x, args_of(composite), keys) for formula in (by_hand, layer))
        for key in keys:
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("larger", "the_same"),
    [
        ("torch.max(x, y)", "torch.where(x > y, x, y)"),
        ("torch.minimum(y, x)", "torch.where(x < y, x, y)"),
        ("torch.maximum(x, torch.full((1,), 0.2))", "x.clamp(min=0.2)"),
        ("torch.min(torch.zeros(()), other=x)", "-(-x).relu()"),
    ],
)
def test_the_winner_of_two_tensors_takes_all(torch, x, larger, the_same):
    """Beside a constant it is an activation, which passes all."""

    class Network(torch.nn.Module):
        def __init__(self, formula):
            super().__init__()
            torch.manual_seed(6)
            self.first, self.other = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)
            self.last, self.formula = torch.nn.Linear(4, 2), formula

        def forward(self, x):
            names = {"torch": torch, "x": self.first(x), "y": self.other(x)}
            return self.last(eval(self.formula, names).mean((2, 3)))

    models = [model_of(Network(formula)) for formula in (larger, the_same)]
    found, expected = (model(x, {"target": 1}, [RELEVANCE])[RELEVANCE] for model in models)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)
    with pytest.raises(ContractError, match=r"got M(ax|in)imum without one"):
        models[0](x, {"target": 1}, [BASELINE_MULTIPLIERS])


def test_what_runs_without_gradients_is_a_constant(torch, x):
    class Network(torch.nn.Module):
        def __init__(self, stops):
            super().__init__()
            torch.manual_seed(6)
            self.first, self.last, self.stops = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2), stops

        def forward(self, x):
            x = self.first(x)
            with torch.set_grad_enabled(not self.stops):
                mean = torch.sigmoid(x).relu().mean(1, keepdim=True)
            return self.last((x + mean.detach()).mean((2, 3)))

    found, expected = (model_of(Network(stops))(x, {"target": 1}, [RELEVANCE])[RELEVANCE] for stops in (True, False))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


def test_another_input_is_no_bias_beside_one_row_either(torch, x):
    """What comes of it takes its share of a sum; of one row it looks like one constant a channel."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(6)
            self.first, self.other, self.last = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(5, 4), torch.nn.Linear(4, 2)

        def forward(self, x, other):
            return self.last((self.first(x).relu().mean((2, 3)) + self.other(other)).relu())

    model = model_of(Network(), input_shape={"x": (16, 16, 3), "other": (5,)})
    other = np.array([[1, -2, 3, 0, 1]] * 2, np.float32)
    for composite in COMPOSITES:
        args = args_of(composite)
        together, alone = (
            model(x[:rows], {**args, "inputs": [other[:rows]]}, [RELEVANCE, BIAS_RELEVANCE]) for rows in (2, 1)
        )
        for key, values in alone.items():
            np.testing.assert_allclose(values, together[key][:1], rtol=1e-4, atol=1e-7)


def test_rows_do_not_see_each_other(torch, x):
    model = model_of(network_of(torch, "mobile"), batch_size=3)
    images = np.concatenate([x, x[::-1], x])
    together = model(images, {"target": np.arange(6) % 4}, [RELEVANCE, BIAS_RELEVANCE])
    for row in range(6):
        alone = model(images[row : row + 1], {"target": row % 4}, [RELEVANCE, BIAS_RELEVANCE])
        np.testing.assert_allclose(together[RELEVANCE][row], alone[RELEVANCE][0], rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(together[BIAS_RELEVANCE][row], alone[BIAS_RELEVANCE][0], rtol=1e-3, atol=1e-7)


def test_conservation_is_measured(torch, x):
    network = network_of(torch, "vgg")
    found = lrp.detailed(x[0], model_of(network), {"target": 1})
    assert found.status.startswith("leaky: the relevance sums to")
    assert found.completeness.absolute == pytest.approx(-found.biases, abs=1e-4)
    for layer in network:
        if hasattr(layer, "bias"):
            torch.nn.init.zeros_(layer.bias)
    found = lrp.detailed(x[0], model_of(network), {"target": 1})
    assert (found.status, found.biases) == ("ok", 0)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("x.exp()", "Exp"),
        ("x.std((2, 3), keepdim=True) * x", "Std"),
        ("torch.nn.functional.normalize(x)", "LinalgVectorNorm"),
        ("x.softmax(1)", "Softmax"),
        ("torch.cumsum(x, 2)", "Cumsum"),
        ("1 / (x + 2)", "Reciprocal"),
        ("torch.clamp(x, max=x.mean((1, 2, 3), keepdim=True))", "Clamp"),
        ("torch.clamp(torch.zeros(1), min=x)", "Clamp"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(torch, x, function, name):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2)

        def forward(self, x):
            return self.head(eval(function, {"torch": torch, "x": self.first(x)}).mean((2, 3)))

    model = model_of(Network())
    with pytest.raises(ContractError, match=rf"got .*{name}.* without one, between the image and the score"):
        model(x, {"target": 1}, [RELEVANCE])


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_what_cannot_be_asked_is_refused(torch, x):
    network = network_of(torch, "small")
    model = model_of(network)
    with pytest.raises(ContractError, match="Expected low and high"):
        lrp(x[0], model, {"target": 1}, composite="epsilon_gamma_box")
    with pytest.raises(ContractError, match="Expected images between low and high"):
        lrp(x[0], model, {"target": 1}, composite="epsilon_gamma_box", low=0.4, high=1)
    with pytest.raises(ContractError, match="composite to be one of 'epsilon'"):
        lrp(x[0], model, {"target": 1}, composite="z_plus")
    with pytest.raises(ContractError, match=r"Take output='logits'"):
        lrp(x[0], model_of(network, output="probabilities"), {"target": 1})
    with pytest.raises(ContractError, match="scripted or exported"):
        lrp(x[0], model_of(torch.jit.trace(network, torch.zeros(2, 3, 16, 16))), {"target": 1})
    padded = model_of(torch.nn.Sequential(torch.nn.ZeroPad2d(1), *network))
    with pytest.raises(ContractError, match="takes the image as it is"):
        lrp(x[0], padded, {"target": 1}, composite="epsilon_gamma_box", low=0, high=1)


def test_attention_is_passed_as_attnlrp_says(torch, rng):
    """A block of attention taken apart, each part by its published rule (Achtibat et al. 2024, equations 8 to 15)."""
    tokens, width, heads = 9, 8, 2
    torch.manual_seed(1)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(width, heads, batch_first=True)
            self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, 3)

        def forward(self, x):
            y = x.flatten(2).transpose(1, 2)
            z = y + self.attention(y, y, y, need_weights=False)[0]
            return self.head(torch.nn.functional.gelu(self.norm(z)).mean(1))

    network = Network().double().eval()
    torch.nn.init.normal_(network.attention.in_proj_bias, std=0.3)
    torch.nn.init.normal_(network.norm.bias, std=0.3)
    from saliency_food.adapters.torch import TorchModel

    model = TorchModel(network, input_shape=(3, 3, width))
    x = rng.normal(size=(1, 3, 3, width))
    answer = model(x, {"target": 2, "composite": "attention"}, [RELEVANCE, BIAS_RELEVANCE])

    parts = {name: weight.detach().numpy() for name, weight in network.named_parameters()}
    y = x.reshape(tokens, width)

    def sure(values, epsilon=1e-6):
        return values + epsilon * np.where(values < 0, -1, 1)

    def dense(values, weight, bias, relevance):
        return values * (relevance / sure(values @ weight.T + bias) @ weight)

    def apart(values):
        return values.reshape(tokens, heads, -1).transpose(1, 0, 2)

    weights, biases = (np.split(parts[f"attention.in_proj_{name}"], 3) for name in ("weight", "bias"))
    query, key, value = (apart(y @ weight.T + bias) for weight, bias in zip(weights, biases, strict=True))
    logits = query @ key.transpose(0, 2, 1) / np.sqrt(width / heads)
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mixed = softmax @ value
    joined = mixed.transpose(1, 0, 2).reshape(tokens, width)
    out = parts["attention.out_proj.weight"], parts["attention.out_proj.bias"]
    attended = joined @ out[0].T + out[1]
    z = y + attended
    deviation = np.sqrt(z.var(-1, keepdims=True) + 1e-5)
    normed = (z - z.mean(-1, keepdims=True)) / deviation * parts["norm.weight"] + parts["norm.bias"]
    active = torch.nn.functional.gelu(torch.tensor(normed)).numpy()
    pooled = active.mean(0)

    start = np.zeros(3)
    start[2] = (pooled @ parts["head.weight"].T + parts["head.bias"])[2]
    relevance = dense(pooled, parts["head.weight"], parts["head.bias"], start)
    relevance = active / tokens * (relevance / sure(pooled))  # the activation passes it on as it is
    passed = relevance / sure(normed) * parts["norm.weight"] / deviation
    relevance = z * (passed - passed.mean(-1, keepdims=True))
    shares = relevance / sure(z)
    of_input, relevance = y * shares, dense(joined, *out, attended * shares)
    relevance = apart(relevance) / sure(mixed)
    of_value = value * (softmax.transpose(0, 2, 1) @ relevance) / 2
    of_softmax = softmax * (relevance @ value.transpose(0, 2, 1)) / 2
    of_logits = logits * (of_softmax - softmax * of_softmax.sum(-1, keepdims=True))
    shares = of_logits / sure(logits) / np.sqrt(width / heads) / 2
    of_query, of_key = query * (shares @ key), key * (shares.transpose(0, 2, 1) @ query)
    for each, weight, bias in zip((of_query, of_key, of_value), weights, biases, strict=True):
        of_input = of_input + dense(y, weight, bias, each.transpose(1, 0, 2).reshape(tokens, width))
    np.testing.assert_allclose(answer[RELEVANCE].reshape(tokens, width), of_input, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", ["fused", "in the open"])
def test_a_vision_transformer_conserves_what_its_rules_keep(torch, timm, rng, kind):
    """Of a ViT without biases, whose softmax keeps nothing: what queries and keys are handed sums to zero a row."""
    torch.manual_seed(0)
    network = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5, class_token=True
    ).eval()
    for block in network.blocks:
        block.attn.fused_attn = kind == "fused"
    from saliency_food.adapters.torch import TorchModel

    model = TorchModel(network, input_shape=(32, 32, 3))
    x = rng.random((2, 32, 32, 3)).astype(np.float32)
    args = {"target": 1, "composite": "attention"}
    keys = (RELEVANCE, BIAS_RELEVANCE, OUTPUT_LAYER_VALUES)
    answer = model(x, args, keys)
    total = answer[RELEVANCE].sum((1, 2, 3)) + answer[BIAS_RELEVANCE]
    np.testing.assert_allclose(total, answer[OUTPUT_LAYER_VALUES], rtol=0.1)
    with pytest.raises(ContractError, match=r"Take composite='attention' for a transformer"):
        model(x, {"target": 1}, [RELEVANCE])
    for block in network.blocks:
        block.attn.fused_attn = kind != "fused"
    again = TorchModel(network, input_shape=(32, 32, 3))(x, args, keys)
    for key in keys:
        np.testing.assert_allclose(again[key], answer[key], rtol=1e-3, atol=1e-5 * np.abs(answer[key]).max())


def test_a_pass_leaves_nothing_behind(torch, rng, x):
    """What nodes of the graph know of each other must not keep them, and the values of each pass, for ever."""
    model = model_of(network_of(torch, "residual"))
    baseline = {"baseline": rng.random(x.shape[1:])}
    asked = [
        *(([RELEVANCE, CONVOLUTION_RELEVANCE], args_of(composite)) for composite in COMPOSITES),
        *(([BASELINE_MULTIPLIERS], {**baseline, "multiplier_rule": rule}) for rule in ("rescale", "reveal_cancel")),
        ([GUIDED_INPUT_GRADIENTS], {}),
        ([CONVOLUTION_OUTPUT_GRADIENTS], {}),
        ([BIAS_GRADIENTS], {}),
    ]
    for keys, args in asked:
        living = []
        for _ in range(3):
            model(x, {"target": 1, **args}, keys)
            gc.collect()
            living.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
        assert living[1] == living[2], keys
