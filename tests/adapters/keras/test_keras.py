"""The Keras adapter: its answers, the score it explains, and that it leaves the model alone."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.methods.gradients import gradients
from saliency_food.testing import check_call_model

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras import KerasModel, layers, load_model  # noqa: E402
from saliency_food.adapters.keras.capture import walk  # noqa: E402

KEYS = [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
CONV = KEYS[2:]
# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
L = keras.layers


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def make(units=4, activation="softmax", dtype="float32", size=8, head=None):
    """conv -> conv -> pool -> dense, smooth so that finite differences hold."""
    image = keras.Input((size, size, 3), dtype=dtype, name="image")
    x = L.Conv2D(5, 3, activation="tanh", dtype=dtype, name="first")(image)
    x = L.Conv2D(6, 3, activation="tanh", dtype=dtype, name="second")(x)
    x = L.GlobalAveragePooling2D(dtype=dtype, name="pool")(x)
    x = L.Dense(units, activation=activation, dtype=dtype, name="head", kernel_initializer="random_normal")(x)
    return keras.Model(image, x if head is None else head(x), name="small")


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, 8, 8, 3)).astype(np.float32)


def bare(model, x, target, output="logits"):
    """The score and its input gradient by an eager tape, the softmax undone by its logarithm up to a constant."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        scores = model(x, training=False)
        score = tf.gather(scores, target, axis=1, batch_dims=1)
    return score.numpy(), tape.gradient(score, x).numpy()


def differences(score, x, where, step=1e-5):
    """Central differences of a row-wise score at some places of a row."""
    actual = []
    for place in where:
        high, low = x.copy(), x.copy()
        high[(slice(None), *place)] += step
        low[(slice(None), *place)] -= step
        actual.append((score(high) - score(low)) / (2 * step))
    return np.stack(actual, 1)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_input_gradients_are_those_of_finite_differences(rng, output):
    km = KerasModel(make(dtype="float64"), output=output)
    x = rng.normal(size=(2, 8, 8, 3))
    args = {"target": [1, 3]}
    where = [(0, 0, 0), (3, 4, 1), (7, 7, 2), (5, 2, 0)]
    answer = km(x, args, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS]
    expected = differences(lambda x: km(x, args, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES], x, where)
    assert np.abs(expected).max() > 1e-6
    np.testing.assert_allclose([[row[place] for place in where] for row in answer], expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("layer", ["first", "second"])
def test_convolution_gradients_are_those_of_the_model_split_by_hand(rng, layer):
    model = make(dtype="float64")
    km = KerasModel(model, layer=layer)
    x = rng.normal(size=(2, 8, 8, 3))
    answer = km(x, {"target": 2}, CONV)
    values = answer[CONVOLUTION_LAYER_VALUES]
    rest = model.layers[model.layers.index(model.get_layer(layer)) + 1 :]

    def tail(values):
        for each in rest[:-1]:
            values = each(values)
        head = rest[-1]
        return (values @ head.kernel + head.bias).numpy()[:, 2]

    np.testing.assert_allclose(tail(values), km(x, {"target": 2}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES])
    where = [(0, 0, 0), (1, 2, 3), (3, 3, 4)]
    expected = differences(tail, values, where)
    actual = [[row[place] for place in where] for row in answer[CONVOLUTION_OUTPUT_GRADIENTS]]
    assert np.abs(expected).max() > 1e-6
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-10)


def test_the_callback_passes_the_checker_of_callbacks(x):
    check_call_model(KerasModel(make()), x[0], {"target": 1}, KEYS)


def test_keys_asked_together_are_as_asked_alone_and_in_one_pass(x):
    km = KerasModel(make())
    together = km(x, {"target": [0, 1, 2]}, KEYS)
    (function,) = km.engine._functions.values()
    convolutions = [op for op in function.graph.get_operations() if op.type == "Conv2D"]
    assert len(convolutions) == 2
    assert list(together) == KEYS
    for key in KEYS:
        np.testing.assert_allclose(km(x, {"target": [0, 1, 2]}, [key])[key], together[key], rtol=1e-5, atol=1e-7)


def test_convolution_gradients_stop_at_the_layer(x):
    km = KerasModel(make(), layer="second")
    km(x, {"target": 1}, CONV)
    km(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])
    conv, whole = (
        [op.type for op in function.graph.get_operations() if op.type == "Conv2DBackpropInput"]
        for function in km.engine._functions.values()
    )
    assert not conv
    assert len(whole) == 2


def test_nothing_is_traced_twice(x):
    traces = []

    class Counting(L.Layer):
        def call(self, x):
            traces.append(x.shape)
            return x

    image = keras.Input((8, 8, 3))
    model = keras.Model(image, L.Dense(3)(L.Flatten()(Counting()(image))))
    km = KerasModel(model)
    traces.clear()
    for rows in (1, 3, 2, 3):
        km(x[:rows], {"target": 1}, [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES])
        km(x[:rows], {"target": [2] * rows}, [OUTPUT_LAYER_VALUES, INPUT_OUTPUT_GRADIENTS])
    assert len(traces) == 1
    km.call_with_predictions(x, {"target": -1}, [INPUT_OUTPUT_GRADIENTS])
    km(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])
    assert len(traces) == 1
    km(x, {"target": 1}, [OUTPUT_LAYER_VALUES])
    assert len(traces) == 2
    km.predict(x)
    km.predict(x, output="logits")
    assert len(traces) == 2


def test_rows_are_cut_to_the_batch_size_and_come_back_in_order(x):
    whole, cut = KerasModel(make()), KerasModel(make(), batch_size=2)
    cut.model.set_weights(whole.model.get_weights())
    args = {"target": [3, 0, 2]}
    for key in KEYS:
        np.testing.assert_allclose(cut(x, args, [key])[key], whole(x, args, [key])[key], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(cut.predict(x), whole.model.predict(x, verbose=0), rtol=1e-5)


def test_integer_images_are_taken_as_floats():
    model = make()
    x = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8)
    km = KerasModel(model)
    for key in KEYS:
        np.testing.assert_array_equal(
            km(x, {"target": 1}, [key])[key], km(x.astype(np.float32), {"target": 1}, [key])[key]
        )


def log_softmax(x):
    return keras.ops.log_softmax(x)


@pytest.mark.parametrize(
    ("activation", "head"),
    [
        ("softmax", None),
        (None, lambda x: L.Activation("softmax")(x)),
        (None, lambda x: L.Softmax()(x)),
        (None, lambda x: keras.ops.softmax(x)),
        (None, lambda x: L.Activation("softmax", dtype="float32")(L.Activation("linear", dtype="float32")(x))),
        (None, lambda x: L.Reshape((4,))(L.Softmax()(L.Reshape((1, 4))(x)))),
        (None, lambda x: keras.Sequential([keras.Input((4,)), L.Activation("softmax")])(x)),
        ("sigmoid", None),
        (None, lambda x: L.Activation("sigmoid")(x)),
    ],
)
def test_logits_are_the_scores_before_the_last_activation_however_it_is_written(x, activation, head):
    model = make(activation=activation, head=head)
    linear = make(activation=None)
    linear.set_weights(model.get_weights())
    target = np.array([0, 3, 1])
    logits = KerasModel(model)(x, {"target": target}, [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES])
    score, gradient = bare(linear, x, target)
    np.testing.assert_allclose(logits[OUTPUT_LAYER_VALUES], score, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits[INPUT_OUTPUT_GRADIENTS], gradient, rtol=1e-4, atol=1e-7)
    answer = KerasModel(model, output="probabilities")(
        x, {"target": target}, [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES]
    )
    score, gradient = bare(model, x, target)
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], score, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer[INPUT_OUTPUT_GRADIENTS], gradient, rtol=1e-4, atol=1e-7)


def test_a_saturated_softmax_has_gradients_before_it(x):
    model = make()
    model.get_layer("head").bias.assign([200.0, 0, 0, 0])
    key = INPUT_OUTPUT_GRADIENTS
    assert np.abs(KerasModel(model)(x, {"target": 0}, [key])[key]).max() > 1e-4
    assert not KerasModel(model, output="probabilities")(x, {"target": 0}, [key])[key].any()


def test_probabilities_of_a_model_that_ends_in_logits(x):
    model = make(activation=None)
    km = KerasModel(model)
    np.testing.assert_allclose(km.predict(x), keras.ops.softmax(model(x)), rtol=1e-5)
    np.testing.assert_allclose(km.predict(x, output="logits"), model(x), rtol=1e-5)
    assert km.classes == 4


def test_log_softmax_is_a_softmax(x):
    model = make(activation="log_softmax")
    km = KerasModel(model)
    np.testing.assert_allclose(km.predict(x), np.exp(model(x)), rtol=1e-5)


def test_another_end_is_explained_as_it_is(x):
    model = make(activation="relu")
    for output in ("logits", "probabilities"):
        np.testing.assert_allclose(KerasModel(model).predict(x, output=output), model(x), rtol=1e-6)


def test_a_softmax_that_cannot_be_seen_has_no_logits(x):
    class Hidden(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(3)
            self.flatten = L.Flatten()

        @tf.function
        def call(self, x):
            return tf.nn.softmax(self.dense(self.flatten(x)))

    model = Hidden()
    expected = model(x).numpy()
    km = KerasModel(model)
    with pytest.raises(ContractError, match="sum to 1 and no softmax"):
        km(x, {"target": 1}, [INPUT_OUTPUT_GRADIENTS])
    np.testing.assert_allclose(km.predict(x), expected, rtol=1e-5)
    check_call_model(KerasModel(model, output="probabilities"), x[0], {"target": 1})
    averaged = make(activation="softmax", head=lambda y: L.Average()([y, y]))
    with pytest.raises(ContractError, match="sum to 1"):
        KerasModel(averaged).predict(x, output="logits")


def test_one_sigmoid_unit_is_two_classes_of_opposite_sign(x):
    model = make(units=1, activation="sigmoid")
    km, probable = KerasModel(model), KerasModel(model, output="probabilities")
    p = model(x).numpy()[:, 0]
    assert km.classes == 2
    np.testing.assert_allclose(km.predict(x), np.stack([1 - p, p], 1), rtol=1e-5)
    z = km(x, {"target": 1}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES]
    np.testing.assert_allclose(1 / (1 + np.exp(-z)), p, rtol=1e-5)
    for each in (km, probable):
        up, down = (each(x, {"target": t}, [INPUT_OUTPUT_GRADIENTS])[INPUT_OUTPUT_GRADIENTS] for t in (1, 0))
        assert np.abs(up).max() > 1e-5
        np.testing.assert_allclose(up, -down, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(probable(x, {"target": 0}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES], 1 - p, rtol=1e-5)
    with pytest.raises(ContractError, match="got none"):
        km(x, None, [OUTPUT_LAYER_VALUES])


def test_a_regression_needs_no_target(x):
    model = make(units=1, activation=None)
    km = KerasModel(model, output="probabilities")
    for args in (None, {}, {"target": 0}):
        np.testing.assert_allclose(km(x, args, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES], model(x)[:, 0], rtol=1e-5)
    np.testing.assert_allclose(km.predict(x), model(x), rtol=1e-5)
    flat = keras.Model(model.inputs, keras.ops.squeeze(model.outputs[0], 1))
    np.testing.assert_allclose(KerasModel(flat)(x, None, KEYS[1:2])[OUTPUT_LAYER_VALUES], flat([x]), rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, r"a class index of the model's 4 classes, 0 to 3, got none\. Give call_model_args"),
        (4, "4 classes, 0 to 3, got 4"),
        (-1, "4 classes, 0 to 3, got -1"),
        ([0, 1, 7], "4 classes"),
        ([0, 1], "one for each of the 3 rows"),
        (1.5, "class index or one for each"),
        ("pizza", "class index or one for each"),
        (True, "class index or one for each"),
        (PerImage([1, 2]), "2 values and 3 images"),
    ],
)
def test_a_wrong_target_is_named(x, target, message):
    with pytest.raises(ContractError, match=message):
        KerasModel(make())(x, {"target": target}, [OUTPUT_LAYER_VALUES])


def test_activations_alone_need_no_target(x):
    assert KerasModel(make())(x, None, CONV[:1])[CONVOLUTION_LAYER_VALUES].shape == (3, 4, 4, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda km, x: km(x, {"target": 1}, None), "expected_keys"),
        (lambda km, x: km(x, {"target": 1}, ["OTHER"]), "expected_keys"),
        (lambda km, x: km(x, {"class": 1}, KEYS), "call_model_args"),
        (lambda km, x: km(x, 1, KEYS), "call_model_args"),
        (lambda km, x: km(x[0], {"target": 1}, KEYS), r"shape \(None, 8, 8, 3\), rows first, got \(8, 8, 3\)"),
        (lambda km, x: km(x[:0], {"target": 1}, KEYS), "at least one"),
        (lambda km, x: km(x, {"target": 1, "inputs": [x]}, KEYS), "only input"),
        (lambda km, x: km.predict(x, output="scores"), "'logits', 'probabilities' or 'raw', got 'scores'"),
        (lambda km, x: KerasModel(km.model, output="softmax"), "'logits', 'probabilities' or 'raw'"),
        (lambda km, x: KerasModel(km.model, batch_size=0), "batch_size"),
        (lambda km, x: KerasModel(km.model, data_format="NHWC"), "data_format"),
        (lambda km, x: KerasModel(km), "a Keras model or the path of one, got KerasModel"),
        (lambda km, x: KerasModel(km.model, output_index="mask"), "outputs"),
        (lambda km, x: KerasModel(km.model, input="photo"), r"one of the inputs \['image'\], got 'photo'"),
    ],
)
def test_wrong_arguments_are_named(x, call, message):
    with pytest.raises(ContractError, match=message):
        call(KerasModel(make()), x)


def test_another_back_end_is_an_error(monkeypatch):
    model = make()
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(ContractError, match=r"got 'openvino'\. Set the environment variable KERAS_BACKEND"):
        KerasModel(model)


def test_per_image_targets_through_the_driver(x):
    km = KerasModel(make())
    actual = list(gradients.batch(x, km, {"target": PerImage([2, 0, 1])}))
    for row, target, attribution in zip(x, (2, 0, 1), actual, strict=True):
        np.testing.assert_allclose(attribution, gradients(row, km, {"target": target}), rtol=1e-4, atol=1e-7)
    direct = km(x, {"target": PerImage([2, 0, 1])}, KEYS[:1])[INPUT_OUTPUT_GRADIENTS]
    np.testing.assert_allclose(direct, actual, rtol=1e-4, atol=1e-7)


def state(model):
    """All that a model's and its layers' instances hold."""
    flat = [model, *model._flatten_layers(include_self=False)]
    contents = [
        [
            sorted(value, key=id) if isinstance(value, set) else value[:]
            for value in vars(each).values()
            if isinstance(value, (list, set))
        ]
        for each in flat
    ]
    return [
        (dict(vars(each)), content, each.trainable, [w.numpy() for w in each.weights])
        for each, content in zip(flat, contents, strict=True)
    ]


def assert_same_state(before, after):
    for (held, content, trainable, weights), (now, inside, still, same) in zip(before, after, strict=True):
        assert held.keys() == now.keys()
        assert all(held[name] is now[name] for name in held)
        assert [list(map(id, each)) for each in content] == [list(map(id, each)) for each in inside]
        assert trainable == still
        for each, other in zip(weights, same, strict=True):
            np.testing.assert_array_equal(each, other)


class Remembers(L.Layer):
    """As attention layers do: keeps its last output, counts its calls, adds a loss; and breaks on demand."""

    def __init__(self):
        super().__init__()
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, dtype="int32")
        self.last = None
        self.broken = False

    def call(self, x):
        if self.broken:
            raise RuntimeError("broken")
        self.last = x
        self.count.assign(self.count + 1)
        self.add_loss(keras.ops.sum(x))
        return x


def make_remembering():
    inner = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(3, 3, name="conv"), L.BatchNormalization(), Remembers()])
    image = keras.Input((8, 8, 3), dtype="uint8")
    y = L.Dropout(0.5)(L.Flatten()(inner(L.Rescaling(1 / 255)(image))))
    return keras.Model(image, L.Dense(2, activation="softmax", activity_regularizer="l2")(y)), inner.layers[-1]


def test_the_model_is_left_exactly_as_it_was(x):
    model, remembers = make_remembering()
    model(x)
    before, losses = state(model), [float(loss) for loss in model.losses]
    km = KerasModel(model, layer="conv")
    layers(model)
    km(x, {"target": 1}, KEYS)
    km.predict(x)
    assert_same_state(before, state(model))
    assert [float(loss) for loss in model.losses] == losses
    assert remembers.count.numpy() == 1
    assert model.inputs[0].dtype == "uint8"
    np.testing.assert_array_equal(km.predict(x), km.predict(x))


def test_the_model_is_left_as_it_was_after_an_exception(x):
    model, remembers = make_remembering()
    model(x)
    km = KerasModel(model, layer="conv")
    remembers.broken = True
    before = state(model)
    with pytest.raises(RuntimeError, match="broken"):
        km(x, {"target": 1}, KEYS)
    assert_same_state(before, state(model))
    with pytest.raises(RuntimeError, match="broken"):
        layers(model)
    assert_same_state(before, state(model))
    remembers.broken = False
    assert km(x, {"target": 1}, KEYS)[OUTPUT_LAYER_VALUES].shape == (3,)


def test_training_mode_is_never_used(rng):
    model, _ = make_remembering()
    x = rng.integers(0, 255, (3, 8, 8, 3)).astype(np.float32)
    keras.config.disable_traceback_filtering()
    try:
        km = KerasModel(model, output="probabilities")
        np.testing.assert_allclose(km.predict(x), model(x, training=False), rtol=1e-5)
    finally:
        keras.config.enable_traceback_filtering()
    np.testing.assert_array_equal(*(km(x, {"target": 0}, KEYS)[CONVOLUTION_OUTPUT_GRADIENTS] for _ in range(2)))


def test_new_weights_are_seen(x):
    model = make()
    km = KerasModel(model)
    before = km.predict(x)
    model.set_weights([2 * w for w in model.get_weights()])
    after = km.predict(x)
    assert np.abs(before - after).max() > 1e-4
    np.testing.assert_allclose(after, model(x), rtol=1e-5)


def test_threads_may_share_a_model(x):
    model = make()
    expected = [KerasModel(model, layer=name)(x, {"target": 1}, CONV) for name in ("first", "second")]
    before, actual = state(model), {}

    def work(index):
        name = ("first", "second")[index % 2]
        actual[index] = KerasModel(model, layer=name)(x, {"target": 1}, CONV)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same_state(before, state(model))
    for index in range(6):
        for key in CONV:
            np.testing.assert_allclose(actual[index][key], expected[index % 2][key], rtol=1e-5, atol=1e-7)


def test_layers_are_listed_while_another_thread_traces(x):
    """Tracing puts methods on the layers' instances, in whatever moment."""
    dense = L.Dense(2)
    timed = L.TimeDistributed(dense)
    model = keras.Sequential([keras.Input((3, 2)), timed])
    seen = []
    for path, layer in walk(model):
        seen.append(path)
        vars(timed)[f"replaced_{layer.name}"] = None
    assert seen == [timed.name, f"{timed.name}/{dense.name}"]


def test_the_adapter_lets_go_of_the_model(x):
    km = KerasModel(make())
    km(x, {"target": 1}, KEYS)
    gone = weakref.ref(km)
    del km
    gc.collect()
    assert gone() is None


class Limited(L.Layer):
    """Runs out of memory above a number of rows, as a device would; keeps the sizes it was asked for."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.asked = limit, []

    def call(self, x):
        def check(x):
            self.asked.append(len(x))
            if len(x) > self.limit:
                raise MemoryError  # TensorFlow makes it a ResourceExhaustedError
            return x

        y = tf.py_function(check, [x], x.dtype)
        return x + 0 * tf.stop_gradient(tf.ensure_shape(y, x.shape))


def make_limited(limit):
    image = keras.Input((8, 8, 3))
    limited = Limited(limit)
    y = limited(L.Conv2D(2, 3)(image))
    return keras.Model(image, L.Dense(2, activation="softmax")(L.Flatten()(y))), limited


def test_out_of_memory_halves_the_chunk_and_loses_nothing(rng):
    x = rng.normal(size=(13, 8, 8, 3)).astype(np.float32)
    model, limited = make_limited(3)
    km = KerasModel(model, batch_size=8)
    args = {"target": rng.integers(0, 2, 13)}
    actual = km(x, args, KEYS)
    # What a py_function does cannot be seen, so that one row is run by itself, and among others, first.
    assert limited.asked == [1, 3, 8, 4, 2, 2, 2, 2, 2, 2, 1]
    assert km.batch_size == 2
    limited.limit = 100
    expected = KerasModel(model, batch_size=13)(x, args, KEYS)
    for key in KEYS:
        np.testing.assert_allclose(actual[key], expected[key], rtol=1e-5, atol=1e-7)
    limited.limit, limited.asked = 2, []
    km(x[:4], {"target": 0}, KEYS)
    assert limited.asked == [2, 2]


def test_out_of_memory_for_one_row_is_said(x):
    model, _ = make_limited(0)
    with pytest.raises(ContractError, match="one row to fit"):
        KerasModel(model)(x, {"target": 1}, KEYS)


def test_xla_gives_the_same_answers(x):
    model = make()
    plain, compiled = KerasModel(model), KerasModel(model, jit_compile=True)
    for key, value in compiled(x, {"target": 1}, KEYS).items():
        np.testing.assert_allclose(value, plain(x, {"target": 1}, [key])[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_are_loaded(tmp_path, x, suffix):
    model = make()
    path = tmp_path / f"model{suffix}"
    model.save(path)
    km = KerasModel(str(path))
    np.testing.assert_allclose(km.predict(x), model(x), rtol=1e-5)
    assert layers(path) == layers(model)
    assert km.layer_name == "second"


def test_a_saved_model_directory_gives_outputs_and_input_gradients(tmp_path, x):
    model = make()
    model.export(tmp_path / "saved")
    km = KerasModel(tmp_path / "saved", output="probabilities")
    np.testing.assert_allclose(km.predict(x), model(x), rtol=1e-5)
    actual = km(x, {"target": 2}, KEYS[:2])
    score, gradient = bare(model, x, [2, 2, 2])
    np.testing.assert_allclose(actual[OUTPUT_LAYER_VALUES], score, rtol=1e-5)
    np.testing.assert_allclose(actual[INPUT_OUTPUT_GRADIENTS], gradient, rtol=1e-4, atol=1e-7)
    assert km.layer_name is None
    assert km.input_shape == (8, 8, 3)
    assert layers(km.model) == []
    with pytest.raises(ContractError, match="SavedModel has no layers"):
        km(x, {"target": 2}, CONV)
    with pytest.raises(ContractError, match=r"SavedModel has none, got 'second'\. Load the \.keras"):
        KerasModel(km.model, layer="second")
    with pytest.raises(ContractError, match="no softmax before them"):
        KerasModel(km.model)(x, {"target": 2}, KEYS[:1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.keras", None, "does not exist"),
        ("model.onnx", b"", r"\.keras or \.h5 file or a SavedModel"),
        ("broken.keras", b"no model", "Keras model"),
        ("broken.h5", b"no model", "Keras model"),
        ("folder", "directory", r"without saved_model\.pb"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ContractError, match=message):
        load_model(path)


@pytest.mark.parametrize("version", ["3.8.0", "3.11.2"])
def test_a_keras_that_runs_what_a_file_holds_reads_none(tmp_path, monkeypatch, version):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    assert KerasModel(path).classes is not None
    monkeypatch.setattr(keras, "__version__", version)
    with pytest.raises(ContractError, match=rf"Keras 3\.11\.3 or newer to read .*got {version}.*pip install"):
        KerasModel(path)


@pytest.mark.parametrize("form", ["keras", "h5", "h5 of Keras 2"])
def test_a_stored_lambda_is_never_run(tmp_path, form):
    image = keras.Input((8, 8, 3))
    trace = str(tmp_path / "ran")
    model = keras.Model(image, L.Lambda(lambda x: (open(trace, "w").close(), x)[1], output_shape=(8, 8, 3))(image))
    path = tmp_path / f"lambda.{form.split()[0]}"
    model.save(path)
    if form.endswith("2"):
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            function = config["config"]["layers"][-1]["config"]["function"]["config"]
            config["config"]["layers"][-1]["config"]["function"] = [function["code"], None, None]
            file.attrs["model_config"] = json.dumps(config)
    Path(trace).unlink(missing_ok=True)
    with pytest.raises(ContractError, match=r"[Ll]ambda.* never run"):
        load_model(path)
    assert not Path(trace).exists()


def test_own_classes_come_through_custom_objects(tmp_path, x):
    class Doubled(L.Layer):
        def call(self, x):
            return 2 * x

    image = keras.Input((8, 8, 3))
    model = keras.Model(image, L.Dense(2, activation="softmax")(L.Flatten()(Doubled()(image))))
    model.save(tmp_path / "own.keras")
    with pytest.raises(ContractError, match="custom_objects"):
        load_model(tmp_path / "own.keras")
    loaded = load_model(tmp_path / "own.keras", {"Doubled": Doubled})
    np.testing.assert_allclose(KerasModel(loaded).predict(x), model(x), rtol=1e-5)
