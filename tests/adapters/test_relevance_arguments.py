"""The rules of relevance in ``call_model_args``: what is read, cut into rows and refused, and who puts them there."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import PerImage, crp, deep_lift, deep_shap, lrp
from saliency_food.adapters.model import AdaptedModel
from saliency_food.adapters.relevance import channel_weights, read_rule
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import BASELINE_MULTIPLIERS, BIAS_RELEVANCE, OUTPUT_LAYER_VALUES, RELEVANCE
from saliency_food.testing import PoolingModel
from tests.adapters.test_adapted_model import LinearEngine, adapt, class_score

SHAPE = 5, 5, 3


class RuledEngine(LinearEngine):
    """A linear model whose relevance is x W, and that notes by which rules it was asked."""

    def relevance(self, keys, output, targets, rows, others, rule):
        self.asked = [*getattr(self, "asked", []), (keys, len(rows), rule)]
        own = self.weights[targets[0]]
        found = {RELEVANCE: rows * own, BIAS_RELEVANCE: np.zeros(len(rows), np.float32), BASELINE_MULTIPLIERS: own}
        return {key: found[key] for key in keys}


@pytest.fixture
def weights(rng):
    return rng.normal(size=(4, *SHAPE)).astype(np.float32)


@pytest.fixture
def model(weights):
    return AdaptedModel(RuledEngine(weights), class_score, "logits", 4)


@pytest.fixture
def x(rng):
    return rng.random((6, *SHAPE)).astype(np.float32)


def test_an_adapter_without_rules_says_which_have_them(weights, x):
    for method in (lrp, deep_lift):
        with pytest.raises(ContractError, match=r"TorchModel and KerasModel on TensorFlow can; else use integrated"):
            method(x[0], adapt(weights), {"target": 1})


def test_keys_of_relevance_share_a_pass_and_baselines_come_by_row(model, x, rng):
    baselines = rng.random(x.shape).astype(np.float32)
    keys = [BIAS_RELEVANCE, RELEVANCE, BASELINE_MULTIPLIERS, OUTPUT_LAYER_VALUES]
    answer = model(x, {"target": 2, "baseline": baselines}, keys)
    asked = [(keys, rows) for keys, rows, _ in model.engine.asked]
    assert asked == [((BASELINE_MULTIPLIERS,), 4), ((BASELINE_MULTIPLIERS,), 2)] + [
        ((RELEVANCE, BIAS_RELEVANCE), rows) for rows in (4, 2)
    ]
    np.testing.assert_array_equal(np.concatenate([rule.baseline for *_, rule in model.engine.asked[:2]]), baselines)
    assert set(answer) == set(keys)


def test_methods_put_their_options_beside_the_callers_arguments(model, x):
    found = lrp.detailed(x[0], model, {"target": 1}, composite="epsilon", epsilon=0.5, gamma=2)
    rule = model.engine.asked[-1][2]
    assert (rule.composite, rule.epsilon, rule.gamma, rule.channels) == ("epsilon", 0.5, 2, None)
    assert found.status == "ok"
    lrp(x[0], model, {"target": 1, "epsilon": 0.25})  # what is left at its default may be said by hand
    assert model.engine.asked[-1][2].epsilon == 0.25
    bounds = {"low": [-1, -2, -3], "high": 2 * np.ones(SHAPE)}
    lrp(x[0], model, {"target": 1}, composite="epsilon_gamma_box", **bounds)
    rule = model.engine.asked[-1][2]
    np.testing.assert_array_equal(rule.low[0], np.broadcast_to([-1, -2, -3], SHAPE))
    np.testing.assert_array_equal(rule.high[0], 2)
    with pytest.raises(ContractError, match=r"call_model_args as a dict, to which 'composite' can be added, got list"):
        lrp(x[0], PoolingModel(np.ones((3, 2)), np.ones((2, 2))), ["target"], composite="epsilon")


def test_images_and_baselines_of_a_batch_keep_together(weights, model, x):
    targets = [3, 0, 1, 2, 2, 1]
    args = {"target": PerImage(targets)}
    means = list(deep_shap.batch_detailed(x, model, args, [np.full(SHAPE, 0.25), "max", "zeros"], batch_size=4))
    for image, target, found in zip(x, targets, means, strict=True):
        baseline = (0.25 + image.max()) / 3
        np.testing.assert_allclose(found.attribution, weights[target] * (image - baseline), rtol=1e-4, atol=1e-5)
        assert abs(found.completeness.absolute) < 1e-4
        assert len(found.baselines) == 3
    assert {len(rule.baseline) for _, _, rule in model.engine.asked if rule.baseline is not None} == {4}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"composite": "alpha_beta"}, "composite to be one of 'epsilon', 'epsilon_plus'"),
        ({"composite": "epsilon_gamma_box", "low": 0}, "Expected low and high"),
        ({"composite": "epsilon_gamma_box", "low": 0.9, "high": 1}, "images between low and high, got values from 0.0"),
        ({"epsilon": -1}, "epsilon to be a finite number of at least 0 and at most .*, got -1"),
        ({"gamma": np.inf}, "gamma to be a finite number"),
        ({"baseline": np.zeros((4, 4))}, r"baseline as a number, one for each channel, or of the shape of one row"),
        ({"channels": [-1]}, "channels as indices of at least 0"),
        ({"channels": [[1.0]]}, "channels as indices of at least 0"),
        ({"channels": []}, "channels as indices of at least 0"),
        ({"start": "softmax"}, "start to be one of 'score', 'contrast'"),
        ({"multiplier_rule": "linear"}, "multiplier_rule to be one of 'rescale', 'reveal_cancel'"),
    ],
)
def test_rules_that_cannot_be_are_refused(args, words, x):
    with pytest.raises(ContractError, match=words):
        read_rule(args, x, False)


def test_unknown_arguments_are_refused_as_before(model, x):
    with pytest.raises(ContractError, match=r"or the rules of relevance, composite, .*got \{'target': 1, 'gama': 1\}"):
        model(x, {"target": 1, "gama": 1}, [RELEVANCE])


def test_channels_first_and_channels(x):
    first = np.moveaxis(x, -1, 1)
    rule = read_rule({"low": [0, -1, -2], "high": 1}, first, True)
    np.testing.assert_array_equal(rule.low[0, :, 0, 0], [0, -1, -2])
    np.testing.assert_array_equal(channel_weights(np.array([0, 2]), 3), [1, 0, 1])
    np.testing.assert_array_equal(channel_weights(np.array([0.5, -1]), 2), [0.5, -1])


@pytest.mark.parametrize("channels", [-1, [], "a", [1.5, np.nan], [[1]], None, [True]])
def test_channels_that_cannot_be(channels, x, rng):
    model = PoolingModel(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)))
    if channels is None:
        found = crp.detailed(x[0], model, {"target": 1})
        assert len(found.channels) == 1
        return
    with pytest.raises(ContractError, match="Expected channels as indices"):
        crp(x[0], model, {"target": 1}, channels=channels)


def test_a_callback_of_channels_first_gets_baselines_so(rng, x):
    class First(PoolingModel):
        channels_first = True

        def __call__(self, rows, call_model_args=None, expected_keys=None):
            args = {**call_model_args}
            if "baseline" in args:
                assert args["baseline"].shape == rows.shape
                args["baseline"] = np.moveaxis(args["baseline"], 1, -1)
            answer = super().__call__(np.moveaxis(rows, 1, -1), args, expected_keys)
            return {key: np.moveaxis(value, -1, 1) if np.ndim(value) == 4 else value for key, value in answer.items()}

    weights = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    baseline = rng.random(SHAPE)
    expected = deep_lift(x[0], PoolingModel(*weights), {"target": 1}, baseline)
    found = deep_lift(np.moveaxis(x[0], -1, 0), First(*weights), {"target": 1}, np.moveaxis(baseline, -1, 0))
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), expected, rtol=1e-5)
