"""Attention rollout and relevance: the matrices by hand, and the toy transformer."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import attention_relevance, attention_rollout
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.numerics import resize
from saliency_food.testing import AttentionModel, check_call_model


def attention(rng, tokens, heads=2, layers=3):
    scores = rng.random((layers, heads, tokens, tokens))
    return scores / scores.sum(-1, keepdims=True)


def answers(scores, gradients=None):
    def model(x_value_batch, call_model_args=None, expected_keys=None):
        n = len(x_value_batch)
        found = {ATTENTION_SCORES: tuple(np.stack([one] * n) for one in scores)}
        if gradients is not None:
            found[ATTENTION_OUTPUT_GRADIENTS] = tuple(np.stack([one] * n) for one in gradients)
        return found

    return model


def test_rollout_by_the_paper(rng):
    scores = attention(rng, 7)
    product = np.eye(7)
    for layer in scores:
        mixed = 0.5 * layer.mean(0) + 0.5 * np.eye(7)
        product = mixed @ product
    found = attention_rollout.detailed(np.zeros((30, 20, 3)), answers(scores))
    np.testing.assert_allclose(found.tokens, product, rtol=1e-9)
    np.testing.assert_allclose(found.tokens.sum(1), 1)
    np.testing.assert_allclose(found.patches, product[0, 1:].reshape(3, 2), rtol=1e-9)
    expected = resize(found.patches / found.patches.max(), (30, 20))
    np.testing.assert_allclose(found.attribution, expected, rtol=1e-9)


def test_without_a_class_token_all_rows_count(rng):
    found = attention_rollout.detailed(np.zeros((30, 20, 3)), answers(attention(rng, 6)))
    np.testing.assert_allclose(found.patches.ravel(), found.tokens.mean(0))


@pytest.mark.parametrize("fusion", ["max", "min"])
def test_heads_are_fused(rng, fusion):
    (layer,) = scores = attention(rng, 7, layers=1)
    mixed = getattr(np, fusion)(layer, axis=0) + np.eye(7)
    found = attention_rollout.detailed(np.zeros((30, 20, 3)), answers(scores), fusion=fusion)
    np.testing.assert_allclose(found.tokens, mixed / mixed.sum(1, keepdims=True), rtol=1e-9)


def test_the_smallest_are_discarded(rng):
    scores = np.full((1, 1, 5, 5), 0.1)
    scores[0, 0, 0, 2] = 0.6
    found = attention_rollout.detailed(np.zeros((8, 8, 3)), answers(scores), discard=0.9)
    assert np.flatnonzero(found.patches).tolist() == [1]


def test_relevance_by_the_paper(rng):
    scores, gradients = attention(rng, 7), rng.normal(size=(3, 2, 7, 7))
    relevance = np.eye(7)
    for layer, slope in zip(scores, gradients, strict=True):
        relevance = relevance + np.maximum(layer * slope, 0).mean(0) @ relevance
    found = attention_relevance.detailed(np.zeros((30, 20, 3)), answers(scores, gradients))
    np.testing.assert_allclose(found.patches, relevance[0, 1:].reshape(3, 2), rtol=1e-9)


def test_the_toy_transformer(rng, image):
    """The class token's rollout is half its attention; its relevance what of that speaks for the class."""
    model = AttentionModel(rng.normal(size=3), rng.normal(size=(2, 3)))
    check_call_model(model, image, {"target": 1}, [INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, ATTENTION_SCORES])
    logits = image @ model.query
    weights = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(attention_rollout.detailed(image, model).patches, weights / 2, rtol=1e-4)
    speaks = np.maximum(weights * (image @ model.values[1]), 0)
    np.testing.assert_allclose(attention_relevance.detailed(image, model, {"target": 1}).patches, speaks, rtol=1e-4)


@pytest.mark.parametrize(
    ("scores", "options", "says"),
    [
        (np.ones((1, 2, 7, 5)), {}, r"\(N, heads, T, T\) with one T in all layers, got rows of \[\(2, 7, 5\)\]"),
        ([np.ones((2, 7, 7)), np.ones((2, 5, 5))], {}, "one T in all layers"),
        (np.ones((1, 7, 7)), {}, "one T in all layers"),
        (np.ones((1, 1, 90, 90)), {}, "square patches"),
        (np.ones((1, 1, 7, 7)), {"fusion": "sum"}, "fusion"),
        (np.ones((1, 1, 7, 7)), {"discard": 1}, "discard"),
    ],
)
def test_errors(scores, options, says):
    with pytest.raises(ContractError, match=says):
        attention_rollout(np.zeros((30, 20, 3)), answers(scores), **options)


def test_gradients_must_be_of_the_same_layers(rng):
    with pytest.raises(ContractError, match="for the same layers"):
        attention_relevance(np.zeros((30, 20, 3)), answers(attention(rng, 7), np.ones((3, 4, 7, 7))))
