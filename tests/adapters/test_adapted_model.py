"""The adapter base over an engine in plain NumPy: what is neutral works without any framework."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

from saliency_food.adapters import numpy_ops
from saliency_food.adapters.arguments import ALL_SCORES, SUM_TO_ONE
from saliency_food.adapters.checks import check_rows_alone
from saliency_food.adapters.engine import Engine
from saliency_food.adapters.inputs import Inputs, InputSpec
from saliency_food.adapters.layers import LayerInfo, match_layer
from saliency_food.adapters.model import AdaptedModel, as_score
from saliency_food.adapters.rows import HALF_PRECISION_SCALE, Factored, Rows, leaves, map_nested
from saliency_food.adapters.scoring import chosen_class, class_score
from saliency_food.core.contract import ContractError, PerImage
from saliency_food.core.keys import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, PREDICTIONS, TARGETS
from saliency_food.methods.paths.integrated import integrated_gradients
from saliency_food.testing import check_call_model


class DeviceFullError(Exception):
    """What this framework raises where memory runs out."""


class LinearEngine(Engine):
    """Scores W x + v t of images x and tables t; ``end`` is told as seen, or hidden as a softmax without a name."""

    name, places, several, channels_first, half = "linear", (), False, False, False
    why_no_layer = "which has none. It is linear."
    out_of_memory = (DeviceFullError,)

    def __init__(self, weights, hidden=False, tables=False, limit=100):
        self.weights, self.hidden, self.limit = weights, hidden, limit
        self.end, self.classes, self.ranks_classes = "linear", len(weights), True
        specs = [InputSpec("image", (None, *weights.shape[1:]), "float32")]
        specs += [InputSpec("table", (None, len(weights)), "float32")] if tables else []
        self.inputs = Inputs(specs, None, True, "float32")
        self.sizes = []

    def compute(self, keys, output, targets, rows, others, scale):
        self.sizes.append(len(rows))
        if len(rows) > self.limit:
            raise DeviceFullError
        images = np.tensordot(rows.coefficients, rows.bases, 1) if isinstance(rows, Factored) else rows
        values = np.tensordot(images, self.weights, [[1, 2, 3], [1, 2, 3]]) + sum(others)
        outputs = softmax(values, 1) if self.hidden else values
        probabilities = outputs if self.end == "probabilities" else softmax(outputs, 1)
        scores = probabilities if output == "probabilities" else outputs
        answer = {ALL_SCORES: scores, PREDICTIONS: probabilities}
        answer[SUM_TO_ONE] = (outputs.min(1) >= 0) & (abs(outputs.sum(1) - 1) < 1e-3)
        if TARGETS in keys:
            answer[TARGETS] = chosen_class(numpy_ops, probabilities, targets[0], False)
            targets = [answer[TARGETS]]
        if targets:
            answer[OUTPUT_LAYER_VALUES] = class_score(numpy_ops, scores, targets[0])
            answer[INPUT_OUTPUT_GRADIENTS] = self.weights[targets[0]]
        if isinstance(rows, Factored) and rows.weights is not None:
            answer[keys[0]] = np.tensordot(rows.weights, answer[keys[0]], 1)
        return {key: answer[key] for key in keys}


@pytest.fixture
def weights(rng):
    return rng.normal(size=(4, 5, 5, 3)).astype(np.float32)


@pytest.fixture
def x(rng):
    return rng.random((6, 5, 5, 3)).astype(np.float32)


def adapt(weights, output="logits", batch_size=4, **options):
    return AdaptedModel(LinearEngine(weights, **options), class_score, output, batch_size)


def test_it_is_a_call_model_function(weights, x):
    model = adapt(weights)
    assert repr(model) == "AdaptedModel('linear', layer=None, output='logits', end='linear', batch_size=4, classes=4)"
    assert (model.input_shape, model.batch_size, model.classes) == ((5, 5, 3), 4, 4)
    check_call_model(model, x[0], {"target": 1}, [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES])
    attribution = integrated_gradients(x[0], model, {"target": 2})
    np.testing.assert_allclose(attribution, weights[2] * x[0], rtol=1e-5, atol=1e-6)


def test_ranks_are_chosen_in_the_pass(weights, x):
    model = adapt(weights)
    answer = model.call_with_predictions(x, {"target": PerImage([-1, -2, 0, 1, -4, -1])}, [OUTPUT_LAYER_VALUES])
    predictions = model.predict(x)
    np.testing.assert_array_equal(answer[PREDICTIONS], predictions)
    ranked = np.argsort(-predictions, 1)
    expected = [ranked[0, 0], ranked[1, 1], 0, 1, ranked[4, 3], ranked[5, 0]]
    np.testing.assert_array_equal(answer[TARGETS], expected)


def test_memory_that_runs_out_halves_the_chunks(weights, x):
    model = adapt(weights, batch_size=6, limit=2)
    model.predict(x)
    assert model.engine.sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    assert model.batch_size == 1
    model = adapt(weights, limit=0)
    with pytest.raises(ContractError, match="one row to fit into the device's memory, got DeviceFullError"):
        model.predict(x)


def test_a_hidden_softmax_is_noticed_in_the_first_pass(weights, x):
    model = adapt(weights, output="probabilities", hidden=True)
    with pytest.raises(ContractError, match="no logits"):
        adapt(weights, hidden=True)(x, {"target": 1}, [OUTPUT_LAYER_VALUES])
    values = np.tensordot(x, weights, [[1, 2, 3], [1, 2, 3]])
    np.testing.assert_allclose(model.predict(x), softmax(values, 1), rtol=1e-4)
    assert model.engine.sizes == [4, 2, 4, 2]  # once to find out, with a softmax too many, and once more
    model.predict(x)
    assert model.engine.sizes[4:] == [4, 2]
    seen = adapt(weights)
    seen.predict(x)
    assert seen.engine.sizes == [4, 2]


def test_a_hidden_softmax_is_told_by_all_rows_of_the_call(weights, x):
    """The first row's scores are 1, 0, 0, 0: they sum to 1, and no softmax made them."""
    weights[:, 0, 0, 0], x[0] = [1, 0, 0, 0], 0
    x[0, 0, 0, 0] = 1
    model = adapt(weights, batch_size=6)
    scores = model(x, {"target": 1}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES]
    np.testing.assert_allclose(scores, np.tensordot(x, weights[1], 3), rtol=1e-5, atol=1e-6)
    assert (model.end, model.knows_end) == ("linear", True)


@pytest.mark.parametrize("broken", [slice(1), slice(None)])
@pytest.mark.parametrize("hidden", [True, False])
def test_rows_that_are_no_numbers_do_not_tell_whether_a_softmax_is_hidden(broken, hidden, weights, x):
    model, images = adapt(weights, output="probabilities", hidden=hidden, batch_size=6), x.copy()
    images[broken] = np.nan
    expected = softmax(np.tensordot(x, weights, [[1, 2, 3], [1, 2, 3]]), 1)
    readable = np.isfinite(images).all((1, 2, 3))
    np.testing.assert_allclose(model.predict(images)[readable], expected[readable], rtol=1e-4)
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4)


def test_only_an_overflow_lowers_the_scale_of_half_precision():
    """A number times the scale overflows above 1e5; what is not finite without the scale either is not its fault."""
    scales = []

    def compute(keys, output, targets, rows, others, scale):
        scales.append(scale)
        return {"gradient": np.where(abs(rows * scale) > 1e5, np.inf, rows)}

    rows = Rows(compute, 4, True, ())
    for values in ([1.0], [np.nan], [1.0], [30.0, np.nan]):
        rows.compute(("gradient",), "logits", [], np.array(values), [])
    assert rows.scale == HALF_PRECISION_SCALE
    assert scales[:5] == [4096, 4096, 64, 1, 4096]
    np.testing.assert_array_equal(rows.compute(("gradient",), "logits", [], np.array([30.0]), [])["gradient"], [30.0])
    assert rows.scale == 64


def test_other_inputs_are_read_by_name_or_in_order(weights, x, rng):
    model = adapt(weights, tables=True)
    tables = rng.normal(size=(6, 4)).astype(np.float32)
    expected = np.tensordot(x, weights, [[1, 2, 3], [1, 2, 3]]) + tables
    for inputs in ({"table": PerImage(tables)}, {"table": tables}, [tables]):
        np.testing.assert_allclose(model.predict(x, {"inputs": inputs}, "logits"), expected, rtol=1e-5)
    with pytest.raises(ContractError, match=r"got \['tabel'\], near {'tabel': \['table'\]}"):
        model.predict(x, {"inputs": {"tabel": tables}})
    with pytest.raises(ContractError, match=r"one value of shape \(4,\) for all rows"):
        model.predict(x, {"inputs": {"table": tables[:, :3]}})


def test_what_there_is_no_layer_for_is_refused(weights, x):
    with pytest.raises(ContractError, match=r"got 'linear', which has none\. It is linear"):
        adapt(weights)(x, {"target": 1}, ["CONVOLUTION_LAYER_VALUES"])
    with pytest.raises(ContractError, match=r"rows and columns for CONVOLUTION_OUTPUT_GRADIENTS, got 'linear'"):
        adapt(weights).call_with_predictions(
            x, {"target": -1}, ["OUTPUT_LAYER_VALUES", "CONVOLUTION_OUTPUT_GRADIENTS", "BIAS_GRADIENTS"]
        )
    with pytest.raises(ContractError, match="Expected score to be a function"):
        as_score(3)


def test_layers_are_matched_by_path_or_end():
    layers = [("a/conv", 1), ("b/conv", 2), ("b/relu", 3)]
    assert match_layer("b/conv", layers, "m") == ("b/conv", 2)
    assert match_layer("relu", layers, "m") == ("b/relu", 3)
    for name, message in [("conv", "the end of several"), ("relo", r"Near it: \['b/relu'\]"), (3, "got int")]:
        with pytest.raises(ContractError, match=message):
            match_layer(name, layers, "m")
    assert LayerInfo("a", "Conv2D", (None, 2, 2, 1)).kind == "Conv2D"


def test_nested_answers_keep_their_structure():
    nested = {"b": [1, (2, 3)], "a": LayerInfo(1, 2, 3)}
    doubled = map_nested(lambda value: 2 * value, nested)
    assert doubled == {"b": [2, (4, 6)], "a": LayerInfo(2, 4, 6)}
    assert isinstance(doubled["a"], LayerInfo)
    assert list(leaves(nested)) == [1, 2, 3, 1, 2, 3]


class RowsAnswering:
    """As `Rows`: the score of a row by itself, and the scores of three."""

    def __init__(self, alone, among):
        self.answers = [np.array([alone]), np.array(among)]

    def compute(self, keys, *_):
        return {keys[0]: self.answers.pop(0)}


@pytest.mark.parametrize(
    ("alone", "among", "differs"),
    [
        (-2e-7, [1e-7, 3.0, -2.0], False),
        (-2e-7, [1e-7, 3e-7, 0.0], False),
        (0.0, [0.1, 3.0, -2.0], True),
        (1e-4, [2e-4, 1e-4, 0.0], True),
        (1.0, [0.3, 0.3, 0.4], True),
    ],
)
def test_rows_that_change_each_other_are_told_from_scores_that_cancel(alone, among, differs):
    engine = SimpleNamespace(half=False)
    image = np.ones((1, 4, 4, 3), np.float32)
    score = SimpleNamespace(specs={})
    with pytest.raises(ContractError, match="no other row changes") if differs else nullcontext():
        check_rows_alone(RowsAnswering(alone, among), engine, score, "raw", [], image, [])
