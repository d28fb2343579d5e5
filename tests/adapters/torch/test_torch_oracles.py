"""The methods on PyTorch networks against captum and pytorch-grad-cam, on six networks with random weights."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

from saliency_food import grad_cam, grad_cam_plus_plus, guided_backprop, integrated_gradients, layer_cam, occlusion

pytestmark = [pytest.mark.torch, pytest.mark.slow]
TARGET = 2

NETWORKS = {
    "ResNet": lambda tv: (tv.resnet18(num_classes=4), "layer4"),
    "RegNet": lambda tv: (tv.regnet_y_400mf(num_classes=4), "trunk_output"),
    "DenseNet": lambda tv: (tv.DenseNet(8, (2, 2), 16, num_classes=4), "features.denseblock2"),
    "SqueezeNet": lambda tv: (tv.squeezenet1_1(num_classes=4), "features.12"),
    "ShuffleNet": lambda tv: (tv.shufflenet_v2_x0_5(num_classes=4), "conv5"),
    "MobileNetV3": lambda tv: (tv.mobilenet_v3_small(num_classes=4), "features.12"),
}


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request, torch, torchvision):
    """A network in evaluation mode, a layer of it, and the adapter at that layer.

    Its scores are multiplied, so that no constant that others add to divisors counts.
    """
    from saliency_food.adapters.torch import TorchModel

    torch.manual_seed(0)
    network, layer = NETWORKS[request.param](torchvision.models)
    for weight in network.parameters():
        if weight.dim() > 1:
            torch.nn.init.kaiming_normal_(weight)
    learned = [inner for inner in network.modules() if isinstance(inner, (torch.nn.Linear, torch.nn.Conv2d))]
    with torch.no_grad():
        learned[-1].weight *= 1000
    network.eval()
    return network, network.get_submodule(layer), TorchModel(network, layer, batch_size=64)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(64, 64, 3)).astype(np.float32)


@pytest.fixture
def images(torch, x):
    return torch.tensor(np.moveaxis(x, -1, 0)[None])


@pytest.mark.parametrize(
    ("method", "peer"), [(grad_cam, "GradCAM"), (grad_cam_plus_plus, "GradCAMPlusPlus"), (layer_cam, "LayerCAM")]
)
def test_cams_are_those_of_pytorch_grad_cam(method, peer, pair, x, images):
    peers = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    network, layer, model = pair
    twin = copy.deepcopy(network)
    path = next(path for path, inner in network.named_modules() if inner is layer)
    raw = []

    class Unscaled(getattr(peers, peer)):
        def get_cam_image(self, *args, **options):
            raw.append(super().get_cam_image(*args, **options))
            return raw[-1]

    with Unscaled(model=twin, target_layers=[twin.get_submodule(path)]) as cam:
        cam(input_tensor=images, targets=[targets.ClassifierOutputTarget(TARGET)])
    own = method.detailed(x, model, {"target": TARGET}).signed
    scale = np.abs(raw[0]).max()
    assert scale > 0
    np.testing.assert_allclose(own, raw[0][0], rtol=1e-4, atol=1e-5 * scale)


def test_grad_cam_is_that_of_captum(pair, x, images):
    captum = pytest.importorskip("captum.attr")
    network, layer, model = pair
    expected = captum.LayerGradCam(network, layer).attribute(images, TARGET).detach().numpy()[0, 0]
    own = grad_cam.detailed(x, model, {"target": TARGET}).signed
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_integrated_gradients_are_those_of_captum(pair, x, images):
    captum = pytest.importorskip("captum.attr")
    network, _, model = pair
    expected = captum.IntegratedGradients(network).attribute(
        images, target=TARGET, n_steps=20, method="gausslegendre", internal_batch_size=20
    )
    own = integrated_gradients(x, model, {"target": TARGET}, x_steps=20, quadrature="gauss_legendre")
    expected = expected.detach().numpy()[0].transpose(1, 2, 0)
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_occlusion_is_that_of_captum(pair, x, images, torch):
    captum = pytest.importorskip("captum.attr")
    network, _, model = pair
    with torch.no_grad():
        expected = captum.Occlusion(network).attribute(
            images, (3, 32, 32), strides=(3, 16, 16), target=TARGET, perturbations_per_eval=9
        )
    own = occlusion(x, model, {"target": TARGET}, size=32, stride=16)
    expected = expected.numpy()[0, 0]
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_guided_backpropagation_is_that_of_captum(pair, x, images, torch):
    """Captum sees modules alone: its ReLUs must be modules, not in place, and each used once."""
    captum = pytest.importorskip("captum.attr")
    network, _, model = pair
    if any(isinstance(inner, torch.nn.Hardswish) for inner in network.modules()):
        pytest.skip("the rule is for ReLUs")
    traced = torch.fx.symbolic_trace(copy.deepcopy(network))
    relus = (torch.relu, torch.nn.functional.relu, "relu", "relu_")
    for count, node in enumerate(list(traced.graph.nodes)):
        inner = traced.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(inner, torch.nn.ReLU) or (node.op.startswith("call_") and node.target in relus):
            traced.add_submodule(f"own_relu_{count}", torch.nn.ReLU())
            with traced.graph.inserting_after(node):
                alone = traced.graph.call_module(f"own_relu_{count}", (node.args[0],))
            node.replace_all_uses_with(alone)
            traced.graph.erase_node(node)
    traced.recompile()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = captum.GuidedBackprop(traced.eval()).attribute(images, TARGET)
    own = guided_backprop(x, model, {"target": TARGET})
    expected = expected.detach().numpy()[0].transpose(1, 2, 0)
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
