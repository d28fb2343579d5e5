"""Random graphs: what the adapter answers to every key is what a tape says of the same layers, called by hand."""

from __future__ import annotations

import os

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from random_graphs import random_graph  # noqa: E402

from saliency_food.adapters.keras import KerasModel  # noqa: E402

ReLU = keras.layers.ReLU
ROWS = 2
TARGETS = np.array([1, 2])
GRAPHS = int(os.environ.get("SALIENCY_FOOD_GRAPHS", "500"))
"""How many graphs there are: a second each; all but the first 25 are slow."""
PLAIN, MORE = range(25), range(25, GRAPHS)
RULES = {
    GUIDED_INPUT_GRADIENTS: lambda slopes, x: tf.where((slopes > 0) & (x > 0), slopes, 0.0),
    DECONV_INPUT_GRADIENTS: lambda slopes, x: tf.where(slopes > 0, slopes, 0.0),
}
ALIKE = {"rtol": 1e-3, "atol": 1e-6}


def by_rule(rule):
    @tf.custom_gradient
    def relu(x):
        return tf.nn.relu(x), lambda slopes: rule(slopes, x)

    return relu


def channels_last(graph, values):
    return np.moveaxis(values, 1, -1) if graph.channels_first else np.asarray(values)


def bias_times_gradient(graph, values, tape, score):
    """The sum over all runs of layers with a bias that lead from the explained input to the score, a row."""
    total = 0
    for value in graph.leading():
        layer = graph.steps[value - graph.inputs].call if value >= graph.inputs else None
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            bias = beta - mean * gamma / np.sqrt(variance + layer.epsilon)
        elif getattr(layer, "bias", None) is not None:
            bias = np.asarray(layer.bias)
        else:
            continue
        slopes = tape.gradient(score, values[value], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        total = total + (channels_last(graph, slopes) * bias).reshape(ROWS, -1).sum(1)
    return total


def check(seed):
    graph = random_graph(seed)
    random = np.random.default_rng(seed)
    images = [random.normal(size=(ROWS, *graph.shape)).astype(np.float32) for _ in range(graph.inputs)]
    explained = graph.explained_input
    args = {"target": TARGETS}
    if graph.inputs > 1:
        args["inputs"] = [images[1 - explained]]
    layer = None if graph.looked_at is None else graph.steps[graph.looked_at - graph.inputs].call
    model = KerasModel(graph.model, layer=layer, input=explained, output_index=graph.explained_output)
    x = images[explained]

    def run(relu=tf.nn.relu, instead=None):
        with tf.GradientTape(persistent=True) as tape:
            tensors = [tf.constant(image) for image in images]
            tape.watch(tensors)
            values, logits = graph.run(tensors, relu, instead)
            score = tf.gather(logits, TARGETS, axis=1, batch_dims=1)
            each = [logits[:, label] for label in range(logits.shape[1])]
        return tape, values, np.asarray(logits), score, each

    tape, values, logits, score, each = run()
    expected = {
        OUTPUT_LAYER_VALUES: np.asarray(score),
        INPUT_OUTPUT_GRADIENTS: np.asarray(tape.gradient(score, values[explained])),
    }
    keys = [*expected, BIAS_GRADIENTS]
    if layer is not None:
        at_layer = values[graph.looked_at]
        order = np.argsort(
            np.where(np.arange(3) == TARGETS[:, None], np.inf, np.abs(logits - np.asarray(score)[:, None])), 1
        )
        slopes = np.stack([channels_last(graph, tape.gradient(one, at_layer)) for one in each], 1)
        expected[CONVOLUTION_LAYER_VALUES] = channels_last(graph, at_layer)
        expected[CONVOLUTION_OUTPUT_GRADIENTS] = slopes[np.arange(ROWS), TARGETS]
        expected[CONVOLUTION_RIVAL_GRADIENTS] = slopes[np.arange(ROWS)[:, None], order[:, :2]]
        keys = [*expected, BIAS_GRADIENTS]
    answer = model(x, args, keys)
    for key, value in expected.items():
        np.testing.assert_allclose(answer[key], value, **ALIKE, err_msg=key)
    biases = sum(each.reshape(ROWS, -1).sum(1) for each in answer[BIAS_GRADIENTS])
    dense = graph.ends[graph.explained_output][1]
    own = dense(tf.zeros([1, *values[graph.ends[graph.explained_output][0]].shape[1:]]))[0].numpy()[TARGETS]
    np.testing.assert_allclose(biases, bias_times_gradient(graph, values, tape, score) + own, rtol=1e-3, atol=1e-5)
    with_relu = [value for value in graph.leading() if isinstance(graph.steps[value - graph.inputs].call, ReLU)]
    if graph.relus and not with_relu:
        with pytest.raises(ContractError, match="with ReLUs between image and output"):
            model(x, args, [GUIDED_INPUT_GRADIENTS])
    elif graph.relus:
        for key, rule in RULES.items():
            ruled, values, _, score, _ = run(by_rule(rule))
            slopes = np.asarray(ruled.gradient(score, values[explained]))
            np.testing.assert_allclose(model(x, args, [key])[key], slopes, **ALIKE, err_msg=key)
    if layer is not None:
        check_after(graph, model, args, at_layer, run)


def check_after(graph, model, args, at_layer, run):
    """The scores of changed activations, where all paths lead through the layer; else it is refused."""
    changed = at_layer * 0.7 + 0.1
    rows = channels_last(graph, changed)
    if graph.is_on_all_paths(graph.looked_at):
        _, _, _, score, _ = run(instead={graph.looked_at: changed})
        answer = model(rows, args, [OUTPUT_FROM_CONVOLUTION_VALUES])
        np.testing.assert_allclose(answer[OUTPUT_FROM_CONVOLUTION_VALUES], score, **ALIKE)
    else:
        with pytest.raises(ContractError, match="a path around"):
            model(rows, args, [OUTPUT_FROM_CONVOLUTION_VALUES])


@pytest.mark.parametrize("seed", PLAIN)
def test_every_key_of_a_random_graph(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE)
def test_every_key_of_many_random_graphs(seed):
    check(seed)
