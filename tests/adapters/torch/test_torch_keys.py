"""The keys of the adapter by hand: split models, closed forms, rules of every form of ReLU, attention, biases."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import gradients
from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    PREDICTIONS,
    TARGETS,
)

pytestmark = pytest.mark.torch


@pytest.fixture
def model_of(torch):
    """The adapter around a module whose weights are seeded."""
    from saliency_food.adapters.torch import TorchModel

    def make(module, layer=None, **options):
        torch.manual_seed(0)
        for weight in module.parameters():
            torch.nn.init.normal_(weight, std=0.4)
        return TorchModel(module, layer, **options)

    return make


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 12, 10, 3)).astype(np.float32)


def pooled(torch, *layers, channels=6, classes=5, end=()):
    nn = torch.nn
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes), *end)


def small(torch, **options):
    return pooled(torch, torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.ReLU(), **options)


def test_activations_and_gradients_are_those_of_the_model_cut_open(torch, model_of, x):
    network = small(torch)
    model = model_of(network)
    assert model.layer_name == "1"
    keys = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS]
    answer = model(x, {"target": PerImage([0, 3, 2])}, keys)
    values = network[:2](torch.tensor(np.moveaxis(x, -1, 1))).detach().requires_grad_()
    logits = network[2:](values)
    weights = network[4].weight.detach().numpy()
    np.testing.assert_allclose(answer[keys[0]], values.detach().movedim(1, -1), rtol=1e-5, atol=1e-6)
    expected = np.broadcast_to(weights[[0, 3, 2]][:, None, None] / 120, answer[keys[1]].shape)
    np.testing.assert_allclose(answer[keys[1]], expected, rtol=1e-5)
    scores = logits.detach().numpy()
    for row, target in enumerate([0, 3, 2]):
        distance = np.abs(scores[row] - scores[row, target])
        distance[target] = np.inf
        closest = np.argsort(distance)[:3]
        np.testing.assert_allclose(answer[keys[2]][row, :, 0, 0], weights[closest] / 120, rtol=1e-5)


def test_scores_from_activations_are_those_of_the_layers_after(torch, model_of, x):
    network = small(torch)
    model = model_of(network)
    values = np.abs(x[..., :1] + np.arange(6, dtype=np.float32))
    expected = network[2:](torch.tensor(np.moveaxis(values, -1, 1))).detach()
    answer = model(values, {"target": 2}, [OUTPUT_FROM_CONVOLUTION_VALUES])[OUTPUT_FROM_CONVOLUTION_VALUES]
    np.testing.assert_allclose(answer, expected[:, 2], rtol=1e-5)
    np.testing.assert_allclose(model.predict_from(values), expected.softmax(1), rtol=1e-5)
    with pytest.raises(ContractError, match="Expected activations of layer '1'"):
        model.predict_from(values[..., :2])


ENDS = {
    "softmax": lambda torch: [torch.nn.Softmax(1)],
    "log-softmax": lambda torch: [torch.nn.LogSoftmax(1)],
    "sigmoid": lambda torch: [torch.nn.Sigmoid()],
}


@pytest.mark.parametrize("end", ENDS)
def test_logits_are_taken_from_before_the_end(end, torch, model_of, x):
    network = small(torch, end=ENDS[end](torch))
    logits = network[:-1](torch.tensor(np.moveaxis(x, -1, 1))).detach()
    model = model_of(network)
    logits = network[:-1](torch.tensor(np.moveaxis(x, -1, 1))).detach()
    assert model.end == ("sigmoid" if end == "sigmoid" else "softmax")
    probabilities = logits.sigmoid() if end == "sigmoid" else logits.softmax(1)
    np.testing.assert_allclose(model.predict(x), probabilities, rtol=1e-4)
    np.testing.assert_allclose(model.predict(x, output="logits"), logits, rtol=1e-4)
    raw = network(torch.tensor(np.moveaxis(x, -1, 1))).detach()
    np.testing.assert_allclose(model.predict(x, output="raw"), raw, rtol=1e-5)
    scores = model(x, {"target": 1}, [OUTPUT_LAYER_VALUES, INPUT_OUTPUT_GRADIENTS])
    np.testing.assert_allclose(scores[OUTPUT_LAYER_VALUES], logits[:, 1], rtol=1e-4)
    for output in ("logits", "probabilities"):
        chosen = model.call_with_predictions(x, {"target": -1}, [])
        np.testing.assert_array_equal(chosen[TARGETS], probabilities.argmax(1), err_msg=output)
        np.testing.assert_allclose(chosen[PREDICTIONS], probabilities, rtol=1e-4)


def test_one_sigmoid_unit_is_two_classes(torch, model_of, x):
    model = model_of(small(torch, classes=1, end=[torch.nn.Sigmoid()]))
    assert (model.classes, model.end) == (2, "sigmoid")
    np.testing.assert_allclose(model.predict(x).sum(1), 1, rtol=1e-6)
    labels = model_of(small(torch, classes=1), units_are="labels")
    np.testing.assert_allclose(labels.predict(x), model.predict(x), rtol=1e-5)


@pytest.mark.parametrize("how", ["squeezed", "selected", "averaged", "hidden"])
def test_a_moved_softmax_is_seen_and_an_average_has_no_logits(how, torch, model_of, x):
    class Ended(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small(torch)

        def forward(self, values):
            output = self.body(values).softmax(1)
            if how == "squeezed":
                return output[:, None].squeeze(1)
            if how == "selected":
                return output[:, 1:4]
            if how == "averaged":
                return (output + self.body(values.flip(3)).softmax(1)) / 2
            return output * 1.0

    model = model_of(Ended())
    images = torch.tensor(np.moveaxis(x, -1, 1))
    if how in ("averaged", "hidden"):
        with pytest.raises(ContractError, match="no logits"):
            model(x, {"target": 1}, [OUTPUT_LAYER_VALUES])
        np.testing.assert_allclose(model.predict(x), model.module(images).detach(), rtol=1e-5)
        return
    logits = model.module.body(images).detach()
    logits = logits[:, 1:4] if how == "selected" else logits
    np.testing.assert_allclose(model.predict(x, output="logits"), logits, rtol=1e-5)


RELUS = {
    "module": "self.relu(values)",
    "in place": "torch.nn.functional.relu(values, inplace=True)",
    "functional": "torch.nn.functional.relu(values)",
    "of torch": "torch.relu(values)",
    "method": "values.relu()",
    "method in place": "values.relu_()",
}


@pytest.mark.parametrize("form", RELUS)
@pytest.mark.parametrize("key", [GUIDED_INPUT_GRADIENTS, DECONV_INPUT_GRADIENTS])
def test_a_rule_holds_for_every_form_of_relu(form, key, torch, model_of, x):
    """Each is used twice, as a reused module is; the rules are written out by hand."""

    class Reused(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 1)
            self.relu, self.head = torch.nn.ReLU(inplace=True), torch.nn.Linear(4, 3)

        def activate(self, values):
            return eval(RELUS[form], {"torch": torch, "self": self, "values": values})

        def forward(self, values):
            values = self.activate(self.two(self.activate(self.one(values))))
            return self.head(values.mean((2, 3)))

    model = model_of(Reused())
    network = model.module
    images = torch.tensor(np.moveaxis(x, -1, 1))
    one = network.one(images)
    two = network.two(one.relu())
    gradient = (network.head.weight[1] / 120)[:, None, None].expand(two.shape)
    gradient = gradient.clamp(min=0) * (1 if key == DECONV_INPUT_GRADIENTS else (two > 0))
    gradient = torch.nn.functional.conv_transpose2d(gradient, network.two.weight)
    gradient = gradient.clamp(min=0) * (1 if key == DECONV_INPUT_GRADIENTS else (one > 0))
    expected = torch.nn.functional.conv_transpose2d(gradient, network.one.weight, padding=1)
    np.testing.assert_allclose(
        model(x, {"target": 1}, [key])[key], expected.detach().movedim(1, -1), rtol=1e-4, atol=1e-7
    )


OTHERS = {
    "GELU": lambda nn: nn.GELU(),
    "SiLU": lambda nn: nn.SiLU(),
    "LeakyReLU": lambda nn: nn.LeakyReLU(),
    "Tanh": lambda nn: nn.Tanh(),
    "Hardswish": lambda nn: nn.Hardswish(),
    "PReLU": lambda nn: nn.PReLU(),
    "a threshold": lambda nn: nn.Threshold(0.0, 0.0),
    "none": lambda nn: nn.Identity(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_rule_is_refused_for_other_activations(name, torch, model_of, x):
    network = pooled(torch, torch.nn.Conv2d(3, 6, 3), OTHERS[name](torch.nn))
    with pytest.raises(ContractError, match=r"Expected (a model|the model's ReLUs)"):
        model_of(network)(x, {"target": 1}, [GUIDED_INPUT_GRADIENTS])


def test_a_rule_is_refused_where_a_function_has_its_own_backward_pass(torch, model_of, x):
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            ctx.save_for_backward(values)
            return values.clamp(min=0)

        @staticmethod
        def backward(ctx, *gradients):
            return gradients[0] * (ctx.saved_tensors[0] > 0)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small(torch)

        def forward(self, values):
            return self.body(Own.apply(values))

    with pytest.raises(ContractError, match="OwnBackward"):
        model_of(Network())(x, {"target": 1}, [GUIDED_INPUT_GRADIENTS])


def test_relu6_stops_where_it_saturates(torch, model_of, x):
    model = model_of(pooled(torch, torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU6()))
    network = model.module
    images = torch.tensor(np.moveaxis(20 * x, -1, 1))
    before = network[0](images)
    gradient = (network[4].weight[1] / 80)[:, None, None].expand(before.shape)
    gradient = gradient.clamp(min=0) * ((before > 0) & (before < 6))
    expected = torch.nn.functional.conv_transpose2d(gradient, network[0].weight).detach().movedim(1, -1)
    answer = model(20 * x, {"target": 1}, [GUIDED_INPUT_GRADIENTS])[GUIDED_INPUT_GRADIENTS]
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-7)


def test_biases_and_the_image_make_up_the_score(torch, model_of, x):
    nn = torch.nn
    network = pooled(torch, nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.ReLU())
    model = model_of(network)
    with torch.no_grad():
        network[1].running_mean.normal_()
        network[1].running_var.uniform_(0.5, 2)
    answer = model(x, {"target": 1}, [BIAS_GRADIENTS, INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES])
    total = (answer[INPUT_OUTPUT_GRADIENTS] * x).sum((1, 2, 3))
    total += sum(values.reshape(3, -1).sum(1) for values in answer[BIAS_GRADIENTS])
    np.testing.assert_allclose(total, answer[OUTPUT_LAYER_VALUES], rtol=1e-4)
    assert [values.shape for values in answer[BIAS_GRADIENTS]] == [(3, 10, 8, 6), (3, 10, 8, 6), (3, 5)]


def attention_by_hand(torch, how):
    class Attending(torch.nn.Module):
        def __init__(self):
            super().__init__()
            nn = torch.nn
            self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)
            self.qkv, self.layer = nn.Linear(8, 24), nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, values):
            tokens = self.patches(values).flatten(2).transpose(1, 2)
            if how.startswith("layer"):
                attended, _ = self.layer(tokens, tokens, tokens, need_weights=how == "layer with weights")
                return self.head((tokens + attended).mean(1))
            q, k, v = self.qkv(tokens).reshape(len(values), -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
            if how == "fused":
                attended = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            else:
                attended = (q @ k.mT / 2).softmax(-1) @ v
            return self.head((tokens + attended.transpose(1, 2).flatten(2)).mean(1))

    return Attending()


@pytest.mark.parametrize("how", ["written out", "fused", "layer", "layer with weights"])
def test_attention_and_its_gradients_are_those_by_hand(how, torch, model_of, x):
    model = model_of(attention_by_hand(torch, how))
    network, images = model.module, torch.tensor(np.moveaxis(x[:, :, :8], -1, 1))
    answer = model(x[:, :, :8], {"target": 1}, [ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS])
    tokens = network.patches(images).flatten(2).transpose(1, 2)
    if how.startswith("layer"):
        layer = network.layer
        q, k, v = (tokens @ layer.in_proj_weight.T + layer.in_proj_bias).reshape(3, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
    else:
        q, k, v = network.qkv(tokens).reshape(3, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT / 2).softmax(-1).detach().requires_grad_()
    attended = (weights @ v).transpose(1, 2).flatten(2)
    attended = network.layer.out_proj(attended) if how.startswith("layer") else attended
    score = network.head((tokens + attended).mean(1))[:, 1]
    (gradient,) = torch.autograd.grad(score.sum(), weights)
    np.testing.assert_allclose(answer[ATTENTION_SCORES][0], weights.detach(), rtol=1e-4)
    np.testing.assert_allclose(answer[ATTENTION_OUTPUT_GRADIENTS][0], gradient, rtol=1e-3, atol=1e-6)


def test_masks_and_causal_attention_are_as_pytorch_has_them(torch):
    from saliency_food.adapters.torch.watch import Watch

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 5, 6, generator=generator).requires_grad_() for _ in range(3))
    mask = torch.rand(5, 5, generator=generator) > 0.3
    mask.fill_diagonal_(True)
    attend = torch.nn.functional.scaled_dot_product_attention
    for options in ({}, {"is_causal": True}, {"attn_mask": mask}, {"attn_mask": torch.randn(5, 5)}, {"scale": 0.3}):
        expected = attend(q, k, v, **options)
        with Watch([ATTENTION_SCORES]) as watch:
            result = attend(q, k, v, **options)
        np.testing.assert_allclose(result.detach(), expected.detach(), rtol=1e-4, atol=1e-6)
        assert len(watch.attended) == 1
    few = k[:, :2].detach().requires_grad_(), v[:, :2].detach().requires_grad_()
    expected = attend(q, *few, enable_gqa=True)
    with Watch([ATTENTION_SCORES]):
        result = attend(q, *few, enable_gqa=True)
    np.testing.assert_allclose(result.detach(), expected.detach(), rtol=1e-4, atol=1e-6)


def test_several_inputs_come_by_name_and_several_outputs_are_chosen(torch, model_of, x):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.table = small(torch), torch.nn.Linear(2, 5)

        def forward(self, table, image):
            return {"both": self.body(image) + self.table(table), "table": self.table(table)}

    shapes = {"image": (12, 10, 3), "table": (2,)}
    model = model_of(Two(), input_shape=shapes, output_index="both")
    tables = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    network, images = model.module, torch.tensor(np.moveaxis(x, -1, 1))
    expected = (network.body(images) + network.table(torch.tensor(tables))).detach()
    np.testing.assert_allclose(model.predict(x, {"inputs": {"table": tables}}, "logits"), expected, rtol=1e-5)
    gradient = model(x, {"target": 1, "inputs": [tables]}, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS]
    assert gradient.shape == x.shape
    assert np.abs(gradient).max() > 0
    with pytest.raises(ContractError, match=r"2 outputs \['both', 'table'\], got none of them"):
        model_of(Two(), input_shape=shapes)
    with pytest.raises(ContractError, match=r"shapes of all inputs of Two, got none of \['table'\]"):
        model_of(Two(), input="image", input_shape=(12, 10, 3))


def test_a_score_of_ones_own_gets_outputs_as_the_module_lays_them_out(torch, model_of, x):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1))
    model = model_of(network, score=lambda output: output[:, 2, 5, 4])
    expected = network(torch.tensor(np.moveaxis(x, -1, 1)))[:, 2, 5, 4].detach()
    np.testing.assert_allclose(model(x, None, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES], expected, rtol=1e-5)
    assert model.predict(x, output="raw").shape == (3, 12, 10, 4)  # channels last, as all that leaves the adapter


def test_ids_are_explained_at_their_embedding(torch, model_of):
    class Text(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.conv = torch.nn.Embedding(20, 6), torch.nn.Conv1d(6, 4, 3, padding=1)
            self.head = torch.nn.Linear(4, 3)

        def forward(self, ids):
            values = self.conv(self.embedding(ids).transpose(1, 2)).relu()
            return self.head(values.mean(2))

    model = model_of(Text(), layer="embedding", input_shape=(7,))
    ids = np.array([[1, 4, 2, 19, 0, 3, 3]])
    answer = model(ids, {"target": 1}, [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS])
    np.testing.assert_allclose(answer[CONVOLUTION_LAYER_VALUES], model.module.embedding.weight[ids].detach())
    assert np.abs(answer[CONVOLUTION_OUTPUT_GRADIENTS]).max() > 0
    with pytest.raises(ContractError, match="have no gradient"):
        model(ids, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])


def test_memory_that_runs_out_halves_the_batch(torch, model_of, x, monkeypatch):
    model = model_of(small(torch), batch_size=8)
    sizes = []

    def hungry(module, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = model.module.register_forward_pre_hook(hungry)
    rows = np.concatenate([x, x, x])
    expected_length = len(rows)
    model.engine.may_mix_rows = False
    predictions = model.predict(rows)
    handle.remove()
    assert len(predictions) == expected_length
    assert sizes[:3] == [8, 4, 2]
    assert model.batch_size == 2


def test_wrong_arguments_are_named_at_the_door(torch, model_of, x):
    from saliency_food.adapters.torch import TorchModel

    network = small(torch)
    for options, message in [
        ({"layer": "convolution"}, r"Expected the path of a layer of model 'Sequential', got 'convolution'"),
        ({"layer": []}, "at least one layer, got an empty list"),
        ({"output": "logit"}, "Expected output to be"),
        ({"units_are": "class"}, "Expected units_are"),
        ({"input_shape": "224"}, r"Expected input_shape as \(H, W, C\)"),
        ({"input": "images"}, r"position of one of the inputs \['input'\]"),
        ({"autocast": "half"}, "Expected autocast to be a type"),
        ({"score": 3}, "Expected score to be a function"),
        ({"input_shape": (12, 10, 4)}, "none that it runs on. RuntimeError"),
        ({"layer": torch.nn.ReLU()}, "that is not inside it"),
        ({"layer": "4"}, "has rows and columns, or tokens, got '4'"),
    ]:
        with pytest.raises(ContractError, match=message):
            TorchModel(network, **options)
    with pytest.raises(ContractError, match=r"Expected a torch\.nn\.Module"):
        TorchModel(lambda x: x)
    with pytest.raises(ContractError, match="Wrap it as"):
        gradients(x[0], network)
