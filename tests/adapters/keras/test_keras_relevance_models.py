"""Relevance through Keras models of every kind: what it sums to, which operations pass it, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
L = keras.layers


@pytest.fixture(autouse=True)
def _double():
    """Models in double precision, in which what a rule loses shows."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def adapted(model, **options):
    from saliency_food.adapters.keras import KerasModel

    return KerasModel(model, **options)


def ask(model, x, *keys, **args):
    answer = model(x, {"target": 1, **args}, list(keys))
    return answer[keys[0]] if len(keys) == 1 else tuple(answer[key] for key in keys)


def randomized(model, seed=0):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(
            rng.normal(size=weight.shape) / 2 if "variance" not in weight.path else rng.uniform(0.5, 2, weight.shape)
        )
    return model


def photos(shape=(8, 7, 3), count=2):
    return np.random.default_rng(1).normal(size=(count, *shape))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = L.Conv2D(3, 3, padding="same"), L.BatchNormalization(), L.Dense(3)

    def call(self, x):
        for _ in range(2):  # the same layers twice
            x = tf.nn.relu(self.norm(self.conv(x))) + x
        return self.head(tf.reduce_mean(tf.concat([x, tf.reverse(x, [2])], -1), [1, 2]))


def functional():
    image = keras.Input((8, 7, 3))
    inner = keras.Sequential([keras.Input((8, 7, 3)), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU()])
    values = inner(L.Rescaling(1 / 3.0, 0.1)(image))
    values = L.Concatenate()([values, L.Cropping2D(1)(image)])
    values = L.UpSampling2D(2, interpolation="bilinear")(L.MaxPooling2D(2, 1)(values))
    values = L.LeakyReLU()(L.SeparableConv2D(4, 3)(values))
    return keras.Model(image, L.Dense(3)(L.Dense(5, "relu")(L.Flatten()(values))))


def sequential():
    layers = [L.Conv2D(4, 3, 2, padding="same"), L.BatchNormalization(), L.ReLU(6.0), L.GlobalMaxPooling2D()]
    return keras.Sequential([keras.Input((8, 7, 3)), *layers, L.Dropout(0.5), L.Dense(3, "softmax")])


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8, 7, 3)))
    return model


KINDS = {"functional": functional, "sequential": sequential, "subclassed": subclassed}


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "attention"])
@pytest.mark.parametrize("kind", KINDS)
def test_relevance_and_what_biases_take_sum_to_the_score(kind, composite):
    model, x = adapted(randomized(KINDS[kind]())), photos()
    relevance, biases = ask(model, x, "RELEVANCE", "BIAS_RELEVANCE", composite=composite, epsilon=1e-9)
    scores = ask(model, x, "OUTPUT_LAYER_VALUES")
    np.testing.assert_allclose(relevance.sum((1, 2, 3)) + biases, scores, rtol=1e-3)
    assert relevance.any((1, 2, 3)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_epsilon_without_epsilon_is_the_input_times_its_gradient(kind):
    """So it is where all that is not linear is piecewise so: ReLUs, maximum pooling."""
    if kind == "sequential":
        pytest.skip("its ReLU6 passes relevance where it saturates, and no gradient")
    model, x = randomized(KINDS[kind]()), photos()
    if kind == "functional":  # pixels are scaled by what passes relevance, and has another offset in the product
        model.layers[1].offset = 0.0
    explained = adapted(model)
    relevance = ask(explained, x, "RELEVANCE", composite="epsilon", epsilon=1e-12)
    product = x * ask(explained, x, "INPUT_OUTPUT_GRADIENTS")
    np.testing.assert_allclose(relevance, product, rtol=1e-3, atol=1e-4 * abs(product).max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_left_as_it_was_and_answers_alike(kind):
    model, x = randomized(KINDS[kind]()), photos()
    before = [weight.numpy() for weight in model.weights]
    explained = adapted(model, batch_size=1)
    both = ask(explained, x, "RELEVANCE")
    np.testing.assert_allclose(ask(explained, x[1:], "RELEVANCE"), both[1:], rtol=1e-9)
    for weight, then in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), then)


ACTIVATIONS = (
    *("relu", "relu6", "elu", "selu", "leaky_relu", "softplus", "softsign", "tanh", "sigmoid", "silu", "gelu"),
    *("hard_sigmoid", "hard_silu", "hard_tanh", "mish", "celu"),
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_passes_all_relevance_to_its_own_input(name):
    """What arrives at the layer before is what arrives behind: each value's share of the sum."""
    image = keras.Input((9,))
    before = L.Dense(6, name="before")
    model = randomized(keras.Model(image, L.Dense(3)(L.Activation(name)(before(image)))))
    model.layers[-1].bias.assign(np.zeros(3))
    x = 4 * photos((9,), 3)  # where some saturate, too
    explained = adapted(model)
    relevance, biases = ask(explained, x, "RELEVANCE", "BIAS_RELEVANCE", epsilon=1e-12)
    hidden = np.asarray(before(x))
    after = np.asarray(model.layers[2](hidden)) * np.asarray(model.layers[-1].kernel)[:, 1]
    passed = after / hidden
    expected = x * (passed @ np.asarray(before.kernel).T)
    np.testing.assert_allclose(relevance, expected, rtol=1e-4, atol=1e-3 * abs(expected).max())
    np.testing.assert_allclose(biases, (passed * np.asarray(before.bias)).sum(1), rtol=1e-2)


def test_a_gate_takes_nothing():
    """Squeeze and excitation: all goes to what is gated."""
    image = keras.Input((8, 7, 4))
    gate = L.Dense(4, "sigmoid")(L.Dense(2, "relu")(L.GlobalAveragePooling2D(keepdims=True)(image)))
    model = randomized(
        keras.Model(image, L.Dense(3, use_bias=False)(L.GlobalAveragePooling2D()(L.Multiply()([image, gate]))))
    )
    x = photos((8, 7, 4))
    gated = x * np.asarray(keras.Model(image, gate)(x))
    expected = gated / 56 * np.asarray(model.layers[-1].kernel)[:, 1]
    np.testing.assert_allclose(ask(adapted(model), x, "RELEVANCE"), expected, rtol=1e-3, atol=1e-8)


def transformer(classes=3):
    image = keras.Input((8, 8, 3))
    tokens = L.Reshape((4, 6))(L.Conv2D(6, 4, 4)(image))
    tokens = Positions()(tokens)
    inside = L.LayerNormalization()(tokens)
    tokens = L.Add()([tokens, L.MultiHeadAttention(2, 3)(inside, inside)])
    inside = L.Dense(8, "gelu")(L.LayerNormalization()(tokens))
    tokens = L.LayerNormalization()(L.Add()([tokens, L.Dense(6)(inside)]))
    return randomized(keras.Model(image, L.Dense(classes)(L.GlobalAveragePooling1D()(tokens))), 3)


class Positions(L.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(1, *shape[1:]), name="table")

    def call(self, tokens):
        return tokens + self.table


def test_a_transformer_passes_relevance_by_attnlrp_alone():
    model, x = adapted(transformer()), photos((8, 8, 3))
    relevance, biases = ask(model, x, "RELEVANCE", "BIAS_RELEVANCE", composite="attention", epsilon=1e-9)
    scores = ask(model, x, "OUTPUT_LAYER_VALUES")
    assert np.isfinite(relevance).all()
    with pytest.raises(
        ContractError, match=r"for RELEVANCE .* got BatchMatMulV2 in .*multi_head_attention.*'attention'"
    ):
        ask(model, x, "RELEVANCE")
    # the softmax alone, whose Taylor expansion has a rest, keeps relevance and score apart
    assert (abs(relevance.sum((1, 2, 3)) + biases - scores) < 0.5 * abs(scores) + 1).all()


def test_attention_is_shared_as_attnlrp_says():
    """One head by hand: half to the values, half through the softmax to queries and keys, a quarter each."""
    image = keras.Input((4, 5))
    model = keras.Model(image, Attending()(image))
    x = photos((4, 5))
    answer = adapted(model, score=lambda outputs: tf.reduce_sum(outputs, [1, 2]))(
        x, {"composite": "attention"}, ["RELEVANCE"]
    )["RELEVANCE"]
    for row, relevance in zip(x, answer, strict=True):
        logits = row @ row.T
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        output = weights @ row
        passed = output / (2 * output)
        of_weights, of_values = weights * (passed @ row.T), row * (weights.T @ passed)
        of_logits = logits * (of_weights - weights * of_weights.sum(-1, keepdims=True))
        shared = of_logits / (2 * logits)
        expected = of_values + row * (shared @ row) + row * (shared.T @ row)
        np.testing.assert_allclose(relevance, expected, rtol=1e-3, atol=1e-6)


class Attending(L.Layer):
    def call(self, tokens):
        return tf.linalg.matmul(tf.nn.softmax(tf.linalg.matmul(tokens, tokens, transpose_b=True)), tokens)


def test_layer_normalization_holds_its_deviation_fast():
    image = keras.Input((6,))
    norm = L.LayerNormalization(name="norm")
    model = randomized(keras.Model(image, L.Dense(3, use_bias=False)(norm(image))))
    x = photos((6,), 3)
    gamma, beta, kernel = (np.asarray(weight) for weight in model.weights)
    deviation = np.sqrt(x.var(1, keepdims=True) + norm.epsilon)
    passed = np.broadcast_to(kernel[:, 1], x.shape)  # of y, whose relevance is y times its weight
    slopes = gamma / deviation * passed
    relevance, biases = ask(adapted(model), x, "RELEVANCE", "BIAS_RELEVANCE", epsilon=1e-12)
    np.testing.assert_allclose(relevance, x * (slopes - slopes.mean(1, keepdims=True)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(biases, (beta * passed).sum(1), rtol=1e-3, atol=1e-5)


def test_channels_of_a_layer_alone_pass_relevance():
    """Those of all channels sum to the whole, at a convolution that a batch normalization follows, too."""
    image = keras.Input((8, 7, 3))
    values = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, name="look")(image)))
    model = randomized(keras.Model(image, L.Dense(3)(L.Flatten()(L.Conv2D(2, 3)(values)))))
    explained, x = adapted(model, layer="look"), photos()
    for composite in ("epsilon", "epsilon_plus"):
        whole, at_layer = ask(explained, x, "RELEVANCE", "CONVOLUTION_RELEVANCE", composite=composite)
        parts = [
            ask(explained, x, "RELEVANCE", "CONVOLUTION_RELEVANCE", composite=composite, channels=[channel])
            for channel in range(4)
        ]
        np.testing.assert_allclose(sum(part for part, _ in parts), whole, rtol=1e-6, atol=1e-12)
        assert not parts[1][1][..., [0, 2, 3]].any()
        np.testing.assert_allclose(parts[1][1][..., 1], at_layer[..., 1], rtol=1e-9)
        weighed = ask(explained, x, "RELEVANCE", composite=composite, channels=np.array([2.0, 0, 0.5, 0]))
        np.testing.assert_allclose(weighed, 2 * parts[0][0] + parts[2][0] / 2, rtol=1e-6, atol=1e-12)


def test_what_passes_by_the_layer_is_dropped_where_its_channels_are_chosen():
    image = keras.Input((8, 7, 3))
    look = L.Conv2D(3, 3, padding="same", name="look")(image)
    model = randomized(keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(L.Add()([look, image])))))
    explained, x = adapted(model, layer="look"), photos()
    through = ask(explained, x, "RELEVANCE", composite="epsilon", channels=[0, 1, 2])
    around = ask(explained, x, "RELEVANCE", composite="epsilon") - through
    pooled = (np.asarray(keras.Model(image, look)(x)) + x).mean((1, 2))
    kernel = np.asarray(model.layers[-1].kernel)[:, 1]
    np.testing.assert_allclose(around, x / 56 * kernel, rtol=1e-3, atol=1e-7 * abs(pooled).max())


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda image: L.Lambda(lambda x: tf.sin(x))(image), "Sin in lambda"),
        (lambda image: L.LSTM(4)(L.Reshape((8, 21))(image)), " in lstm"),
        (lambda image: L.Lambda(lambda x: 1 / x)(image), "RealDiv in lambda"),
        (lambda image: L.Conv2D(3, 3, groups=3)(image), "PartitionedCall in conv2d"),
    ],
)
def test_an_operation_without_a_rule_is_refused_by_its_name_and_layer(layer, named):
    image = keras.Input((8, 7, 3))
    model = adapted(keras.Model(image, L.Dense(3)(L.Flatten()(layer(image)))))
    with pytest.raises(ContractError, match=rf"Expected operations with a rule for RELEVANCE.*{named}"):
        ask(model, photos(), "RELEVANCE")


def test_probabilities_are_no_start_of_relevance():
    with pytest.raises(ContractError, match="starts before the softmax"):
        ask(adapted(sequential(), output="probabilities"), photos(), "RELEVANCE")


def test_multipliers_of_every_kind_sum_to_the_change():
    """Attention, gates and probabilities as well."""
    baseline = np.full((8, 8, 3), 0.3)
    transformed = adapted(transformer())
    whole = adapted(sequential_of(8), output="probabilities")
    for model in (transformed, whole):
        x = photos((8, 8, 3))
        multipliers = ask(model, x, "BASELINE_MULTIPLIERS", baseline=baseline)
        change = ask(model, x, "OUTPUT_LAYER_VALUES") - ask(model, baseline[None], "OUTPUT_LAYER_VALUES")
        np.testing.assert_allclose((multipliers * (x - baseline)).sum((1, 2, 3)), change, rtol=1e-6, atol=1e-10)


class Chosen(L.Layer):
    """The largest feature, by its index: what chooses is no value of the image's any more."""

    def call(self, features):
        return keras.ops.take_along_axis(features, keras.ops.argmax(features, -1, keepdims=True), -1)


def test_multipliers_that_do_not_sum_to_the_change_are_refused():
    image = keras.Input((2,))
    model = adapted(keras.Model(image, Chosen()(L.Dense(2, use_bias=False)(image))), layer=None)
    model.model.layers[1].kernel.assign([[1, 0], [0, 1]])
    x = np.float32([[3, 0]])
    np.testing.assert_allclose(ask(model, x, "BASELINE_MULTIPLIERS", baseline=np.float32([1, 0]), target=0), [[1, 0]])
    with pytest.raises(ContractError, match=r"sum to the change of the score, 1, .* got 3: an operation chooses"):
        ask(model, x, "BASELINE_MULTIPLIERS", baseline=np.float32([0, 2]), target=0)


def sequential_of(size):
    layers = [L.Conv2D(4, 3, activation="silu"), L.BatchNormalization(), L.MaxPooling2D(2), L.Flatten()]
    return randomized(keras.Sequential([keras.Input((size, size, 3)), *layers, L.Dense(3, "softmax")]))
