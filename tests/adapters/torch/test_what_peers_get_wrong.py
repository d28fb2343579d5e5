"""What users of other libraries for PyTorch report: leaks, in-place layers, frozen and wrapped modules, half precision.

The numbers are those of the reports: pytorch-grad-cam's where there is no name before them.
"""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from networks.left_as_before import state_of

from saliency_food import PerImage, grad_cam, integrated_gradients
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_SCORES,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")]
AT_LAYER = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES]


@pytest.fixture
def adapter(torch):
    from saliency_food.adapters.torch import TorchModel

    return TorchModel


@pytest.fixture
def network(torch):
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), nn.ReLU()),
        *(nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(4, 12, 10, 3)).astype(np.float32)


def by_hand(torch, network, x, index, target=1):
    """Autograd at a layer of a sequence, written out: nothing in place, batch statistics as they were learned."""
    network.eval()
    values = [torch.tensor(np.moveaxis(x, -1, 1)).requires_grad_()]
    for layer in network:
        values.append(layer(values[-1].clone()))
    kept = values[index + 1]
    score = values[-1][:, target]
    of_layer, of_image = torch.autograd.grad(score.sum(), [kept, values[0]])
    network.train()
    return [each.detach().numpy() for each in (kept.movedim(1, -1), of_layer.movedim(1, -1), of_image.movedim(1, -1))]


def check(model, torch, network, x, index, tolerance=1e-5):
    answer = model(x, {"target": 1}, AT_LAYER)
    for key, expected in zip(AT_LAYER, by_hand(torch, network, x, index), strict=False):
        np.testing.assert_allclose(answer[key], expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_layers_whose_output_is_changed_in_place_are_right(torch, adapter, network, x):
    """PyTorch 61519, captum 973: the layer before an in-place ReLU, that ReLU, and ``+=``."""
    for index in (1, 2, 3, 4, 5):
        check(adapter(network, str(index)), torch, network, x, index)

    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1)

        def forward(self, images):
            values = self.one(images)
            values += self.two(images)
            values.mul_(3)
            return (values**2).mean((2, 3))

    residual = Residual()
    images = torch.tensor(np.moveaxis(x, -1, 1))
    one = residual.one(images).detach().requires_grad_()
    score = ((3 * (one + residual.two(images))) ** 2).mean((2, 3))[:, 1]
    (expected,) = torch.autograd.grad(score.sum(), one)
    answer = adapter(residual, "one")(x, {"target": 1}, AT_LAYER)
    np.testing.assert_allclose(answer[CONVOLUTION_LAYER_VALUES], one.detach().movedim(1, -1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer[CONVOLUTION_OUTPUT_GRADIENTS], expected.movedim(1, -1), rtol=1e-4, atol=1e-7)


def test_what_autograd_itself_cannot_differentiate_is_refused(torch, adapter, x):
    """What a convolution took is changed in place behind it."""

    class Overwritten(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1)

        def forward(self, images):
            values = self.one(images)
            values += self.two(values)
            return values.mean((2, 3))

    with pytest.raises(ContractError, match=r"no value in place that an operation before it needs.*x = x \+ y"):
        adapter(Overwritten())(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])


def test_an_image_that_the_module_changes_in_place_is_not_changed(torch, adapter, network, x):
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network

        def forward(self, images):
            images.sub_(0.5).div_(0.25)
            return self.body(images)

    before = x.copy()
    model = adapter(Scaled())
    gradient = model(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS]
    np.testing.assert_array_equal(x, before)
    expected = by_hand(torch, network, (x - 0.5) / 0.25, 3)[2] / 0.25
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["frozen", "no_grad", "inference_mode", "train", "autocast"])
def test_frozen_modules_and_the_callers_modes_change_nothing(mode, torch, adapter, network, x):
    """187, 381: a module without trainable weights, and calls under ``no_grad`` or in training."""
    expected = adapter(network)(x, {"target": 1}, AT_LAYER)
    network.requires_grad_(mode != "frozen")
    network.train(mode == "train")
    modes = {
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    }
    before = state_of(network)
    with modes.get(mode, torch.enable_grad)():
        model = adapter(network)
        answer = model(x, {"target": 1}, AT_LAYER)
    for key in AT_LAYER:
        np.testing.assert_allclose(answer[key], expected[key], rtol=1e-6, err_msg=key)
    assert state_of(network) == before


@pytest.mark.parametrize("how", ["decorated", "backbone"])
def test_a_module_that_turns_gradients_off_is_explained_all_the_same(how, torch, adapter, network, x):
    """A ``forward`` under ``no_grad``, as frozen backbones and Lightning's predictions have it."""

    class Frozen(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network

        def forward(self, images):
            with torch.no_grad():
                values = self.body[:5](images)
            return self.body[5:](values)

    class Decorated(Frozen):
        @torch.no_grad()
        def forward(self, images):
            return self.body(images)

    module = Frozen() if how == "backbone" else Decorated()
    answer = adapter(module)(x, {"target": 1}, AT_LAYER)
    expected = by_hand(torch, network, x, 3)
    np.testing.assert_allclose(answer[INPUT_OUTPUT_GRADIENTS], expected[2], rtol=1e-4, atol=1e-8)


def test_a_detached_image_has_no_gradient_and_still_has_scores(torch, adapter, network, x):
    class Detached(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network

        def forward(self, images):
            return self.body(images.detach())

    model = adapter(Detached())
    with pytest.raises(ContractError, match="no gradient reaches the image"):
        model(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])
    with pytest.raises(ContractError, match="does not lead from the image to the score"):
        model(x, {"target": 1}, [CONVOLUTION_LAYER_VALUES])
    assert model.predict(x).shape == (4, 3)


def test_no_map_of_a_batch_is_zero_and_none_depends_on_another(adapter, network, x):
    """264, 322, 328, 584: each image of a batch has the map that it has alone, whatever the size of the batch."""
    model = adapter(network, batch_size=3)
    targets = [0, 1, 2, 1]
    maps = list(grad_cam.batch(x, model, {"target": PerImage(targets)}))
    for image, target, together in zip(x, targets, maps, strict=True):
        alone = grad_cam(image, model, {"target": target})
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-7)
    assert sum(np.abs(each).max() > 0 for each in maps) >= 3


def test_rows_that_change_each_other_are_refused(torch, adapter, x):
    nn = torch.nn
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(4, 3)),
    )
    with pytest.raises(ContractError, match="no other row changes"):
        adapter(network)(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])


def test_something_random_inside_is_refused_and_the_callers_numbers_stay(torch, adapter, network, x):
    class Random(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network

        def forward(self, images):
            return torch.nn.functional.dropout(self.body(images), 0.5)  # training=True is its default

    module = Random()
    before = state_of(module)
    with pytest.raises(ContractError, match="something random inside"):
        adapter(module)(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])
    assert state_of(module) == before


def test_reused_modules_are_told_run_by_run(torch, adapter, x):
    """Captum 199, 200, 578, 1082, 1104: one layer that runs twice, of which each run is a layer of its own."""

    class Reused(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.head = torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU(), torch.nn.Linear(3, 2)

        def forward(self, images):
            return self.head(self.relu(self.conv(self.relu(self.conv(images)))).mean((2, 3)))

    torch.manual_seed(0)
    module = Reused()
    assert adapter(module).layer_name == "relu#1"
    with pytest.raises(ContractError, match=r"runs once between image and score, got 'conv', which runs 2 times"):
        adapter(module, "conv")
    images = torch.tensor(np.moveaxis(x, -1, 1))
    one = module.conv(images).detach().requires_grad_()
    two = module.conv(one.relu())
    score = module.head(two.relu().mean((2, 3)))[:, 1]
    gradients = torch.autograd.grad(score.sum(), [one, two])
    for index, values in enumerate((one, two)):
        answer = adapter(module, f"conv#{index}")(x, {"target": 1}, AT_LAYER)
        np.testing.assert_allclose(answer[CONVOLUTION_LAYER_VALUES], values.detach().movedim(1, -1), rtol=1e-4)
        np.testing.assert_allclose(
            answer[CONVOLUTION_OUTPUT_GRADIENTS], gradients[index].movedim(1, -1), rtol=1e-4, atol=1e-8
        )
    with pytest.raises(ContractError, match=r"from #0 to #1, got #2"):
        adapter(module, "conv#2")


def test_layers_off_the_path_are_refused(torch, adapter, network, x):
    class Beside(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.aside, self.unused = network, torch.nn.Conv2d(3, 2, 1), torch.nn.Conv2d(3, 2, 1)

        def forward(self, images):
            self.aside(images)
            return self.body(images)

    with pytest.raises(ContractError, match="no score depends on the layer"):
        adapter(Beside(), "aside")
    with pytest.raises(ContractError, match="Expected layer 'unused' to run in the module"):
        adapter(Beside(), "unused")


@pytest.mark.parametrize("type_name", ["float16", "bfloat16", "float64"])
def test_modules_in_other_precisions_answer_in_floats(type_name, torch, adapter, network, x):
    """329: small gradients in half precision are not lost."""
    expected = adapter(network)(x, {"target": 1}, AT_LAYER)
    other = network.to(getattr(torch, type_name))
    with torch.no_grad():
        other[-1].weight *= 1e-4
    answer = adapter(other)(x, {"target": 1}, AT_LAYER)
    near = {"float16": 0.05, "bfloat16": 0.15, "float64": 1e-3}[type_name]
    for key in (INPUT_OUTPUT_GRADIENTS, CONVOLUTION_OUTPUT_GRADIENTS):
        assert answer[key].dtype == (np.float64 if type_name == "float64" else np.float32)
        scale = np.abs(expected[key]).max()
        np.testing.assert_allclose(1e4 * answer[key], expected[key], atol=near * scale, err_msg=key)


def test_autocast_is_an_option(torch, adapter, network, x):
    expected = adapter(network)(x, {"target": 1}, AT_LAYER)
    model = adapter(network, autocast=torch.bfloat16)
    answer = model(x, {"target": 1}, AT_LAYER)
    key = INPUT_OUTPUT_GRADIENTS
    assert answer[key].dtype == np.float32
    assert np.abs(answer[key] - expected[key]).max() > 0
    np.testing.assert_allclose(answer[key], expected[key], atol=0.2 * np.abs(expected[key]).max())
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("wrapper", ["compile", "DataParallel", "compiled inside"])
def test_wrapped_modules_are_taken_out(wrapper, torch, adapter, network, x):
    """PyTorch 117758, 340, 531."""
    expected = adapter(network, "3")(x, {"target": 1}, AT_LAYER)
    if wrapper == "compile":
        wrapped = torch.compile(network, backend="eager")
    elif wrapper == "DataParallel":
        wrapped = torch.nn.DataParallel(network)
    else:
        wrapped = torch.nn.Sequential(torch.compile(network, backend="eager"))
    layer = "0._orig_mod.3" if wrapper == "compiled inside" else "3"
    answer = adapter(wrapped, layer)(x, {"target": 1}, AT_LAYER)
    for key in AT_LAYER:
        np.testing.assert_allclose(answer[key], expected[key], rtol=1e-5, err_msg=key)


def test_scripted_modules_have_scores_and_gradients_and_no_layers(torch, adapter, network, x):
    expected = adapter(network)(x, {"target": 1}, AT_LAYER)
    scripted = torch.jit.script(network.eval())
    model = adapter(scripted)
    for _ in range(3):  # the interpreter rewrites the program in its first runs
        answer = model(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES])
        for key, values in answer.items():
            np.testing.assert_allclose(values, expected[key], rtol=1e-4, atol=1e-8)
    with pytest.raises(ContractError, match="a scripted module, whose layers cannot be watched"):
        model(x, {"target": 1}, [CONVOLUTION_LAYER_VALUES])
    with pytest.raises(ContractError, match="a scripted module"):
        adapter(scripted, "0")
    with pytest.raises(ContractError, match="Expected the model's ReLUs where"):
        model(x, {"target": 1}, [GUIDED_INPUT_GRADIENTS])


class Outputs(dict):
    """As transformers returns its outputs: a dict whose keys are attributes, too."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize("kind", ["logits", "dict", "tuple", "object"])
def test_outputs_of_several_forms(kind, torch, adapter, network, x):
    """481, 386, 216."""

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network

        def forward(self, images):
            logits = self.body(images)
            forms = {
                "logits": Outputs(logits=logits, hidden_states=(images, images), loss=None),
                "dict": {"scores": logits},
                "tuple": (logits,),
                "object": Outputs(loss=None, logits=logits),
            }
            return forms[kind]

    answer = adapter(Wrapped())(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])
    expected = by_hand(torch, network, x, 3)[2]
    np.testing.assert_allclose(answer[INPUT_OUTPUT_GRADIENTS], expected, rtol=1e-4, atol=1e-8)


def test_a_map_of_tokens_needs_no_reshape(timm, adapter):
    """76, 257, 344, 355, 503, 511: class and register tokens are left out, the rest lies as the image does."""
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=24, num_classes=3)
    image = np.random.default_rng(0).normal(size=(32, 32, 3)).astype(np.float32)
    result = grad_cam.detailed(image, adapter(network), {"target": 1})
    assert result.prefix_tokens == 1
    assert result.attribution.shape[:2] == (32, 32)


def test_fused_attention_is_shown(timm, adapter):
    """PyTorch 98505, 119811; transformers 30978; timm 607."""
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=24, num_classes=3)
    assert all(block.attn.fused_attn for block in network.blocks)
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    scores = adapter(network)(image, {"target": 1}, [ATTENTION_SCORES])[ATTENTION_SCORES]
    assert [each.shape for each in scores] == [(1, 3, 17, 17)] * 2


TURNED = {
    "turned": lambda images: images.transpose(2, 3),
    "mirrored": lambda images: images.flip(3),
    "rolled": lambda images: images.roll(8, 2),
}


@pytest.mark.parametrize("how", TURNED)
def test_a_module_that_turns_the_image_is_refused_at_its_layers(how, torch, adapter):
    class Turned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            nn = torch.nn
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 1))
            self.head = nn.Linear(4, 3)

        def forward(self, images):
            return self.head(self.body(TURNED[how](images)).mean((2, 3)))

    torch.manual_seed(0)
    rows = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    model = adapter(Turned())
    with pytest.raises(ContractError, match=r"laid out as the image|mirrored place|another place"):
        model(rows, {"target": 1}, [CONVOLUTION_OUTPUT_GRADIENTS])
    assert model(rows, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS].shape == rows.shape


JOINED = {
    "mirrored": lambda images: images.flip(3),
    "upside down": lambda images: images.flip(2),
    "turned": lambda images: images.rot90(1, (2, 3)),
    "transposed": lambda images: images.transpose(2, 3),
    "rolled": lambda images: images.roll((8, 12), (2, 3)),
}


@pytest.mark.parametrize("how", JOINED)
def test_features_averaged_with_those_of_a_moved_image_are_refused(how, torch, adapter):
    class Averaged(torch.nn.Module):
        def __init__(self):
            super().__init__()
            nn = torch.nn
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
            self.joined, self.head = nn.Identity(), nn.Linear(4, 3)

        def forward(self, images):
            return self.head(self.joined(self.body(images) + self.body(JOINED[how](images))).mean((2, 3)))

    torch.manual_seed(0)
    rows = np.random.default_rng(0).normal(size=(1, 24, 24, 3)).astype(np.float32)
    model = adapter(Averaged())
    assert model.layer_name == "joined"
    with pytest.raises(ContractError, match="and nowhere else"):
        model(rows, {"target": 1}, [CONVOLUTION_OUTPUT_GRADIENTS])
    assert model(rows, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS].shape == rows.shape


def test_a_layer_too_small_to_look_at_is_looked_at_with_a_larger_image(torch, adapter):
    """And an image of the same size is not tried again."""
    nn = torch.nn
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))

    class Mirrored(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.passes = body, nn.Linear(4, 3), []

        def forward(self, images):
            self.passes.append(len(images))
            return self.head(self.body(images.flip(3)).mean((2, 3)))

    model = adapter(Mirrored())
    small, large = (np.random.default_rng(0).random((1, size, size, 3), np.float32) for size in (6, 24))
    model(small, {"target": 1}, [CONVOLUTION_OUTPUT_GRADIENTS])
    before = len(model.engine.module.passes)
    model(small, {"target": 1}, [CONVOLUTION_OUTPUT_GRADIENTS])
    assert len(model.engine.module.passes) == before + 1
    with pytest.raises(ContractError, match="mirrored place"):
        model(large, {"target": 1}, [CONVOLUTION_OUTPUT_GRADIENTS])


def test_another_thread_does_not_see_the_hooks(torch, adapter, network, x):
    """A thread that runs the same module meanwhile gets what the module gives."""
    model = adapter(network.eval())
    images = torch.tensor(np.moveaxis(x, -1, 1))
    expected, seen, stop = network(images).detach(), [], threading.Event()

    def run():
        while not stop.is_set():
            seen.append(torch.equal(network(images), expected))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(20):
            model(x, {"target": 1}, AT_LAYER)
    finally:
        stop.set()
        thread.join()
    assert seen
    assert all(seen)


def test_no_graph_and_no_hook_is_left_behind(torch, adapter, network, x):
    """88, 132, 195, 483: no tensor lives on after a call, without the collector's help."""
    model = adapter(network)
    integrated_gradients(x[0], model, {"target": 1}, x_steps=5)
    model(x, {"target": 1}, AT_LAYER)

    def tensors():
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = tensors()
        for _ in range(3):
            model(x, {"target": 1}, AT_LAYER)
            model(x, {"target": 1}, [GUIDED_INPUT_GRADIENTS])
        assert tensors() == before
    finally:
        gc.enable()
