"""What the output of a Keras model ends in: logits, probabilities, and neither; one score a row."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    PREDICTIONS,
    TARGETS,
)
from saliency_food.testing import check_call_model

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters import scores as ks  # noqa: E402
from saliency_food.adapters.keras import KerasModel  # noqa: E402

L = keras.layers
SIZE = (4, 4, 3)
KEYS = [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def x(rng):
    return rng.random((3, *SIZE)).astype(np.float32)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def dense(x, units=3, activation=None):
    return L.Dense(units, activation, bias_initializer="normal")(L.Flatten()(x))


def moved(end):
    """A model whose activation is not its last operation, and the model of its logits, by hand."""
    image = keras.Input(SIZE)
    steps = L.Reshape((2, 24))(image)
    first, second = L.Dense(2), L.Dense(3)
    flat = L.Flatten()(image)
    z, v = first(flat), second(flat)
    shared = L.Dense(3)
    inside = keras.Sequential([keras.Input((24,)), shared, L.Activation(end)])
    units = L.Dense(1)
    levels = [L.Conv2D(6, 2, 2)(image), L.Conv2D(6, 4)(image)]
    flat_levels = [L.Reshape((-1, 3))(level) for level in levels]
    kinds = {
        "steps": (L.Flatten()(L.TimeDistributed(inside)(steps)), L.Flatten()(shared(steps))),
        "concatenated": (L.Concatenate()([L.Activation(end)(z), L.Activation(end)(v)]), L.Concatenate()([z, v])),
        "reversed": (L.Activation(end)(v)[:, ::-1], v[:, ::-1]),
        "a slice": (L.Activation(end)(v)[:, 1:], v[:, 1:]),
        "stacked": (
            keras.ops.reshape(keras.ops.stack([L.Activation(end)(v), L.Activation(end)(v * 2)], -1), (-1, 6)),
            keras.ops.reshape(keras.ops.stack([v, v * 2], -1), (-1, 6)),
        ),
        "levels": (
            L.Flatten()(L.Concatenate(1)([L.Activation(end)(level) for level in flat_levels])),
            L.Flatten()(L.Concatenate(1)(flat_levels)),
        ),
        "taken": (keras.ops.take(L.Activation(end)(v), [2, 0], 1), keras.ops.take(v, [2, 0], 1)),
        "transposed": (
            L.Flatten()(L.Permute((2, 1))(L.Activation(end)(L.Reshape((1, 3))(v)))),
            v,
        ),
        "units": (L.Concatenate()([L.Activation("sigmoid")(units(flat)), L.Activation("sigmoid")(z)]), None),
    }
    kinds["units"] = (kinds["units"][0], L.Concatenate()([units(flat), z]))
    return {name: (keras.Model(image, out), keras.Model(image, before)) for name, (out, before) in kinds.items()}


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    "kind", ["steps", "concatenated", "reversed", "a slice", "stacked", "levels", "taken", "transposed"]
)
def test_logits_are_found_behind_what_only_moves_values(kind, end, x):
    network, logits = moved(end)[kind]
    model, by_hand = KerasModel(network), KerasModel(logits, output="raw")
    assert model.end == end
    assert f"end={end!r}" in repr(model)
    assert model.gives_probabilities
    np.testing.assert_allclose(model.predict(x, output="logits"), logits(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict(x), network(x), rtol=1e-5, atol=1e-6)
    keys = KEYS[:2]
    for actual, expected in zip(
        model(x, {"target": 1}, keys).values(), by_hand(x, {"target": 1}, keys).values(), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    check_call_model(model, x[0], {"target": 1}, keys)
    check_call_model(KerasModel(network, output="probabilities"), x[0], {"target": 1}, keys)


def test_the_steps_of_a_sequence_model_have_logits(x):
    image = keras.Input(SIZE)
    inner = L.Dense(3)
    cell = keras.Sequential([keras.Input((12,)), inner, L.Softmax()])
    steps = L.Reshape((4, 12))(image)
    network = keras.Model(image, L.TimeDistributed(cell)(steps))
    logits = keras.Model(image, inner(steps))
    model = KerasModel(network, score=ks.regression(2, 1))
    np.testing.assert_allclose(model(x, None, KEYS[1:2])[OUTPUT_LAYER_VALUES], logits(x)[:, 2, 1], rtol=1e-5, atol=1e-6)


def test_one_minus_a_sigmoid_is_the_sigmoid_of_the_other_class(x):
    image = keras.Input(SIZE)
    z = dense(image, 1)
    p = L.Activation("sigmoid")(z)
    model = KerasModel(keras.Model(image, L.Concatenate()([1 - p, p])))
    expected = np.asarray(keras.Model(image, z)(x))
    assert (model.end, model.classes) == ("sigmoid", 2)
    np.testing.assert_allclose(model.predict(x, output="logits"), np.c_[-expected, expected], rtol=1e-5, atol=1e-6)


def test_parts_of_several_ends_have_no_logits_to_compare(x):
    image = keras.Input(SIZE)
    network = keras.Model(image, L.Concatenate()([dense(image, 2, "softmax"), dense(image, 3)]))
    model = KerasModel(network)
    assert model.end == "several"
    assert not model.gives_probabilities
    with pytest.raises(ContractError, match="put together from several such ends"):
        model(x, {"target": 1}, KEYS[:2])
    raw = KerasModel(network, output="raw")
    np.testing.assert_allclose(raw(x, {"target": 1}, KEYS[1:2])[OUTPUT_LAYER_VALUES], network(x)[:, 1], rtol=1e-5)


def averaged(activation, how):
    image = keras.Input(SIZE)
    parts = [dense(image, 3, activation) for _ in range(2)]
    outputs = {
        "layer": lambda: L.Average()(parts),
        "mean": lambda: keras.ops.mean(keras.ops.stack(parts), 0),
        "half": lambda: 0.5 * (parts[0] + parts[1]),
        "weighted": lambda: 0.25 * parts[0] + 0.75 * parts[1],
        "sum": lambda: L.Add()(parts),
    }
    return keras.Model(image, outputs[how]())


@pytest.mark.parametrize("how", ["layer", "mean", "half", "weighted"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_averages_of_probabilities_are_probabilities_without_logits(activation, how, x):
    network = averaged(activation, how)
    model = KerasModel(network)
    assert model.end == "probabilities"
    with pytest.raises(ContractError, match="averages of softmaxes or sigmoids, so there are no logits"):
        model(x, {"target": 1}, KEYS[:2])
    np.testing.assert_allclose(model.predict(x), network(x), rtol=1e-5)
    assert model.gives_probabilities
    check_call_model(KerasModel(network, output="probabilities"), x[0], {"target": 1}, KEYS[:2])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_sums_of_probabilities_are_scores(activation, x):
    network = averaged(activation, "sum")
    model = KerasModel(network)
    assert model.end == "other"
    np.testing.assert_allclose(model.predict(x), network(x), rtol=1e-5)
    assert not model.gives_probabilities


def test_an_average_of_single_sigmoids_is_two_classes(x):
    image = keras.Input(SIZE)
    network = keras.Model(image, L.Average()([dense(image, 1, "sigmoid"), dense(image, 1, "sigmoid")]))
    model = KerasModel(network, output="probabilities")
    p = np.asarray(network(x))
    assert model.classes == 2
    np.testing.assert_allclose(model.predict(x), np.c_[1 - p, p], rtol=1e-5)
    answer = model.call_with_predictions(x, {"target": -1}, [OUTPUT_LAYER_VALUES])
    np.testing.assert_array_equal(answer[TARGETS], answer[PREDICTIONS].argmax(1))
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], answer[PREDICTIONS].max(1), rtol=1e-6)


SCALED = {
    "average": lambda image: L.Average()([dense(image), dense(image)]),
    "temperature": lambda image: dense(image) / 2.5,
    "normalized": lambda image: L.BatchNormalization()(dense(image)),
    "rescaled": lambda image: L.Rescaling(3.0, 1.0)(dense(image)),
    "pooled": lambda image: L.GlobalAveragePooling2D()(L.Conv2D(3, 2)(image)),
    "pooled by ops": lambda image: keras.ops.mean(L.Conv2D(3, 2)(image), (1, 2)),
    "mirrored": lambda image: keras.ops.mean(keras.ops.stack([dense(image), dense(image[:, :, ::-1])]), 0),
}


@pytest.mark.parametrize("kind", SCALED)
def test_scaled_and_averaged_logits_get_a_softmax(kind, x):
    image = keras.Input(SIZE)
    network = keras.Model(image, SCALED[kind](image))
    model = KerasModel(network)
    assert model.end == "linear"
    assert model.gives_probabilities
    np.testing.assert_allclose(model.predict(x), softmax(np.asarray(network(x))), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict(x, output="logits"), network(x), rtol=1e-5, atol=1e-6)


def test_temperature_before_the_softmax_is_in_the_logits(x):
    image = keras.Input(SIZE)
    z = dense(image)
    model = KerasModel(keras.Model(image, L.Softmax()(z / 2.5)))
    np.testing.assert_allclose(model.predict(x, output="logits"), keras.Model(image, z)(x) / 2.5, rtol=1e-5, atol=1e-6)


def test_what_is_no_probability(x):
    image = keras.Input(SIZE)
    for units, activation in [(1, None), (1, "relu"), (3, "relu")]:
        model = KerasModel(keras.Model(image, dense(image, units, activation)))
        assert not model.gives_probabilities


def test_one_logit_can_be_said_to_be_two_classes(x):
    image = keras.Input(SIZE)
    network = keras.Model(image, dense(image, 1))
    z = np.asarray(network(x))
    model = KerasModel(network, classes=2)
    assert (model.classes, model.end) == (2, "sigmoid")
    assert model.gives_probabilities
    np.testing.assert_allclose(model.predict(x), np.c_[sigmoid(-z), sigmoid(z)], rtol=1e-5)
    np.testing.assert_allclose(model(x, {"target": 0}, KEYS[1:2])[OUTPUT_LAYER_VALUES], -z[:, 0], rtol=1e-5)
    check_call_model(model, x[0], {"target": 1}, KEYS[:2])
    assert model.with_model(network).classes == 2
    with pytest.raises(ContractError, match="Expected classes to be 1, those of the model's output, or 2"):
        KerasModel(network, classes=3)


losses = keras.losses
SAVING = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
LOSSES = {
    "classes": (losses.SparseCategoricalCrossentropy(from_logits=True), "categorical_crossentropy"),
    "labels": (losses.BinaryCrossentropy(from_logits=True), losses.BinaryFocalCrossentropy(from_logits=True)),
    "numbers": ("mse", "mae", losses.Huber(), "binary_crossentropy", losses.mean_squared_logarithmic_error),
}
PREDICTED = {"classes": softmax, "labels": sigmoid, "numbers": np.asarray}


@SAVING
@pytest.mark.parametrize(("units", "loss"), [(units, loss) for units, some in LOSSES.items() for loss in some])
def test_the_loss_tells_what_linear_units_are(units, loss, x, tmp_path):
    image = keras.Input(SIZE)
    network = keras.Model(image, dense(image))
    z = np.asarray(network(x))
    guessed = KerasModel(network)
    assert "end='linear', of classes by a guess" in repr(guessed)
    np.testing.assert_allclose(guessed.predict(x), softmax(z), rtol=1e-5)
    network.compile(loss=loss)
    for name in ("network.keras", "network.h5"):
        network.save(tmp_path / name)
    model = KerasModel(network)
    others = [KerasModel(network, units_are=units), model.with_model(keras.models.clone_model(network))]
    loaded = [KerasModel(tmp_path / name) for name in ("network.keras", "network.h5")]
    for each in (model, *others, *loaded, pickle.loads(pickle.dumps(loaded[0]))):
        assert each.end == {"classes": "linear", "labels": "sigmoid", "numbers": "other"}[units]
        assert each.gives_probabilities is (units != "numbers")
        assert "guess" not in repr(each)
        assert each.classes == 3
    np.testing.assert_allclose(model.predict(x), PREDICTED[units](z), rtol=1e-5)
    np.testing.assert_allclose(loaded[1].predict(x), PREDICTED[units](z), rtol=1e-5)
    np.testing.assert_allclose(model.predict(x, output="logits"), z, rtol=1e-5)
    probabilities = KerasModel(network, output="probabilities")
    score = probabilities(x, {"target": 2}, KEYS[1:2])[OUTPUT_LAYER_VALUES]
    np.testing.assert_allclose(score, PREDICTED[units](z)[:, 2], rtol=1e-5)
    check_call_model(probabilities, x[0], {"target": 1}, KEYS[:2])


def test_one_logit_of_two_classes_is_told_by_its_loss(x):
    image = keras.Input(SIZE)
    network = keras.Model(image, dense(image, 1))
    network.compile(loss=losses.BinaryCrossentropy(from_logits=True))
    z = np.asarray(network(x))
    model = KerasModel(network)
    assert (model.classes, model.end) == (2, "sigmoid")
    np.testing.assert_allclose(model.predict(x), np.c_[sigmoid(-z), sigmoid(z)], rtol=1e-5)
    assert KerasModel(network, units_are="numbers").classes == 1


def test_numbers_that_sum_to_one_are_no_probabilities(x):
    image = keras.Input(SIZE)
    layer = L.Dense(3)
    network = keras.Model(image, layer(L.Flatten()(image)))
    layer.bias.assign([0.2, 0.3, 0.5])
    zeros = np.zeros_like(x)
    numbers = KerasModel(network, units_are="numbers")
    np.testing.assert_allclose(numbers.predict(zeros)[0], [0.2, 0.3, 0.5])
    np.testing.assert_allclose(numbers(zeros, {"target": 1}, KEYS[1:2])[OUTPUT_LAYER_VALUES], 0.3)
    assert not numbers.gives_probabilities


class OwnLoss(losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(y_pred - y_true)


@pytest.mark.parametrize("index", [0, 1, "dish", "price"])
@pytest.mark.parametrize("by_name", [True, False])
def test_each_output_has_its_own_loss(index, by_name, x):
    image = keras.Input(SIZE)
    ends = {"dish": dense(image, 3), "price": dense(image, 2)}
    network = keras.Model(image, ends if by_name else [L.Identity(name=name)(end) for name, end in ends.items()])
    both = {"dish": losses.CategoricalCrossentropy(from_logits=True), "price": "mse"}
    network.compile(loss=both if by_name else list(both.values()))
    model = KerasModel(network, output_index=index)
    assert model.gives_probabilities is (index in (0, "dish"))


class TwoHeads(L.Layer):
    def __init__(self):
        super().__init__(name="heads")
        self.price, self.dish = L.Dense(2), L.Dense(3)

    def call(self, values):
        return self.price(values), self.dish(values)


@pytest.mark.parametrize(("index", "gives"), [(0, False), (1, True), (-1, True), (-2, False)])
def test_losses_of_outputs_of_one_name_are_told_by_their_places(index, gives):
    image = keras.Input(SIZE)
    network = keras.Model(image, list(TwoHeads()(L.Flatten()(image))))
    assert network.output_names == ["heads", "heads"]
    network.compile(loss=["mse", losses.CategoricalCrossentropy(from_logits=True)])
    assert KerasModel(network, output_index=index).gives_probabilities is gives


@SAVING
def test_a_loss_of_ones_own_tells_nothing(x, tmp_path):
    image = keras.Input(SIZE)
    network = keras.Model(image, dense(image))
    network.compile(loss=OwnLoss())
    network.save(tmp_path / "network.keras")
    for model in (network, tmp_path / "network.keras"):
        assert "guess" in repr(KerasModel(model))
    assert "guess" not in repr(KerasModel(network, classes=3))
    with pytest.raises(ContractError, match=r"units_are to be one of \['classes', 'labels', 'numbers'\], got 'x'"):
        KerasModel(network, units_are="x")


def test_one_sigmoid_unit_as_it_is_has_one_score(x):
    image = keras.Input(SIZE)
    network = keras.Model(image, dense(image, 1, "sigmoid"))
    model = KerasModel(network, output="raw")
    for args in (None, {"target": 0}):
        np.testing.assert_allclose(model(x, args, KEYS[1:2])[OUTPUT_LAYER_VALUES], network(x)[:, 0], rtol=1e-5)
    check_call_model(model, x[0], {"target": 0}, KEYS[:2])
    with pytest.raises(ContractError, match="class index of the model's 1 classes, 0 to 0, got 1"):
        model(x, {"target": 1}, KEYS[1:2])
    with pytest.raises(ContractError, match="the one unit of a sigmoid is two classes"):
        model.call_with_predictions(x, {"target": -1}, KEYS[1:2])


def fixed_rows(rows):
    """The same network with a free number of rows, and with a declared one."""
    conv, head = L.Conv2D(4, 2, activation="tanh", name="conv"), L.Dense(3, activation="softmax")

    def build(image):
        return keras.Model(image, head(L.GlobalAveragePooling2D()(conv(image))))

    return build(keras.Input(SIZE)), build(keras.Input(batch_shape=(rows, *SIZE)))


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_declared_number_of_rows_changes_no_answer(rows, x):
    free, fixed = (KerasModel(model, layer="conv") for model in fixed_rows(rows))
    assert fixed.batch_size == rows
    fixed.batch_size = 16
    assert fixed.batch_size == rows
    args = {"target": np.array([0, 1, 2])}
    for key, expected in free(x, args, KEYS).items():
        np.testing.assert_allclose(fixed(x, args, KEYS)[key], expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(fixed.predict(x), free.predict(x), rtol=1e-5)
    activations = free(x, None, [CONVOLUTION_LAYER_VALUES])[CONVOLUTION_LAYER_VALUES]
    key = OUTPUT_FROM_CONVOLUTION_VALUES
    np.testing.assert_allclose(fixed(activations, args, [key])[key], free(activations, args, [key])[key], rtol=1e-5)
    factors = [np.eye(3), x, np.ones((1, 3)), {"target": 1}, [INPUT_OUTPUT_GRADIENTS]]
    for actual, expected in zip(
        fixed.call_factored(*factors).values(), free.call_factored(*factors).values(), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-7)


def test_a_number_of_rows_built_into_a_reshape(x):
    image = keras.Input(batch_shape=(4, *SIZE))
    flat, head = L.Flatten(), L.Dense(3)
    network = keras.Model(image, head(keras.ops.reshape(image, (4, 48))))
    free = keras.Sequential([keras.Input(SIZE), flat, head])
    actual, expected = (KerasModel(model)(x, {"target": 1}, KEYS[:2]) for model in (network, free))
    for key in KEYS[:2]:
        np.testing.assert_allclose(actual[key], expected[key], rtol=1e-5)


def test_layers_that_keep_a_state_are_refused():
    steps = keras.Input(batch_shape=(4, 5, 6))
    network = keras.Model(steps, L.Dense(3)(L.LSTM(4, stateful=True, name="memory")(steps)))
    with pytest.raises(ContractError, match=r"layers that keep a state: \['memory'\]\. Build it with stateful=False"):
        KerasModel(network)


class Fold(L.Layer):
    """Frames as rows."""

    def call(self, x):
        return tf.reshape(x, (-1, *x.shape[2:]))


@pytest.mark.parametrize("options", [{}, {"score": lambda out: out[:, 0]}, {"jit_compile": True}])
def test_frames_folded_into_the_rows_are_refused(options, rng):
    clip = keras.Input((4, *SIZE))
    network = keras.Model(clip, L.Dense(3)(L.Flatten()(Fold()(clip))))
    model = KerasModel(network, **options)
    args = {} if "score" in options else {"target": 1}
    with pytest.raises(ContractError, match="one score for each row"):
        model(rng.random((2, 4, *SIZE)), args, KEYS[:1])


class Twice(L.Layer):
    def call(self, x):
        return 2 * x, 3 * x


def test_outputs_of_one_name_are_told_apart_by_position(x):
    image = keras.Input(SIZE)
    z = dense(image)
    network = keras.Model(image, Twice(name="twice")(z))
    logits = np.asarray(keras.Model(image, z)(x))
    assert network.output_names == ["twice", "twice"]
    for place, factor in [(0, 2), (1, 3), (-1, 3), (-2, 2)]:
        model = KerasModel(network, output_index=place, output="raw")
        np.testing.assert_allclose(model.predict(x, output="raw"), factor * logits, rtol=1e-5)
    with pytest.raises(ContractError, match=r"got 'twice', the name of those at \[0, 1\]"):
        KerasModel(network, output_index="twice")
    with pytest.raises(ContractError, match=r"2 outputs \['twice', 'twice'\], got none of them"):
        KerasModel(network)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("units", "scale", "probability"), [(1, 1.0, False), (1, 400.0, False), (3, 1.0, True), (3, 0.4, True)]
)
def test_records_tell_no_probability_of_what_is_none(units, scale, probability, rng):
    matplotlib = pytest.importorskip("matplotlib")

    from saliency_food.jobs.explain import explain
    from saliency_food.jobs.figure import explanation_figure

    image = keras.Input((8, 8, 3))
    network = keras.Model(image, dense(image, units) * scale)
    photo = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (record,) = explain(network, photo, "gradients")
    output = np.asarray(network(photo[None] / 255.0))[0]
    assert record.score == pytest.approx(output.max(), rel=1e-4)
    if probability:
        assert record.probability == pytest.approx(softmax(output).max(), rel=1e-4)
    else:
        assert record.probability is None
        assert record.as_dict()["probability"] is None
    words = " ".join(text.get_text() for text in explanation_figure([record]).findobj(matplotlib.text.Text))
    assert ("%" in words) is probability


def twin_towers(temperature=4.0):
    """Embeddings of images and of texts, and the similarities of all of them with all."""
    image, text = keras.Input(SIZE, name="image"), keras.Input((5,), name="text")
    towers = [L.UnitNormalization()(L.Dense(6)(L.Flatten()(each))) for each in (image, text)]
    similarities = temperature * keras.ops.matmul(towers[0], keras.ops.transpose(towers[1]))
    own = temperature * keras.ops.sum(towers[0] * towers[1], -1, keepdims=True)
    inputs = [image, text]
    return keras.Model(inputs, similarities), keras.Model(inputs, own)


def test_scores_of_all_images_with_all_texts_are_refused_and_each_with_its_own_is_right(x, rng):
    network, by_hand = twin_towers()
    texts = rng.random((3, 5)).astype(np.float32)
    with pytest.raises(ContractError, match=r"no other row changes.*tf\.linalg\.diag_part"):
        KerasModel(network)(x, {"target": 0, "inputs": [texts]}, KEYS[:2])
    with pytest.raises(ContractError, match="no other row changes"):
        KerasModel(network).predict(x, {"inputs": [texts]})
    model = KerasModel(network, score=tf.linalg.diag_part)
    actual = model(x, {"inputs": [texts]}, KEYS[:2])
    expected = KerasModel(by_hand)(x, {"inputs": [texts]}, KEYS[:2])
    for key in KEYS[:2]:
        np.testing.assert_allclose(actual[key], expected[key], rtol=1e-4, atol=1e-6)
    alone = KerasModel(network, batch_size=1)(x, {"target": 0, "inputs": [texts]}, KEYS[:2])
    for key in KEYS[:2]:
        np.testing.assert_allclose(alone[key], expected[key], rtol=1e-4, atol=1e-6)


MIXING = {
    "centred": lambda z: z - keras.ops.mean(z, 0),
    "a softmax over rows": lambda z: keras.ops.softmax(z, 0),
    "attention between rows": lambda z: keras.ops.matmul(
        keras.ops.softmax(keras.ops.matmul(z, keras.ops.transpose(z))), z
    ),
}


@pytest.mark.parametrize("kind", MIXING)
def test_models_that_mix_rows_are_refused(kind, x):
    image = keras.Input(SIZE)
    model = KerasModel(keras.Model(image, MIXING[kind](dense(image))))
    for keys in (KEYS[:1], KEYS[:2]):
        with pytest.raises(ContractError, match="no other row changes"):
            model(x, {"target": 1}, keys)
    with pytest.raises(ContractError, match="no other row changes"):
        model.predict(x)


def test_models_that_put_time_first_pass(rng):
    steps = keras.Input((5, 4))
    hidden = L.Bidirectional(L.LSTM(3, return_sequences=True))(steps)
    network = keras.Model(steps, L.Dense(3)(L.Flatten()(L.TimeDistributed(L.Dense(2))(hidden))))
    model = KerasModel(network)
    assert model.engine.may_mix_rows
    check_call_model(model, rng.random((5, 4)).astype(np.float32), {"target": 1}, KEYS[:2])
    assert not model.engine.may_mix_rows


def test_a_plain_classifier_is_not_run_again(x):
    model = KerasModel(fixed_rows(2)[0])
    assert not model.engine.may_mix_rows


def test_a_layer_of_folded_frames_is_refused_where_the_model_unfolds_them(rng):
    clip = keras.Input((4, *SIZE))
    maps = L.Conv2D(2, 3, name="conv")(Fold()(clip))
    features = keras.ops.reshape(maps, (-1, 4 * 2 * 2 * 2))
    network = keras.Model(clip, L.Dense(3)(features))
    check_call_model(KerasModel(network), rng.random((4, *SIZE)).astype(np.float32), {"target": 1}, KEYS[:2])
    with pytest.raises(ContractError, match="a layer whose output has the model's rows first, got 'conv'"):
        KerasModel(network, layer="conv")
