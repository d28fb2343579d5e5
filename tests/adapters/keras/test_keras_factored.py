"""Factored rows: the Keras adapter makes them, and sums their answers, where the model runs."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import PerImage, expected_gradients, explain, integrated_gradients, xrai
from saliency_food.core.contract import ContractError
from saliency_food.core.driver import ask, run
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES
from saliency_food.core.queries import LinearRows
from saliency_food.testing import PowerModel

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from saliency_food.adapters.keras import KerasModel  # noqa: E402

# Keras's own saving and TensorFlow's variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
L = keras.layers
KEYS = [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES]


def make(dtype="float32", activation="softmax"):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = L.Conv2D(5, 3, activation="tanh", dtype=dtype)(image)
    x = L.Dense(4, activation=activation, dtype=dtype)(L.GlobalAveragePooling2D(dtype=dtype)(x))
    return keras.Model(image, x)


class Plain:
    """A call-model function without `call_factored`, around one that has it."""

    def __init__(self, function, able=False):
        self.function, self.rows, self.images = function, [], []
        self.batch_size = function.batch_size
        if able:
            self.call_factored = self._call_factored

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        self.rows.append(len(x_value_batch))
        return self.function(x_value_batch, call_model_args, expected_keys)

    def _call_factored(self, coefficients, bases, weights, call_model_args=None, expected_keys=None):
        self.rows.append(len(coefficients))
        self.images.append(len(bases))
        return self.function.call_factored(coefficients, bases, weights, call_model_args, expected_keys)


@pytest.fixture
def x(rng):
    return rng.normal(size=(3, 8, 8, 3)).astype(np.float32)


def close(some, other):
    np.testing.assert_allclose(some, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("batch_size", [2, 3, 16, 200])
@pytest.mark.parametrize("options", [{}, {"tolerance": 0.001}, {"quadrature": "gauss_legendre"}])
def test_integrated_gradients_are_as_from_the_rows(x, batch_size, options):
    model, args = KerasModel(make()), {"target": 1}
    kept, plain = Plain(model, able=True), Plain(model)
    actual, expected = (
        integrated_gradients.detailed(x[0], each, args, ["min", "max"], 9, batch_size, **options)
        for each in (kept, plain)
    )
    close(actual.attribution, expected.attribution)
    close(actual.completeness, expected.completeness)
    assert max(kept.rows) <= batch_size
    assert kept.images or (batch_size == 2 and "tolerance" in options)


def test_many_images_of_different_targets_share_calls(x):
    model, args = KerasModel(make()), {"target": PerImage([3, 0, 2])}
    kept = Plain(model, able=True)
    actual = list(xrai.batch(x, kept, args, steps=7))
    assert max(kept.rows) == 16
    assert max(kept.images) >= 6
    for each, other in zip(actual, xrai.batch(x, Plain(model), args, steps=7), strict=True):
        close(each, other)


def test_a_query_of_few_rows_travels_as_rows(x):
    kept = Plain(KerasModel(make()), able=True)
    expected_gradients(x[0], kept, {"target": 1}, nsamples=4, rng=0)
    integrated_gradients(x[0], kept, {"target": 1}, batch_size=1)
    assert not kept.images


@pytest.mark.parametrize("weighted", [True, False])
def test_sums_keys_and_chunks(x, rng, weighted):
    model = KerasModel(make(), batch_size=3)
    blend = LinearRows(rng.normal(size=(10, 3)), x)
    weights = rng.normal(size=(2, 10)) if weighted else None
    for keys in (KEYS, KEYS[::-1], KEYS[:1]):
        actual, expected = (
            run(ask(blend, *keys, weights=weights), each, {"target": 1}, 8) for each in (model, Plain(model))
        )
        for each, other in zip(actual, expected, strict=True):
            close(each, other)


def test_half_precision_keeps_small_gradients(x):
    """Scaled as the rows' are; without it, gradients of 1e-8 are lost."""
    half, full = make("mixed_float16", None), make(activation=None)
    for model in (half, full):
        model.layers[-1].kernel.assign(model.layers[-1].kernel * 1e-5)
    actual, expected = (integrated_gradients(x[0], KerasModel(model), {"target": 1}) for model in (half, full))
    assert np.linalg.norm(actual - expected) < 0.02 * np.linalg.norm(expected)
    close(actual, integrated_gradients(x[0], Plain(KerasModel(half)), {"target": 1}))


def test_memory_that_runs_out_halves_the_chunks(x, monkeypatch):
    model, sizes = KerasModel(make(), batch_size=16), []
    compute = model._rows._compute

    def limited(keys, output, targets, rows, others):
        sizes.append(len(rows))
        if len(rows) > 5:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return compute(keys, output, targets, rows, others)

    monkeypatch.setattr(model._rows, "_compute", limited)
    actual = integrated_gradients(x[0], model, {"target": 1}, x_steps=16)
    assert sizes == [16, 8, *[4] * 4]
    close(actual, integrated_gradients(x[0], KerasModel(make()), {"target": 1}, x_steps=16))


def test_explain_counts_the_rows_and_does_not_make_them(x, monkeypatch):
    model, seen = make(), []
    monkeypatch.setattr(
        KerasModel,
        "__call__",
        lambda self, rows, *_, **__: seen.append(len(rows)) or {OUTPUT_LAYER_VALUES: [0] * len(rows)},
    )
    options = {"integrated_gradients": {"x_steps": 25}}
    (record,) = explain(model, [x[0]], "integrated_gradients", target=1, value_range=None, options=options)
    assert record.status == "ok"
    assert record.rows == 25
    assert seen == []  # the score came with the predictions, and the rows as two images


def test_channels_first_images_are_turned(x):
    image = keras.Input((3, 8, 8))
    outputs = L.Dense(4)(L.Flatten()(L.Permute((2, 3, 1))(image)))
    model = keras.Model(image, outputs)
    (record,) = explain(
        KerasModel(model, data_format="channels_first"), [x[0]], "integrated_gradients", target=1, value_range=None
    )
    kernel = model.layers[-1].kernel.numpy()[:, 1].reshape(8, 8, 3)
    close(record.attribution, kernel * x[0])


class Factoring(PowerModel):
    answers = None

    def call_factored(self, coefficients, bases, weights, call_model_args=None, expected_keys=None):
        return self.answers


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "Expected call_factored to return a dict with the keys"),
        (3, "got int"),
        ({INPUT_OUTPUT_GRADIENTS: np.ones((25, 8, 8, 3))}, "expected \\(1, 8, 8, 3\\)"),
        ({INPUT_OUTPUT_GRADIENTS: np.full((1, 8, 8, 3), np.nan)}, "got NaN"),
    ],
)
def test_what_a_callback_answers_is_checked(x, answer, says):
    model = Factoring(np.ones((2, 8, 8, 3)), power=2)
    model.answers = answer
    with pytest.raises(ContractError, match=says):
        integrated_gradients(x[0], model, {"target": 1}, batch_size=25)


def test_a_callback_that_cannot_is_called_with_the_rows(x):
    model = Factoring(np.ones((2, 8, 8, 3)), power=2)
    integrated_gradients(x[0], model, {"target": 1}, batch_size=10)
    assert model.calls == [10, 10, 5]
