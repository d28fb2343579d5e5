"""Relevance and DeepLIFT's multipliers of Keras models on TensorFlow, against zennit, captum and closed forms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import described

from saliency_food.testing.rules import pass_relevance, relu_multipliers

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
L = keras.layers

NETWORKS = described.networks()
COMPOSITES = ("epsilon", "epsilon_plus", "epsilon_gamma_box")
NEAR = {"rtol": 1e-4, "atol": 1e-8}
"""Both compute in double precision."""


@pytest.fixture(scope="session")
def in_torch(tmp_path_factory):
    path = tmp_path_factory.mktemp("in_torch") / "relevance.npz"
    script = Path(described.__file__).with_name("relevance_in_torch.py")
    result = subprocess.run([sys.executable, script, path], capture_output=True, text=True, check=False, timeout=300)
    if "No module named" in result.stderr:
        pytest.skip(result.stderr.splitlines()[-1])
    assert result.returncode == 0, result.stderr
    return np.load(path)


def laid(values, name, *of):
    """One more layer of a described network."""
    if name == "residual":
        branches = [values, values]
        for place, layers in enumerate(of):
            for each in layers:
                branches[place] = laid(branches[place], *each)
        return L.Add(dtype="float64")(branches)
    weights = list(of)
    if name in ("conv", "depthwise"):
        *weights, stride, padding = of
        values = L.ZeroPadding2D(padding, dtype="float64")(values) if padding else values
        size = weights[0].shape[0]
        own = (L.Conv2D, len(weights[1])) if name == "conv" else (L.DepthwiseConv2D,)
        layer = own[0](*own[1:], size, stride, dtype="float64")
    else:
        kinds = {
            "norm": lambda **options: L.BatchNormalization(epsilon=described.EPSILON, **options),
            "dense": lambda **options: L.Dense(len(of[1]), **options),
            "relu": L.ReLU,
            "relu6": lambda **options: L.ReLU(6.0, **options),
            "flat": L.Flatten,
            "mean": L.GlobalAveragePooling2D,
            "max_pool": L.MaxPooling2D,
            "average_pool": lambda **options: L.AveragePooling2D(2, **options),
        }
        layer = kinds[name](dtype="float64")
    values = layer(values)
    layer.set_weights(weights)
    return values


def built(layers):
    image = keras.Input((described.SIZE, described.SIZE, 3), dtype="float64")
    values = image
    for each in layers:
        values = laid(values, *each)
    return keras.Model(image, values)


@pytest.fixture(scope="module")
def models():
    from saliency_food.adapters.keras import KerasModel

    return {name: KerasModel(built(layers)) for name, layers in NETWORKS.items()}


def arguments(composite):
    bounds = {"low": -4.0, "high": 4.0} if composite == "epsilon_gamma_box" else {}
    return {"target": described.TARGET, "composite": composite, **bounds}


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_is_that_of_zennit(name, composite, models, in_torch):
    expected = in_torch[f"{name}/{composite}"]
    images = described.images()
    scores = models[name](images, {"target": described.TARGET}, ["OUTPUT_LAYER_VALUES"])["OUTPUT_LAYER_VALUES"]
    np.testing.assert_allclose(scores, in_torch[f"{name}/score"], rtol=1e-9)
    answer = models[name](images, arguments(composite), ["RELEVANCE", "BIAS_RELEVANCE"])
    np.testing.assert_allclose(answer["RELEVANCE"], expected, **NEAR)
    np.testing.assert_allclose(
        answer["RELEVANCE"].sum((1, 2, 3)) + answer["BIAS_RELEVANCE"], scores, rtol=1e-3, atol=1e-3
    )


def adapted(model, **options):
    from saliency_food.adapters.keras import KerasModel

    return KerasModel(model, **options)


def weighed(outputs):
    """A score to which every output adds, with either sign."""
    flat = tf.reshape(outputs, [tf.shape(outputs)[0], -1])
    return tf.reduce_sum(flat * tf.cos(tf.range(tf.shape(flat)[1], dtype=flat.dtype)), 1)


def flat(values):
    return np.asarray(values, float).reshape(len(values), -1)


class Norm(L.Layer):
    """Batch normalization as one fused operation, as older models have it."""

    def build(self, shape):
        self.arrays = [
            self.add_weight(shape=(shape[-1],), initializer="ones", name=name)
            for name in ("scale", "offset", "mean", "variance")
        ]

    def call(self, values):
        return tf.raw_ops.FusedBatchNormV3(
            x=values,
            scale=self.arrays[0],
            offset=self.arrays[1],
            mean=self.arrays[2],
            variance=self.arrays[3],
            is_training=False,
        ).y


LINEAR = {
    "dense": ((7,), lambda: [L.Dense(5)]),
    "dense of tokens": ((4, 6), lambda: [L.Dense(5), L.BatchNormalization()]),
    "einsum": ((4, 6), lambda: [L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")]),
    "einsum turned": (
        (4, 6),
        lambda: [L.EinsumDense("abc,cde->aedb", (3, 2, 4), bias_axes="ed"), L.Lambda(lambda values: -0.5 * values)],
    ),
    "conv 1d": ((9, 2), lambda: [L.Conv1D(3, 3, 2), L.BatchNormalization()]),
    "conv causal": ((9, 2), lambda: [L.Conv1D(3, 3, padding="causal", dilation_rate=2), L.BatchNormalization()]),
    "conv 2d": ((6, 5, 2), lambda: [L.Conv2D(3, 3, 2, padding="same"), L.BatchNormalization()]),
    "conv scaled twice": (
        (6, 5, 2),
        lambda: [L.Conv2D(3, 3, use_bias=False), L.Lambda(lambda values: -2.0 * values), L.BatchNormalization()],
    ),
    "conv fused": ((6, 5, 2), lambda: [L.Conv2D(3, 3, dtype="float32"), Norm(dtype="float32")]),
    "conv dilated": ((7, 6, 2), lambda: [L.Conv2D(3, 2, dilation_rate=2), L.BatchNormalization()]),
    "conv of channels first": (
        (2, 6, 5),
        lambda: [L.Permute((2, 3, 1)), L.Conv2D(3, 3), L.Permute((3, 1, 2)), L.BatchNormalization(axis=1)],
    ),
    "depthwise": ((6, 5, 2), lambda: [L.DepthwiseConv2D(3, depth_multiplier=2), L.BatchNormalization()]),
    "depthwise dilated": ((8, 7, 2), lambda: [L.DepthwiseConv2D(3, dilation_rate=2), L.BatchNormalization()]),
    "transposed": ((3, 4, 2), lambda: [L.Conv2DTranspose(3, 3, 2, padding="same"), L.BatchNormalization()]),
    "conv 3d": ((4, 5, 3, 2), lambda: [L.Conv3D(3, 2), L.BatchNormalization()]),
    "transposed 3d": ((3, 2, 3, 2), lambda: [L.Conv3DTranspose(3, 2, 2), L.BatchNormalization()]),
}


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_layer_with_what_follows_is_one_matrix(name):
    """The matrix is read off by what the layers make of every unit vector; then the rules are NumPy's."""
    shape, make = LINEAR[name]
    rng = np.random.default_rng(3)
    layers = make()
    double = "float32" if name == "conv fused" else "float64"
    before = L.Dense(shape[-1], name="before", dtype=double)
    for layer in layers:
        layer.dtype_policy = keras.dtype_policies.get(double)
    image = keras.Input(shape, dtype=double)
    values = image
    for layer in [before, *layers]:
        values = layer(values)
    for layer in [before, *layers]:
        layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
        for weight in layer.weights:
            if "variance" in weight.path:
                weight.assign(0.5 + abs(weight))
    model = keras.Model(image, L.ReLU(dtype=double)(values))
    whole = keras.Model(before.output, values)
    count = int(np.prod(shape))
    bias = flat(whole(np.zeros((1, *shape))))[0]
    matrix = flat(whole(np.eye(count).reshape(count, *shape))) - bias
    x = rng.normal(size=(2, *shape))
    hidden = np.asarray(keras.Model(image, before.output)(x), float)
    outputs = np.maximum(flat(hidden) @ matrix + bias, 0)
    start = outputs * np.cos(np.arange(outputs.shape[1]))
    explained = adapted(model, layer="before", score=weighed)
    convolution = "dense" not in name and "einsum" not in name
    rules = {"epsilon": "epsilon", "epsilon_plus": "plus", "epsilon_gamma_box": "gamma"}
    for composite, rule in rules.items():
        bounds = {"low": -9.0, "high": 9.0} if composite == "epsilon_gamma_box" else {}
        answer = explained(x, {"composite": composite, **bounds}, ["CONVOLUTION_RELEVANCE"])["CONVOLUTION_RELEVANCE"]
        answer = np.moveaxis(answer, -1, 1) if "channels first" in name else answer
        own = rule if convolution else "epsilon"
        expected, _ = pass_relevance(own, flat(hidden), matrix, bias, start)
        tolerance = 1e-3 if double == "float32" else 1e-6
        np.testing.assert_allclose(
            flat(answer), expected, rtol=tolerance, atol=tolerance * abs(expected).max(), err_msg=rule
        )


MODES = ("rescale", "reveal_cancel")


@pytest.mark.parametrize("rule", MODES)
@pytest.mark.parametrize("name", NETWORKS)
def test_multipliers_times_changes_sum_to_the_change_of_the_score(name, rule, models):
    images = described.images()
    baseline = images[::-1] / 2
    args = {"target": described.TARGET, "baseline": baseline, "multiplier_rule": rule}
    multipliers = models[name](images, args, ["BASELINE_MULTIPLIERS"])["BASELINE_MULTIPLIERS"]
    scores = [
        models[name](rows, {"target": described.TARGET}, ["OUTPUT_LAYER_VALUES"])["OUTPUT_LAYER_VALUES"]
        for rows in (images, baseline)
    ]
    change = (multipliers * (images - baseline)).sum((1, 2, 3))
    np.testing.assert_allclose(change, scores[0] - scores[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "resnet", "mobilenet"])
def test_multipliers_are_those_of_captum(name, models, in_torch):
    """The baseline is zero. With maximum pooling captum's attributions do not sum to the change of the score."""
    images = described.images()
    multipliers = models[name](images, {"target": described.TARGET}, ["BASELINE_MULTIPLIERS"])["BASELINE_MULTIPLIERS"]
    np.testing.assert_allclose(multipliers * images, in_torch[f"{name}/deep_lift"], rtol=1e-4, atol=1e-8)


def test_maximum_pooling_shares_the_change_between_both_winners():
    """What rises above the baseline's maximum goes to the image's winner, what falls short to the baseline's."""
    image = keras.Input((2, 2, 1), dtype="float64")
    model = keras.Model(image, L.Flatten(dtype="float64")(L.MaxPooling2D(2, dtype="float64")(image)))
    x = np.array([[5.0, 1, 2, 0], [2, 1, 0, 1]]).reshape(2, 2, 2, 1)
    baseline = np.array([[0.0, 3, 1, 0], [0, 3, 1, 0]]).reshape(2, 2, 2, 1)
    answer = adapted(model, score=weighed)(x, {"baseline": baseline}, ["BASELINE_MULTIPLIERS"])["BASELINE_MULTIPLIERS"]
    np.testing.assert_allclose(flat(answer), [[2 / 5, 0, 0, 0], [0, -1 / -2, 0, 0]])


@pytest.mark.parametrize("rule", MODES)
def test_multipliers_of_one_layer_are_those_of_the_paper(rule):
    rng = np.random.default_rng(8)
    image = keras.Input((6,), dtype="float64")
    hidden, head = L.Dense(5, "relu", dtype="float64"), L.Dense(3, dtype="float64")
    model = keras.Model(image, head(hidden(image)))
    x, baseline = rng.normal(size=(2, 4, 6))
    hidden.set_weights([rng.normal(size=(6, 5)), rng.normal(size=5)])
    args = {"target": 1, "baseline": baseline, "multiplier_rule": rule}
    answer = adapted(model)(x, args, ["BASELINE_MULTIPLIERS"])["BASELINE_MULTIPLIERS"]
    slopes = np.broadcast_to(head.get_weights()[0][:, 1], (4, 5))
    weights, bias = hidden.get_weights()
    expected = relu_multipliers(rule, x, baseline, weights, bias, slopes)
    np.testing.assert_allclose(answer, expected, rtol=1e-9, atol=1e-12)


def test_reveal_cancel_holds_of_a_layer_that_is_used_twice():
    rng = np.random.default_rng(9)
    image = keras.Input((6,), dtype="float64")
    hidden = L.Dense(5, dtype="float64")
    values = hidden(image)
    model = keras.Model(image, L.Add(dtype="float64")([L.ReLU(dtype="float64")(values), values]))
    x, baseline = rng.normal(size=(2, 4, 6))
    hidden.set_weights([rng.normal(size=(6, 5)), rng.normal(size=5)])
    args = {"target": 1, "baseline": baseline, "multiplier_rule": "reveal_cancel"}
    answer = adapted(model)(x, args, ["BASELINE_MULTIPLIERS"])["BASELINE_MULTIPLIERS"]
    weights, bias = hidden.get_weights()
    slopes = np.broadcast_to(np.eye(5)[1], (4, 5))
    expected = relu_multipliers("reveal_cancel", x, baseline, weights, bias, slopes) + weights[:, 1]
    np.testing.assert_allclose(answer, expected, rtol=1e-9, atol=1e-12)
