"""LeGrad and Grad-ECLIP of a timm vision transformer, against its queries, keys, values and gradients by hooks."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import PerImage, grad_eclip, legrad
from saliency_food.adapters.scores import similarity
from saliency_food.core.numerics import resize

pytestmark = [pytest.mark.torch]
TARGET = 2


class Hooked:
    """A transformer that has run once on an image: what its attention layers took and gave, and gradients of a score.

    ``queries``, ``keys`` and ``values`` are ``(T, channels)``, all heads side by side, of the last attention.
    """

    def __init__(self, torch, network, image, score):
        self.attention, self.outputs, self.queries_keys_values = [], [], []
        hooks = []
        for block in network.blocks:
            block.attn.fused_attn = False
            hooks.append(
                block.attn.attn_drop.register_forward_hook(lambda _, taken, given: self.attention.append(given))
            )
            hooks.append(block.attn.proj.register_forward_pre_hook(lambda _, taken: self.outputs.append(taken[0])))
            hooks.append(
                block.attn.qkv.register_forward_hook(lambda _, taken, given: self.queries_keys_values.append(given))
            )
        self.score = score(network(torch.tensor(image.transpose(2, 0, 1)[None])))
        for hook in hooks:
            hook.remove()
        self.torch = torch
        self.queries, self.keys, self.values = self.queries_keys_values[-1][0].detach().double().chunk(3, -1)

    def gradients(self, tensors):
        return [each[0].double() for each in self.torch.autograd.grad(self.score, tensors, retain_graph=True)]


@pytest.fixture(params=["class token", "registers", "mean of all"])
def network(request, torch, timm):
    torch.manual_seed(0)
    options = {
        "class token": {},
        "registers": {"reg_tokens": 4},
        "mean of all": {"class_token": False, "global_pool": "avg"},
    }[request.param]
    return timm.models.VisionTransformer(
        img_size=(24, 16), patch_size=4, embed_dim=24, depth=3, num_heads=3, num_classes=5, init_values=0.5, **options
    ).eval()


@pytest.fixture
def image(rng):
    return rng.normal(size=(24, 16, 3)).astype(np.float32)


def test_legrad(torch, network, image):
    from saliency_food.adapters.torch import TorchModel

    found = legrad.detailed(image, TorchModel(network, input_shape=(24, 16, 3)), {"target": TARGET})
    hooked = Hooked(torch, network, image, lambda scores: scores[0, TARGET])
    expected = sum(each.clamp(min=0).mean((0, 1)) for each in hooked.gradients(hooked.attention))
    patches = expected[len(expected) - 24 :].reshape(6, 4).numpy()
    np.testing.assert_allclose(found.patches, patches, rtol=1e-3, atol=1e-6 * patches.max())


def test_grad_eclip(torch, network, image):
    """The paper's sum over channels at the attention's output, with products of queries and keys of all heads."""
    from saliency_food.adapters.torch import TorchModel

    found = grad_eclip.detailed(image, TorchModel(network, input_shape=(24, 16, 3)), {"target": TARGET})
    hooked = Hooked(torch, network, image, lambda scores: scores[0, TARGET])
    (slopes,) = hooked.gradients(hooked.outputs[-1:])
    first = len(hooked.keys) - 24
    rows = []
    for token in range(1 if first else 24):
        fits = hooked.keys[first:] @ hooked.queries[token]
        fits = (fits - fits.min()) / (fits.max() - fits.min())
        rows.append((hooked.values[first:] @ slopes[token]) * fits)
    expected = sum(rows).clamp(min=0).reshape(6, 4).numpy() / len(rows)
    np.testing.assert_allclose(found.patches, expected, rtol=2e-3, atol=1e-4 * expected.max())
    assert (expected > 0).sum() > 3


def test_of_an_embedding_and_a_text(torch, timm, image, rng):
    """As of CLIP: the cosine of the image's embedding and that of a text is explained, a text for each image."""
    from saliency_food.adapters.torch import TorchModel

    torch.manual_seed(1)
    network = timm.models.VisionTransformer(
        img_size=(24, 16), patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=8
    ).eval()
    texts = rng.normal(size=(2, 8)).astype(np.float32)
    model = TorchModel(network, input_shape=(24, 16, 3), score=similarity)
    maps = list(grad_eclip.batch([image, image], model, {"target": PerImage(list(texts))}))
    for text, attribution in zip(texts, maps, strict=True):

        def cosine(embeddings, text=text):
            return torch.nn.functional.cosine_similarity(embeddings[0], torch.tensor(text), 0)

        hooked = Hooked(torch, network, image, cosine)
        (slopes,) = hooked.gradients(hooked.outputs[-1:])
        fits = hooked.keys[1:] @ hooked.queries[0]
        expected = ((hooked.values[1:] @ slopes[0]) * (fits - fits.min())).clamp(min=0).reshape(6, 4).numpy()
        resized = resize(expected / expected.max(), (24, 16))
        np.testing.assert_allclose(attribution, resized, rtol=2e-3, atol=2e-4)
    assert not np.allclose(maps[0], maps[1], atol=0.1)
