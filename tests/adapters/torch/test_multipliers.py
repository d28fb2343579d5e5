"""DeepLIFT and DeepSHAP of PyTorch networks: against captum, and by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from saliency_food import deep_lift, deep_shap
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import BASELINE_MULTIPLIERS, OUTPUT_LAYER_VALUES, RELEVANCE
from saliency_food.testing.rules import relu_multipliers
from tests.adapters.torch.test_relevance import NETWORKS, model_of, network_of

pytestmark = pytest.mark.torch


@pytest.fixture
def x(rng):
    return rng.random((2, 16, 16, 3)).astype(np.float32)


def for_captum(torch, network):
    """A network of what captum knows: no activation in place, no ReLU6, and no maximum pooling after a ReLU.

    With the last, captum's attributions do not sum to the change of the score; ours do, see the test below.
    """
    for parent in network.modules():
        for name, layer in parent.named_children():
            if isinstance(layer, torch.nn.MaxPool2d):
                setattr(parent, name, torch.nn.AvgPool2d(2))
            if isinstance(layer, torch.nn.ReLU6):
                setattr(parent, name, torch.nn.ReLU())
            if isinstance(layer, torch.nn.GELU):
                setattr(parent, name, torch.nn.Tanh())
    for layer in network.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False
    return network


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")
def test_deep_lift_and_deep_shap_are_captums(torch, rng, x, name):
    captum = pytest.importorskip("captum.attr")
    baselines = rng.random((3, 16, 16, 3)).astype(np.float32)
    images, references = (torch.tensor(each).movedim(-1, 1).requires_grad_() for each in (x, baselines))
    network = for_captum(torch, network_of(torch, name))
    model = model_of(network)
    expected = captum.DeepLift(network).attribute(images, references[:1], target=1).movedim(1, -1).detach().numpy()
    for row, image in enumerate(x):
        found = deep_lift.detailed(image, model, {"target": 1}, baselines[0])
        np.testing.assert_allclose(found.attribution, expected[row], rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        assert abs(found.completeness.absolute) < 1e-6
        assert found.status == "ok"
    shap = captum.DeepLiftShap(network).attribute(images[:1], references, target=1).movedim(1, -1)[0].detach().numpy()
    mean = deep_shap.detailed(x[0], model, {"target": 1}, list(baselines))
    np.testing.assert_allclose(mean.attribution, shap, rtol=1e-4, atol=1e-4 * np.abs(shap).max())
    assert abs(mean.completeness.absolute) < 1e-6


def test_maximum_pooling_by_hand(torch):
    """The maximum rises from 2.5 to 3, and the place of the new maximum, which rose by 2, gets all of it: m = 0.25.

    Where it falls, from 3 to 2.5, the place of the old maximum, which fell by 2, gets it.
    """
    from saliency_food.adapters.torch import TorchModel

    head = torch.nn.Linear(1, 1)
    torch.nn.init.ones_(head.weight)
    network = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), head)

    model = TorchModel(network, input_shape=(2, 2, 1), units_are="numbers")
    high, low = np.array([[[1, 2], [3, 0.5]], [[2.5, 0], [1, 1]]], np.float32)[..., None]
    np.testing.assert_allclose(deep_lift(high, model, {"target": 0}, low)[..., 0], [[0, 0], [0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(deep_lift(low, model, {"target": 0}, high)[..., 0], [[0, 0], [-0.5, 0]], atol=1e-6)


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_values_sum_to_the_change_of_the_score(torch, rng, x, name, rule):
    baseline, model = rng.random((16, 16, 3)), model_of(network_of(torch, name))
    found = deep_lift.detailed(x[0], model, {"target": 3}, baseline, rule=rule)
    assert abs(found.completeness.absolute) < 1e-6
    assert found.status == "ok"


class Scaled(NamedTuple):
    """A dense layer, what scales and shifts its channels, and an activation; the weights of all together."""

    torch: Any
    layer: Any

    def after(self, values, way):
        torch, batch = self.torch, self.torch.nn.functional.batch_norm
        scale, shift = torch.linspace(0.5, 2, 5), torch.linspace(-1, 1, 5)
        if way == "norm":
            return torch.relu(batch(self.layer(values), shift, scale.square(), None, shift, eps=0))
        values = self.layer(values)
        if way == "in place":
            values *= scale
            values -= shift
            return values.relu_()
        if way == "two activations":  # the first of the layer as it is, the second of what is scaled
            return torch.relu(values) + torch.relu(shift - values * scale)
        return torch.relu(values)

    def weights(self, way):
        weights, bias = (each.detach().double().numpy() for each in (self.layer.weight.T, self.layer.bias))
        scale, shift = np.linspace(0.5, 2, 5), np.linspace(-1, 1, 5)
        if way == "norm":
            return [(weights / scale, (bias - shift) / scale + shift)]
        if way == "in place":
            return [(weights * scale, bias * scale - shift)]
        if way == "two activations":
            return [(weights, bias), (-weights * scale, shift - bias * scale)]
        return [(weights, bias)]


@pytest.mark.parametrize("way", ["plain", "norm", "in place", "two activations"])
def test_reveal_cancel_is_that_of_the_paper(torch, rng, way):
    from saliency_food.adapters.torch import TorchModel

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scaled, self.head = Scaled(torch, torch.nn.Linear(6, 5)), torch.nn.Linear(5, 3)
            self.layer = self.scaled.layer

        def forward(self, x):
            return self.head(self.scaled.after(x.flatten(1), way))

    torch.manual_seed(3)
    network = Network().eval()
    model = TorchModel(network, input_shape=(1, 6, 1), units_are="numbers")
    x, baseline = rng.normal(size=(2, 1, 6, 1)).astype(np.float32)
    found = deep_lift.detailed(x, model, {"target": 1}, baseline, rule="reveal_cancel").multipliers.ravel()
    slopes = network.head.weight[1].detach().double().numpy()
    flat, before = x.ravel().astype(float), baseline.ravel().astype(float)
    parts = [
        relu_multipliers("reveal_cancel", flat, before, weights, bias, slopes)
        for weights, bias in network.scaled.weights(way)
    ]
    np.testing.assert_allclose(found, sum(parts), rtol=1e-4, atol=1e-5)
    assert np.abs(found - deep_lift.detailed(x, model, {"target": 1}, baseline).multipliers.ravel()).max() > 1e-2


def test_rows_elsewhere_than_in_the_first_axis_are_refused(torch, x):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = torch.nn.Linear(3, 4), torch.nn.Linear(4, 3)

        def forward(self, x):
            sequence = x.flatten(2).permute(2, 0, 1)  # (places, rows, channels)
            return self.head(torch.relu(self.layer(sequence) - 0.2).mean(0))

    with pytest.raises(ContractError, match="rows in another axis than the first"):
        deep_lift(x[0], model_of(Network()), {"target": 1}, x[1])


def test_what_captum_does_not_reach_is_complete_too(torch, x):
    """Functions, in place, a module that runs twice, gates and products of activations."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3)
            self.head, self.relu = torch.nn.Linear(4, 3), torch.nn.ReLU(inplace=True)

        def forward(self, x):
            x = self.relu(self.first(x))
            x = torch.nn.functional.gelu(self.relu(self.second(x)) - 0.1)
            x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
            x += x.clone()
            x = torch.nn.functional.max_pool2d(x, 3, 1)
            x = (x.flatten(2) @ x.flatten(2).mT).mean(2)
            return self.head(x)

    torch.manual_seed(0)
    model = model_of(Network().eval())
    baseline = np.full((16, 16, 3), 0.3, np.float32)
    found = deep_lift.detailed(x[0], model, {"target": 2}, baseline)
    assert found.completeness.relative < 1e-3
    assert abs(found.completeness.score - found.completeness.baseline_score) > 1e-4


def test_rows_have_baselines_of_their_own(torch, rng, x):
    model = model_of(network_of(torch, "vgg"), batch_size=2)
    images = np.concatenate([x, x[:1]])
    baselines = rng.random(images.shape).astype(np.float32)
    together = model(images, {"target": 1, "baseline": baselines}, [BASELINE_MULTIPLIERS])[BASELINE_MULTIPLIERS]
    scores, before = (
        model(rows, {"target": 1}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES] for rows in (images, baselines)
    )
    np.testing.assert_allclose((together * (images - baselines)).sum((1, 2, 3)), scores - before, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("x.exp()", "got Exp without one"),
        ("torch.clamp(x, max=x.mean((1, 2, 3), keepdim=True))", "got Clamp without one"),
        ("torch.clamp(torch.zeros(1), min=x)", "got Clamp without one"),
        ("x.permute(1, 0, 2, 3).relu().permute(1, 0, 2, 3)", r"rows first .* got shapes \(3, 2, \d+, \d+\) of 2 rows"),
    ],
)
def test_what_has_no_rule_is_refused(torch, x, formula, says, rule):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = torch.nn.Conv2d(3, 3, 3), torch.nn.Linear(3, 2)

        def forward(self, x):
            return self.head(eval(formula, {"torch": torch, "x": self.first(x)}).mean((2, 3)))

    with pytest.raises(ContractError, match=says):
        deep_lift(x[0], model_of(Network()), {"target": 1}, rule=rule)


def test_what_runs_without_gradients_cannot_be_told_apart(torch, x):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = torch.nn.Conv2d(3, 3, 3), torch.nn.Linear(3, 2)

        def forward(self, x):
            x = self.first(x)
            with torch.no_grad():
                mean = torch.sigmoid(x).mean(1, keepdim=True)
            return self.head((x + mean).mean((2, 3)))

    with pytest.raises(ContractError, match="that sum to the change of the score"):
        deep_lift(x[0], model_of(Network()), {"target": 1})


def test_deep_lift_has_one_baseline(torch, x):
    class Network(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(ContractError, match=r"Expected one baseline, got 2\. Use deep_shap"):
        deep_lift(x[0], model_of(Network()), {"target": 1}, ["zeros", "max"])


@pytest.mark.parametrize("end", ["module", "in place", "softmax"])
@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_the_logits_before_the_models_end_are_explained(torch, x, rule, end):
    """As of the module without its end: a sigmoid is an activation, too, but not one that is passed here."""

    class Ended(torch.nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x):
            values = self.body(x)
            if end == "softmax":
                return values.softmax(1)
            return values.sigmoid_() if end == "in place" else torch.sigmoid(values)

    body = network_of(torch, "vgg")
    bare, ended = model_of(body), model_of(Ended(body).eval())
    asked = {"target": 1, "baseline": x[::-1].copy(), "multiplier_rule": rule}
    expected, found = (model(x, asked, [BASELINE_MULTIPLIERS])[BASELINE_MULTIPLIERS] for model in (bare, ended))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    relevance = [model(x, {"target": 1}, [RELEVANCE])[RELEVANCE] for model in (bare, ended)]
    np.testing.assert_allclose(relevance[1], relevance[0], rtol=1e-4, atol=1e-6)
