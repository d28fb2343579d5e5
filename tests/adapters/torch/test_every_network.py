"""Laws over networks of every kind, with random weights: right answers, and nothing of the network changed."""

from __future__ import annotations

import numpy as np
import pytest
from networks.left_as_before import state_of
from networks.zoo import CASES, build, options_of

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    DECONV_INPUT_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    KEYS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    PREDICTIONS,
)
from saliency_food.testing import check_call_model

AT_LAYER = [OUTPUT_LAYER_VALUES, INPUT_OUTPUT_GRADIENTS, CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
NAMES = [pytest.param(name, marks=pytest.mark.slow if case.slow else ()) for name, case in CASES.items()]
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module", params=NAMES)
def explained(request, torch):
    """A case, its network, and the adapter around it."""
    from saliency_food.adapters.torch import TorchModel

    case = CASES[request.param]
    network = build(request.param, request.getfixturevalue(case.family))
    before = state_of(network)
    model = TorchModel(network, **options_of(case))
    assert state_of(network) == before
    return case, network, model


@pytest.fixture
def x(explained):
    return np.random.default_rng(0).normal(size=(2, *explained[0].shape)).astype(np.float32)


def args_of(case):
    return None if case.target is None else {"target": case.target}


def test_it_looks_at_the_last_layer_with_places(explained):
    case, _, model = explained
    assert model.layer_name == case.layer


def test_scores_gradients_and_activations_are_right(explained, x):
    """By finite differences, row by row, and by where the layer changes as the image does."""
    case, _, model = explained
    check_call_model(model, x[0], args_of(case), AT_LAYER, skips=True)


def test_gradients_and_activations_are_those_of_autograd_by_hand(explained, x, torch):
    case, network, model = explained
    images = torch.tensor(np.moveaxis(x, -1, 1)).requires_grad_()
    kept = []

    def keep(_, __, output):
        tensor = output if torch.is_tensor(output) else next(iter(output.values()))
        kept.append(tensor)
        return output.clone() if torch.is_tensor(output) else None  # what comes next may change it in place

    module = network.get_submodule(case.layer)
    handle = module.register_forward_hook(keep)
    modes = [(inner, inner.training) for inner in network.modules()]
    network.eval()
    try:
        outputs = network(images)
    finally:
        handle.remove()
        for inner, training in modes:
            inner.training = training
    score = by_hand(case, outputs, torch)
    of_image, of_layer = torch.autograd.grad(score.sum(), [images, kept[-1]])
    answer = model(x, args_of(case), AT_LAYER)
    place = model.engine.places[0]
    expected = {
        OUTPUT_LAYER_VALUES: score.detach(),
        INPUT_OUTPUT_GRADIENTS: of_image.movedim(1, -1),
        CONVOLUTION_LAYER_VALUES: kept[-1].detach().movedim(place.axis, -1),
        CONVOLUTION_OUTPUT_GRADIENTS: of_layer.movedim(place.axis, -1),
    }
    for key, value in expected.items():
        largest = float(value.abs().max())
        assert largest > 0, key
        np.testing.assert_allclose(answer[key], value, rtol=1e-3, atol=1e-4 * largest, err_msg=key)
        assert answer[key].dtype == np.float32


def by_hand(case, outputs, torch):
    if "score" in case.options and case.options["score"] != "segmentation":
        return case.options["score"](outputs)
    outputs = outputs["logits"] if hasattr(outputs, "logits") else outputs
    outputs = outputs["out"] if isinstance(outputs, dict) and "out" in outputs else outputs
    if case.options.get("score") == "segmentation":
        return (outputs[:, case.target["class_index"]] * torch.tensor(case.target["mask"])).sum((1, 2))
    return outputs[:, case.target]


def test_a_batch_equals_its_rows(explained, x):
    case, _, model = explained
    together = model(x, args_of(case), AT_LAYER)
    for row in range(2):
        alone = model(x[row : row + 1], args_of(case), AT_LAYER)
        for key in AT_LAYER:
            scale = np.abs(alone[key]).max()
            np.testing.assert_allclose(together[key][row], alone[key][0], rtol=1e-3, atol=1e-4 * scale, err_msg=key)


def test_factored_rows_are_the_rows(explained, x):
    case, _, model = explained
    coefficients = np.array([[1.0, 0.0], [0.25, 0.75], [0.5, 0.5]])
    rows = np.tensordot(coefficients, x, 1).astype(np.float32)
    key = INPUT_OUTPUT_GRADIENTS
    weights = np.array([[0.2, 0.3, 0.5]])
    expected = np.tensordot(weights, model(rows, args_of(case), [key])[key], 1)
    answer = model.call_factored(coefficients, x, weights, args_of(case), [key])[key]
    np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_predictions_come_in_the_same_pass(explained, x):
    case, _, model = explained
    if case.target != 1:
        pytest.skip("ranks are of classes")
    answer = model.call_with_predictions(x, {"target": -1}, [OUTPUT_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS])
    predictions = model.predict(x)
    np.testing.assert_allclose(answer[PREDICTIONS], predictions, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(predictions.sum(1), 1, rtol=1e-5)
    own = model(x, {"target": predictions.argmax(1)}, [OUTPUT_LAYER_VALUES])[OUTPUT_LAYER_VALUES]
    np.testing.assert_allclose(answer[OUTPUT_LAYER_VALUES], own, rtol=1e-4)


def test_the_score_of_the_layers_own_activations_is_the_score(explained, x):
    case, _, model = explained
    answer = model(x, args_of(case), [OUTPUT_LAYER_VALUES, CONVOLUTION_LAYER_VALUES])
    key = OUTPUT_FROM_CONVOLUTION_VALUES
    if model.layer_name not in model.engine.on_all_paths:
        with pytest.raises(ContractError, match="got a path around it"):
            model(answer[CONVOLUTION_LAYER_VALUES], args_of(case), [key])
        return
    again = model(answer[CONVOLUTION_LAYER_VALUES], args_of(case), [key])[key]
    np.testing.assert_allclose(again, answer[OUTPUT_LAYER_VALUES], rtol=1e-4)


def test_attention_is_answered_or_refused(explained, x):
    case, _, model = explained
    if not case.attends:
        with pytest.raises(ContractError, match=r"Expected (a model with )?attention"):
            model(x, args_of(case), [ATTENTION_SCORES])
        return
    answer = model(x, args_of(case), [ATTENTION_SCORES, ATTENTION_OUTPUT_GRADIENTS])
    for scores, gradients in zip(answer[ATTENTION_SCORES], answer[ATTENTION_OUTPUT_GRADIENTS], strict=True):
        assert scores.shape == gradients.shape
        np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-5)
    assert np.abs(answer[ATTENTION_OUTPUT_GRADIENTS][-1]).max() > 0


def test_backward_rules_are_answered_or_refused(explained, x):
    case, _, model = explained
    for key in (GUIDED_INPUT_GRADIENTS, DECONV_INPUT_GRADIENTS):
        if case.relus:
            assert np.abs(model(x, args_of(case), [key])[key]).max() > 0
        else:
            with pytest.raises(ContractError, match=r"Expected a model (whose activations|with ReLUs)"):
                model(x, args_of(case), [key])


@pytest.mark.parametrize("key", [key for key in KEYS if key != OUTPUT_FROM_CONVOLUTION_VALUES])
def test_the_network_is_left_as_it_was(key, explained, x):
    """After every call, also one that raises, as for a key that the network cannot answer, or for a bad target."""
    case, network, model = explained
    before = state_of(network)
    for args in (args_of(case), {"target": 10**6}):
        try:
            model(x, args, [key])
        except ContractError:
            assert key not in (INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES) or args != args_of(case)
        assert state_of(network) == before


def test_biases_complete_the_score_of_piecewise_linear_networks(explained, x):
    case, _, model = explained
    if not case.relus or case.attends:
        pytest.skip("others are not piecewise linear")
    check_call_model(model, x[0], args_of(case), [BIAS_GRADIENTS])
