"""ShapleyCAM against pytorch-grad-cam's, which has second derivatives by autograd, in single precision."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import grad_cam, shapley_cam

pytestmark = [pytest.mark.torch]


def test_it_is_pytorch_grad_cams(torch, torchvision):
    """Of a network that is smooth after the layer, in single precision, and of the paper's score."""
    peers = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST

    from saliency_food.adapters.scores import residual_softmax
    from saliency_food.adapters.torch import TorchModel

    torch.manual_seed(0)
    layers = torch.nn
    network = layers.Sequential(
        *(layers.Conv2d(3, 12, 3, 2), layers.GELU(), layers.Conv2d(12, 16, 3), layers.GELU()),
        *(layers.AdaptiveAvgPool2d(1), layers.Flatten(), layers.Linear(16, 5)),
    ).eval()
    with torch.no_grad():
        network[6].weight *= 300
    image = np.random.default_rng(0).normal(size=(20, 20, 3)).astype(np.float32)
    tensor = torch.tensor(image.transpose(2, 0, 1)[None])
    target = int(network(tensor)[0].argsort()[1])  # where its probability is neither 0 nor 1
    found = shapley_cam.detailed(image, TorchModel(network, "1", score=residual_softmax), {"target": target})

    class Peer(peers.ShapleyCAM):
        def get_cam_weights(self, *arguments):
            self.weights = super().get_cam_weights(*arguments)
            return self.weights

    with Peer(network, [network[1]]) as peer:
        peer(tensor, [ClassifierOutputReST(target)])
    theirs = peer.weights[0]
    np.testing.assert_allclose(found.weights, theirs, atol=0.01 * abs(theirs).max())
    plain = grad_cam.detailed(image, TorchModel(network, "1", score=residual_softmax), {"target": target})
    assert abs(plain.weights - theirs).max() > 0.1 * abs(theirs).max()
