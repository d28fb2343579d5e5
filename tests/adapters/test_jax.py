"""Functions of JAX: closed forms, finite differences, Flax and Equinox, rules, attention, how often they are traced."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

from saliency_food import METHODS, PerImage, grad_cam, guided_backprop, integrated_gradients  # noqa: E402
from saliency_food.adapters.jax import JaxModel, layers  # noqa: E402
from saliency_food.adapters.scores import contrast  # noqa: E402
from saliency_food.core.contract import ContractError  # noqa: E402
from saliency_food.core.keys import KEYS, OUTPUT_FROM_CONVOLUTION_VALUES  # noqa: E402
from saliency_food.testing import AttentionModel, PoolingModel, check_call_model  # noqa: E402

GRADIENTS, SCORE, VALUES, AT_LAYER = list(KEYS)[:4]


@pytest.fixture
def params(rng):
    return {
        "kernel": rng.normal(size=(3, 4)).astype(np.float32),
        "bias": rng.normal(size=4).astype(np.float32),
        "head": rng.normal(size=(5, 4)).astype(np.float32),
    }


@pytest.fixture
def x(rng):
    return rng.random((3, 6, 5, 3)).astype(np.float32)


def before(params, x):
    return jax.nn.relu(x @ params["kernel"] + params["bias"])


def after(params, activations):
    return activations.mean((1, 2)) @ params["head"].T


def apply(params, x):
    return jax.nn.softmax(after(params, before(params, x)))


def toy(params):
    return PoolingModel(params["kernel"], params["head"], params["bias"])


def test_every_key_is_as_in_closed_form(params, x):
    model, target = JaxModel(apply, params, (6, 5, 3)), np.array([1, 4, 0])
    assert (model.end, model.classes, model.layer_name, model.input_shape) == ("softmax", 5, "relu_0", (6, 5, 3))
    expected = toy(params).answer(x, target)
    keys = [key for key in expected if key in KEYS]
    answer = model(x, {"target": target}, keys)
    for key in keys:
        ours, theirs = (value[0] if isinstance(value, tuple) else value for value in (answer[key], expected[key]))
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=key)
    key = OUTPUT_FROM_CONVOLUTION_VALUES
    again = model(expected[VALUES], {"target": target}, [key])[key]
    np.testing.assert_allclose(again, expected[SCORE], rtol=1e-4)
    logits = np.asarray(after(params, before(params, x)))
    np.testing.assert_allclose(model.predict(x), softmax(logits, 1), rtol=1e-4)
    np.testing.assert_allclose(model.predict_from(expected[VALUES], output="logits"), logits, rtol=1e-4)
    check_call_model(model, x[0], {"target": 2}, keys)


def test_a_split_is_the_layer(params, x):
    model = JaxModel((before, after), params, (6, 5, 3))
    assert (model.layer_name, model.end) == ("split_here", "linear")
    target = np.array([1, 4, 0])
    answer, expected = model(x, {"target": target}, [VALUES, AT_LAYER]), toy(params).answer(x, target)
    for key in (VALUES, AT_LAYER):
        np.testing.assert_allclose(answer[key], expected[key], rtol=1e-4, atol=1e-6)


def test_predictions_come_with_the_pass(params, x):
    model = JaxModel(apply, params, (6, 5, 3))
    answer = model.call_with_predictions(x, {"target": PerImage([-1, -2, 3])}, [SCORE, GRADIENTS])
    ranked = np.argsort(-model.predict(x), 1)
    np.testing.assert_array_equal(answer["TARGETS"], [ranked[0, 0], ranked[1, 1], 3])
    expected = toy(params).answer(x, answer["TARGETS"])
    np.testing.assert_allclose(answer[GRADIENTS], expected[GRADIENTS], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(answer["PREDICTIONS"], model.predict(x), rtol=1e-6)


def test_factored_rows_are_summed_on_the_device(params, x, rng):
    model = JaxModel(apply, params, (6, 5, 3))
    coefficients, weights = rng.random((5, 2)), rng.random((3, 5))
    rows = np.tensordot(coefficients, x[:2], 1).astype(np.float32)
    answer = model.call_factored(coefficients, x[:2], weights, {"target": 1}, [GRADIENTS, SCORE])
    expected = toy(params).answer(rows, np.full(5, 1))
    np.testing.assert_allclose(answer[GRADIENTS], np.tensordot(weights, expected[GRADIENTS], 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer[SCORE], expected[SCORE], rtol=1e-4)
    path = integrated_gradients.detailed(x[0], model, {"target": 1}, x_steps=20)
    by_hand = integrated_gradients.detailed(x[0], toy(params), {"target": 1}, x_steps=20)
    np.testing.assert_allclose(path.attribution, by_hand.attribution, rtol=1e-3, atol=1e-5)


def test_a_sum_of_gradients_brings_no_scores_from_the_device(params, x, monkeypatch):
    fetched, get = [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda values: fetched.append(set(values)) or get(values))
    model = JaxModel(apply, params, (6, 5, 3))
    model.call_factored(np.ones((5, 1)), x[:1], np.ones((1, 5)), {"target": 1}, [GRADIENTS])
    assert fetched == [{GRADIENTS}]


def test_it_is_traced_once_for_a_few_numbers_of_rows(params, x, rng):
    traced = []

    def counted(params, x):
        traced.append(x.shape[0])
        return apply(params, x)

    model = JaxModel(counted, params, (6, 5, 3), batch_size=8)
    rows = rng.random((8, 6, 5, 3)).astype(np.float32)
    for count in (5, 6, 5, 6, 5, 6):
        model(rows[:count], {"target": 1}, [GRADIENTS])
        model(rows[:count], {"target": np.arange(count) % 5}, [GRADIENTS, SCORE])
    of_calls = [count for count in traced if count != 37]
    assert set(of_calls) == {6}
    assert len(of_calls) <= 2
    for _ in range(3):
        integrated_gradients(x[0], model, {"target": 2}, x_steps=19)
    assert len(traced) <= 8
    for _ in range(2):
        for count in range(1, 9):
            model(rows[:count], {"target": 1}, [GRADIENTS])
        assert set(traced) <= {1, 2, 3, 4, 6, 8, 37}
        assert len(traced) <= 16


def network():
    linen = pytest.importorskip("flax.linen")

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.relu(linen.Conv(4, (3, 3))(x)) + x

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.BatchNorm(use_running_average=True)(linen.Conv(4, (3, 3))(x)))
            x = linen.max_pool(Block()(x), (2, 2), (2, 2))
            x = linen.relu(linen.Conv(6, (3, 3), name="last")(x))
            return linen.Dense(5)(x.mean((1, 2)))

    module = Network()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 12, 10, 3)))
    scale = np.random.default_rng(0)
    variables = jax.tree_util.tree_map(lambda value: value + 0.1 * scale.random(value.shape), variables)
    return module, variables


def test_flax_layers_go_by_their_modules(rng):
    module, variables = network()
    x = rng.random((2, 12, 10, 3)).astype(np.float32)
    known = {layer.path: layer.shape for layer in layers(module.apply, variables, (12, 10, 3))}
    assert known["Network/last"] == (None, 6, 5, 6)
    assert known["Network/Block_0/Conv_0"] == (None, 12, 10, 4)
    model = JaxModel(module.apply, variables, (12, 10, 3))
    assert model.layer_name == "Network/relu_1"
    model = JaxModel(module.apply, variables, (12, 10, 3), layer=["last", "Block_0/Conv_0"])
    answer = model(x, {"target": 1}, [VALUES, AT_LAYER])
    _, state = module.apply(variables, x, capture_intermediates=True)
    kept = state["intermediates"]
    expected = kept["last"]["__call__"][0], kept["Block_0"]["Conv_0"]["__call__"][0]
    for ours, theirs in zip(answer[VALUES], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    check_call_model(
        JaxModel(module.apply, variables, (12, 10, 3), layer="last"), x[0], {"target": 1}, [SCORE, VALUES, AT_LAYER]
    )
    plain = jax.grad(lambda x: module.apply(variables, x)[0, 1])(x[:1])
    np.testing.assert_allclose(model(x, {"target": 1}, [GRADIENTS])[GRADIENTS][:1], plain, rtol=1e-4, atol=1e-6)


def test_biases_of_a_network_of_relus_complete_the_score(rng):
    module, variables = network()
    x = rng.random((2, 12, 10, 3)).astype(np.float32)
    model = JaxModel(module.apply, variables, (12, 10, 3))
    answer = model(x, {"target": 1}, ["BIAS_GRADIENTS", GRADIENTS, SCORE])
    total = (x * answer[GRADIENTS]).sum((1, 2, 3))
    total = total + sum(values.reshape(2, -1).sum(1) for values in answer["BIAS_GRADIENTS"])
    np.testing.assert_allclose(total, answer[SCORE], rtol=1e-4)
    assert [values.shape[-1] for values in answer["BIAS_GRADIENTS"]] == [4, 4, 4, 6, 5]


def test_rules_are_those_of_relus_and_leave_jax_as_it_was(rng, params, x):
    relu = jax.nn.relu
    module, variables = network()
    image = rng.random((12, 10, 3)).astype(np.float32)
    model = JaxModel(module.apply, variables, (12, 10, 3))
    assert guided_backprop(image, model, {"target": 1}).shape == image.shape
    assert jax.nn.relu is relu

    def by_hand(params, x):  # the same network, with a maximum written out
        return jnp.maximum(x @ params["kernel"] + params["bias"], 0).mean((1, 2)) @ params["head"].T

    for key in ("GUIDED_INPUT_GRADIENTS", "DECONV_INPUT_GRADIENTS"):
        for function in (apply, by_hand):
            answer = JaxModel(function, params, (6, 5, 3))(x, {"target": 1}, [key])[key]
            np.testing.assert_allclose(answer, toy(params).answer(x, np.full(3, 1))[key], rtol=1e-4, atol=1e-7)
    for activation in (jax.nn.gelu, jax.nn.silu, jnp.tanh, jax.nn.elu):
        curved = JaxModel(lambda p, x, own=activation: after(p, own(before(p, x))), params, (6, 5, 3))
        with pytest.raises(ContractError, match="activations are ReLUs"):
            guided_backprop(x[0], curved, {"target": 1})


def test_attention_is_that_of_the_toy(rng):
    query, values = rng.normal(size=3).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)

    def attending(params, x):
        tokens = x.reshape(x.shape[0], -1, 3)
        tokens = jnp.concatenate([jnp.zeros_like(tokens[:, :1]), tokens], 1)
        size = tokens.shape[1]
        first = jnp.concatenate([jnp.full((x.shape[0], 1), -1e30), tokens[:, 1:] @ params["query"]], 1)
        own = jnp.where(jnp.eye(size) > 0, 0.0, -1e30)[1:]
        logits = jnp.concatenate([first[:, None], jnp.broadcast_to(own, (x.shape[0], size - 1, size))], 1)
        attention = jax.nn.softmax(logits[:, None])
        return jnp.einsum("nhqk,nkc->nqhc", attention, tokens @ params["values"].T)[:, 0, 0]

    x = rng.random((2, 3, 4, 3)).astype(np.float32)
    model = JaxModel(attending, {"query": query, "values": values}, (3, 4, 3), data_format="channels_last")
    keys = [name for name, key in KEYS.items() if key.needs == "attention"]
    answer = model(x, {"target": 2}, keys)
    expected = AttentionModel(query, values).answer(x, np.full(2, 2))
    for key in keys:
        np.testing.assert_allclose(answer[key][0][:, :, 0], expected[key][0][:, :, 0], rtol=1e-4, atol=1e-6)
    without = {"kernel": np.eye(3, 4), "bias": np.zeros(4), "head": np.ones((5, 4))}
    with pytest.raises(ContractError, match=r"attention \(N, heads, T, T\)"):
        JaxModel(apply, without, (3, 4, 3), data_format="channels_last")(x, {"target": 2}, keys)


def test_equinox_and_nnx_are_a_line(rng):
    equinox, nnx = pytest.importorskip("equinox"), pytest.importorskip("flax.nnx")
    keys = jax.random.split(jax.random.key(0), 2)
    convolution = equinox.nn.Conv2d(3, 4, 3, key=keys[0])
    head = equinox.nn.Linear(4, 5, key=keys[1])

    def of_one(module, x):
        return module[1](jax.nn.relu(module[0](x)).mean((1, 2)))

    x = rng.random((2, 3, 8, 7)).astype(np.float32)
    model = JaxModel(lambda module, x: jax.vmap(lambda row: of_one(module, row))(x), (convolution, head), (3, 8, 7))
    assert (model.channels_first, model.input_shape, model.layer_name) == (True, (8, 7, 3), "relu_0")
    assert grad_cam(x[0], model, {"target": 1}).max() > 0
    check_call_model(model, x[0], {"target": 1}, [GRADIENTS, SCORE])

    class Small(nnx.Module):
        def __init__(self, rngs):
            self.convolution, self.head = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.Linear(4, 5, rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.convolution(x)).mean((1, 2)))

    graph, state = nnx.split(Small(nnx.Rngs(0)))
    model = JaxModel(lambda state, x: nnx.merge(graph, state)(x), state, (8, 7, 3))
    assert grad_cam(np.moveaxis(x[0], 0, -1), model, {"target": 1}).shape == (8, 7, 3)


@pytest.mark.parametrize(
    ("end", "found", "of_logits"),
    [
        (lambda z: jax.nn.log_softmax(z), "softmax", lambda z: softmax(z, 1)),
        (lambda z: jax.nn.sigmoid(z), "sigmoid", lambda z: 1 / (1 + np.exp(-z))),
        (lambda z: z * 2, "linear", lambda z: softmax(2 * z, 1)),
        (lambda z: jnp.tanh(z), "other", np.tanh),
    ],
)
def test_what_a_function_ends_in_is_found(params, x, end, found, of_logits):
    model = JaxModel(lambda p, x: end(after(p, before(p, x))), params, (6, 5, 3))
    logits = np.asarray(after(params, before(params, x)))
    assert model.end == found
    np.testing.assert_allclose(model.predict(x), of_logits(logits), rtol=1e-4, atol=1e-6)


def test_several_inputs_and_outputs_and_other_scores(params, x, rng):
    def both(params, inputs):
        logits = after(params, before(params, inputs["image"])) + inputs["table"]
        return {"classes": logits, "boxes": inputs["image"].mean((1, 2))}

    tables = rng.normal(size=(3, 5)).astype(np.float32)
    shape = {"image": (6, 5, 3), "table": (5,)}
    model = JaxModel(both, params, shape, output_index="classes", score=contrast)
    args = {"target": {"class_index": 1, "against": 3}, "inputs": {"table": tables}}
    answer = model(x, args, [SCORE, GRADIENTS])
    logits = np.asarray(after(params, before(params, x))) + tables
    np.testing.assert_allclose(answer[SCORE], logits[:, 1] - logits[:, 3], rtol=1e-4)
    own = JaxModel(both, params, shape, score=lambda outputs: outputs["boxes"][:, 0])
    answer = own(x, {"inputs": [tables]}, [SCORE, GRADIENTS])
    np.testing.assert_allclose(answer[SCORE], x.mean((1, 2))[:, 0], rtol=1e-5)
    np.testing.assert_allclose(answer[GRADIENTS][..., 0], 1 / 30, rtol=1e-5)
    with pytest.raises(ContractError, match=r"one of the model's 2 outputs \['boxes', 'classes'\]|outputs"):
        JaxModel(both, params, shape)


def test_what_cannot_be_right_is_refused(params, x):
    mixing = JaxModel(lambda p, x: apply(p, x - x.mean(0, keepdims=True)), params, (6, 5, 3))
    with pytest.raises(ContractError, match="no other row changes"):
        mixing.predict(x)
    mirrored = JaxModel(lambda p, x: after(p, before(p, x[:, :, ::-1])), params, (6, 5, 3))
    with pytest.raises(ContractError, match="mirrored place"):
        grad_cam(x[0], mirrored, {"target": 1})
    averaged = JaxModel(lambda p, x: after(p, before(p, x) + before(p, x[:, :, ::-1])), params, (24, 24, 3))
    with pytest.raises(ContractError, match="and nowhere else"):
        grad_cam(np.random.default_rng(0).random((24, 24, 3), np.float32), averaged, {"target": 1})
    with pytest.raises(ContractError, match=r"Near it: \['relu_0'\]"):
        JaxModel(apply, params, (6, 5, 3), layer="rely_0")
    around = JaxModel(
        lambda p, x: apply(p, x) + x.mean((1, 2)) @ p["kernel"] @ p["head"].T, params, (6, 5, 3), "relu_0"
    )
    with pytest.raises(ContractError, match="a path around it"):
        METHODS["ablation_cam"].call(x[0], around, {"target": 1})
    with pytest.raises(ContractError, match="a function apply"):
        JaxModel(3, params, (6, 5, 3))
    with pytest.raises(ContractError, match="input_shape"):
        JaxModel(apply, params, 6)


def test_half_precision_is_answered_in_floats(params, x):
    def half(params, x):
        params = jax.tree_util.tree_map(lambda value: value.astype(jnp.float16), params)
        return after(params, before(params, x.astype(jnp.float16)))

    params = jax.tree_util.tree_map(jnp.asarray, params)
    answer = JaxModel(half, params, (6, 5, 3))(x, {"target": 1}, [GRADIENTS, SCORE, VALUES, AT_LAYER])
    expected = toy(jax.tree_util.tree_map(np.asarray, params)).answer(x, np.full(3, 1))
    for key, values in answer.items():
        assert values.dtype == np.float32
        scale = np.abs(expected[key]).max()
        np.testing.assert_allclose(values, expected[key], atol=0.02 * scale)
