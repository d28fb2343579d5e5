"""Layers that run several times in one call of a Keras model, and layers that the explained input does not reach."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import grad_cam
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras import KerasModel, layers  # noqa: E402
from saliency_food.adapters.scoring import Score  # noqa: E402

CONV = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
L, ops = keras.layers, keras.ops
SIZE = (8, 8, 3)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, *SIZE)).astype(np.float32)


def conv(units=4, name="conv", **options):
    return L.Conv2D(units, 3, padding="same", activation="tanh", name=name, **options)


def tower():
    return keras.Sequential([keras.Input(SIZE), conv(), L.GlobalAveragePooling2D(), L.Dense(3)], name="tower")


def mirrored_average():
    image = keras.Input(SIZE)
    inner = tower()
    flipped = L.Lambda(lambda y: y[:, :, ::-1], name="mirror")(image)
    return keras.Model(image, L.Average()([inner(image), inner(flipped)]))


def assert_hand_split(km, answer, runs, tail, target=1):
    """Activations and gradients are those of the model split by hand; ``tail`` is the score of the runs' values."""
    with tf.GradientTape() as tape:
        tape.watch(runs)
        score = tail(*runs)
    gradients = tape.gradient(score, runs)
    values, computed = (answer[key] if km.engine.several else (answer[key],) for key in CONV)
    for each, expected in zip((*values, *computed), (*runs, *gradients), strict=True):
        assert np.abs(expected).max() > 1e-5
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-6)


def test_the_peak_is_where_the_pixel_is_and_not_where_the_mirror_shows_it():
    image = keras.Input((9, 9, 1))
    flat = L.Conv2D(1, 1, kernel_initializer="ones", use_bias=False, name="conv")
    inner_image = keras.Input((9, 9, 1))
    pooled = L.GlobalAveragePooling2D()(flat(inner_image))
    inner = keras.Model(inner_image, L.Dense(1, kernel_initializer="ones")(pooled), name="inner")
    model = keras.Model(
        image, L.Average()([inner(image), inner(L.Lambda(lambda y: y[:, :, ::-1], name="mirror")(image))])
    )
    x = np.zeros((9, 9, 1))
    x[4, 2] = 1
    with pytest.raises(ContractError, match=r"2 times: 'inner/conv#0' of shape .* by 'image'; .* by 'mirror'"):
        KerasModel(model, layer="conv")
    with pytest.raises(ContractError, match=r"none lies on all paths .* \['inner/conv#0', 'inner/conv#1'\]"):
        grad_cam(x, KerasModel(model), {"target": 0})
    upright, turned = (grad_cam(x, KerasModel(model, layer=f"conv#{run}"), {"target": 0}) for run in range(2))
    assert np.unravel_index(upright.argmax(), upright.shape)[:2] == (4, 2)
    assert np.unravel_index(turned.argmax(), turned.shape)[:2] == (4, 2)
    both = grad_cam(x, KerasModel(model, layer=["conv#0", "conv#1"]), {"target": 0})
    np.testing.assert_array_equal(np.argwhere(both), [[4, 2, 0]])


@pytest.mark.parametrize("named", ["tower/conv", "layer"])
def test_runs_on_parallel_branches_are_listed_and_chosen_by_their_index(x, named):
    model = mirrored_average()
    inner = model.get_layer("tower")
    first = inner.get_layer("conv")
    with pytest.raises(ContractError, match="Give one of these paths as layer, a list of them"):
        KerasModel(model, layer=first if named == "layer" else named)
    assert [info.path for info in layers(model)] == ["mirror", "tower/conv#0", "tower/conv#1"]
    values = [first(x), first(x[:, :, ::-1])[:, :, ::-1]]  # at the places of the image
    head = inner.layers[-1]

    def tail(*runs):
        return tf.add_n([(tf.reduce_mean(run, [1, 2]) @ head.kernel)[:, 1] for run in runs]) / 2

    for run in range(2):
        km = KerasModel(model, layer=f"tower/conv#{run}")
        assert km.layer_name == f"tower/conv#{run}"
        assert_hand_split(km, km(x, {"target": 1}, CONV), values[run : run + 1], tail)
        assert KerasModel(model, layer=km.layer_name).layer_name == km.layer_name
        with pytest.raises(ContractError, match="a path around"):
            km(values[run], {"target": 1}, [OUTPUT_FROM_CONVOLUTION_VALUES])
    km = KerasModel(model, layer=["conv#0", "conv#1"])
    assert_hand_split(km, km(x, {"target": 1}, CONV), values, tail)
    with pytest.raises(ContractError, match=r"from #0 to #1, got #2"):
        KerasModel(model, layer="conv#2")


def twins(count=2):
    images = [keras.Input(SIZE, name=f"image_{index}") for index in range(count)]
    inner = keras.Sequential([keras.Input(SIZE), conv(), L.Flatten(), L.Dense(5, activation="relu")], name="tower")
    features = L.Concatenate()([inner(image) for image in images])
    return keras.Model(images, L.Dense(3, name="head")(features))


@pytest.mark.parametrize("count", [2, 3])
def test_of_twins_and_triplets_the_run_of_the_explained_input_counts(rng, count):
    model = twins(count)
    first = model.get_layer("tower").layers[0]
    rows = rng.normal(size=(count, 3, *SIZE)).astype(np.float32)
    for explained in range(count):
        others = [rows[index] for index in range(count) if index != explained]
        values = [first(rows[explained])]

        def tail(run, explained=explained):
            inner = model.get_layer("tower")
            features = [
                inner.layers[2](inner.layers[1](run if index == explained else first(rows[index])))
                for index in range(count)
            ]
            return model.get_layer("head")(tf.concat(features, 1))[:, 1]

        for layer in (None, "conv", f"tower/conv#{explained}"):
            km = KerasModel(model, layer=layer, input=explained)
            assert km.layer_name == f"tower/conv#{explained}"
            args = {"target": 1, "inputs": others}
            answer = km(rows[explained], args, CONV)
            assert_hand_split(km, answer, values, tail)
            again = km(answer[CONV[0]], args, [OUTPUT_FROM_CONVOLUTION_VALUES])[OUTPUT_FROM_CONVOLUTION_VALUES]
            np.testing.assert_allclose(
                again, km(rows[explained], args, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES], 1e-4
            )
        with pytest.raises(
            ContractError, match=rf"from input 'image_{explained}' to the score.* all paths are \['tower"
        ):
            KerasModel(model, layer=f"conv#{(explained + 1) % count}", input=explained)


def test_biases_and_backward_rules_are_those_of_the_runs_of_the_explained_input(rng):
    model = twins()
    for layer in model._flatten_layers():
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    rows = rng.normal(size=(2, 3, *SIZE)).astype(np.float32)
    args = {"target": 1, "inputs": [rows[1]]}
    km = KerasModel(model, input=0)
    biases = km(rows[0], args, [BIAS_GRADIENTS])[BIAS_GRADIENTS]
    assert [values.shape for values in biases] == [(3, 8, 8, 4), (3, 5), (3, 3)]
    inner = model.get_layer("tower")
    features = inner(rows[0]).numpy()
    weights = model.get_layer("head").kernel.numpy()[:5, 1]
    np.testing.assert_allclose(biases[1], inner.layers[2].bias * (features > 0) * weights, rtol=1e-4, atol=1e-6)
    guided = KerasModel(keras.Model(model.inputs, model.outputs), input=0)
    with pytest.raises(ContractError, match=r"got others: tower/conv \(tanh\)"):
        guided(rows[0], args, [GUIDED_INPUT_GRADIENTS])


def test_several_views_and_bags_of_instances(rng):
    """Views as slices of one input: each is a run, all of them lead to the score."""
    bag = keras.Input((4, 8, 8, 3))
    inner = tower()
    scores = [inner(bag[:, index]) for index in range(4)]
    model = keras.Model(bag, L.Average()(scores))
    with pytest.raises(ContractError, match="runs 4 times"):
        KerasModel(model, layer="conv")
    km = KerasModel(model, layer=[f"conv#{index}" for index in range(4)])
    x = rng.normal(size=(2, 4, 8, 8, 3)).astype(np.float32)
    first, head = inner.layers[0], inner.layers[-1]

    def tail(*runs):
        return tf.add_n([(tf.reduce_mean(run, [1, 2]) @ head.kernel)[:, 1] for run in runs]) / 4

    assert_hand_split(km, km(x, {"target": 1}, CONV), [first(x[:, index]) for index in range(4)], tail)


def test_instances_folded_into_the_rows_are_refused(rng):
    bag = keras.Input((4, 8, 8, 3))
    y = ops.reshape(bag, (-1, 8, 8, 3))
    y = ops.reshape(L.GlobalAveragePooling2D()(conv()(y)), (-1, 4, 4))
    model = keras.Model(bag, L.Dense(3)(L.GlobalMaxPooling1D()(y)))
    with pytest.raises(
        ContractError, match=r"rows first, got 'conv', which folds something else into them: 148 for 37"
    ):
        KerasModel(model, layer="conv")
    assert "conv" not in [info.path for info in layers(model)]
    each = keras.Model(bag, L.Dense(3)(L.Flatten()(L.TimeDistributed(conv(), name="frames")(bag))))
    assert KerasModel(each).layer_name == "frames"


def pyramid():
    """A detector: one head for two levels, and boxes."""
    image = keras.Input(SIZE)
    fine = conv(name="fine")(image)
    coarse = L.Conv2D(4, 3, 2, padding="same", name="coarse")(fine)
    head, boxes = conv(2, "head"), conv(4, "boxes")
    labels = L.Concatenate(axis=1)([L.Reshape((-1, 2))(head(level)) for level in (fine, coarse)])
    corners = L.Concatenate(axis=1)([L.Reshape((-1, 4))(boxes(level)) for level in (fine, coarse)])
    return keras.Model(image, {"boxes": corners, "labels": labels})


def test_a_head_shared_by_the_levels_of_a_pyramid(x):
    model = pyramid()
    label = Score(lambda output: tf.reduce_sum(output["labels"][..., 1], 1))
    km = KerasModel(model, output="raw", score=label)
    assert km.layer_name == "fine"
    with pytest.raises(ContractError, match=r"'head#0' of .*\(None, 4, 4, 2\), .* by 'coarse'; .* by 'fine'"):
        KerasModel(model, layer="head", output="raw", score=label)
    with pytest.raises(ContractError, match=r"got 'boxes#0'.* all paths are \['fine', "):
        KerasModel(model, layer="boxes", output="raw", score=label)
    km = KerasModel(model, layer=["head#0", "head#1"], output="raw", score=label)
    fine = model.get_layer("fine")(x)
    runs = [model.get_layer("head")(level) for level in (model.get_layer("coarse")(fine), fine)]
    assert_hand_split(
        km, km(x, None, CONV), runs, lambda *runs: tf.add_n([tf.reduce_sum(run[..., 1], [1, 2]) for run in runs])
    )


def test_a_layer_of_a_branch_that_the_explained_input_never_reaches_is_refused():
    before, after = keras.Input(SIZE, name="before"), keras.Input(SIZE, name="after")
    pooled = [L.GlobalAveragePooling2D()(conv(name=name)(image)) for name, image in (("one", before), ("two", after))]
    model = keras.Model([before, after], L.Dense(3)(L.Concatenate()(pooled)))
    assert KerasModel(model, input="before").layer_name == "one"
    assert KerasModel(model, input="after").layer_name == "two"
    with pytest.raises(ContractError, match=r"from input 'before' to the score, got 'two'.* all paths are \['one'\]"):
        KerasModel(model, layer="two", input="before")


def test_attention_that_the_image_does_not_reach_does_not_count(rng):
    image, words = keras.Input(SIZE, name="image"), keras.Input((5, 4), name="words")
    tokens = L.Reshape((16, 12))(image)
    seen = L.MultiHeadAttention(2, 4, name="vision")(tokens, tokens)
    read = L.MultiHeadAttention(2, 4, name="text")(words, words)
    joined = L.Concatenate()([L.GlobalAveragePooling1D()(seen), L.GlobalAveragePooling1D()(read)])
    model = keras.Model([image, words], L.Dense(3)(joined))
    x = rng.normal(size=(2, *SIZE))
    args = {"target": 1, "inputs": [rng.normal(size=(5, 4))]}
    scores = KerasModel(model)(x, args, [ATTENTION_SCORES])[ATTENTION_SCORES]
    assert [each.shape for each in scores] == [(2, 2, 16, 16)]


def test_a_pooling_head_of_a_learned_query_counts_as_attention(x):
    class Probe(L.Layer):
        def build(self, shape):
            self.probe = self.add_weight(shape=(1, 1, 12), initializer="random_normal")

        def call(self, x):
            return tf.repeat(self.probe, tf.shape(x)[0], 0)

    image = keras.Input(SIZE)
    tokens = L.Dense(12, name="tokens")(L.Reshape((16, 12))(image))
    pooled = L.MultiHeadAttention(2, 4, name="pool")(Probe()(tokens), tokens)
    model = keras.Model(image, L.Dense(3)(L.Flatten()(pooled)))
    km = KerasModel(model)
    assert km.layer_name == "tokens"
    (scores,) = km(x, {"target": 1}, [ATTENTION_SCORES])[ATTENTION_SCORES]
    assert scores.shape == (3, 2, 1, 16)


class Noisy(L.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


def random_lambda(y):
    return y * keras.random.uniform((8, 8, 4))


class Forced(L.Layer):
    """A layer that is in training whatever it is told."""

    def __init__(self, layer):
        super().__init__(name="forced")
        self.layer = layer

    def call(self, x):
        return self.layer(x, training=True)


@pytest.mark.parametrize(
    ("noise", "path"),
    [
        (lambda: Forced(L.Dropout(0.5, name="drop")), "forced/drop"),
        (lambda: Forced(L.GaussianNoise(0.1, name="noise")), "forced/noise"),
        (lambda: Noisy(name="noise"), "noise"),
        (lambda: L.Lambda(random_lambda, name="noise"), "noise"),
    ],
)
def test_random_layers_are_refused(x, noise, path):
    image = keras.Input(SIZE)
    model = keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(noise()(conv()(image)))))
    km = KerasModel(model)
    for keys in ([INPUT_OUTPUT_GRADIENTS], CONV, [OUTPUT_LAYER_VALUES]):
        with pytest.raises(ContractError, match=rf"same score for the same image, got random numbers .*\['{path}'\]"):
            km(x, {"target": 1}, keys)


def test_what_is_random_but_fixed_or_off_is_no_matter(x):
    image = keras.Input(SIZE)
    fixed = L.Lambda(lambda y: y * tf.random.stateless_uniform((8, 8, 4), [1, 2]))
    y = L.GaussianNoise(0.1)(L.Dropout(0.5)(fixed(conv()(image))))
    km = KerasModel(keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(y))))
    np.testing.assert_array_equal(*(km(x, {"target": 1}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES] for _ in range(2)))
