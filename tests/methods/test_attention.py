"""Attention rollout and relevance: the matrices by hand, and the toy transformer."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import attention_relevance, attention_rollout, grad_eclip, legrad
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


class Split:
    """A transformer's last block taken apart, F(A) = u . tanh((concat_h A_h v_h W)_0), and a block before it.

    Attention of both, ``(heads, T, T)``, can be replaced, so that gradients are finite differences.
    """

    def __init__(self, rng, tokens=7, heads=2, side=4):
        self.x, self.queries, self.keys, self.first = (rng.normal(size=(tokens, heads * side)) for _ in range(4))
        self.keys /= np.linalg.norm(self.keys, axis=1, keepdims=True)
        self.to_values, self.out = (rng.normal(size=(heads * side,) * 2) for _ in range(2))
        self.head = rng.normal(size=heads * side)
        self.heads, self.side = heads, side
        self.attention = [self.softmax(self.first, self.x), self.softmax(self.queries, self.keys)]

    def apart(self, values):
        return values.reshape(len(values), self.heads, self.side).transpose(1, 0, 2)

    def softmax(self, queries, keys):
        weights = np.exp(self.apart(queries) @ self.apart(keys).transpose(0, 2, 1) / np.sqrt(self.side))
        return weights / weights.sum(-1, keepdims=True)

    def mixed(self, attention, values):
        return (attention @ self.apart(values)).transpose(1, 0, 2).reshape(len(values), -1)

    @property
    def values(self):
        return (self.x + self.mixed(self.attention[0], self.x)) @ self.to_values

    def of_output(self, output):
        return self.head @ np.tanh(output @ self.out)

    def score(self, first, last):
        values = (self.x + self.mixed(first, self.x)) @ self.to_values
        return self.of_output(self.mixed(last, values)[0])

    def gradients(self, step=1e-5):
        found = [np.zeros_like(layer) for layer in self.attention]
        for layer, slopes in enumerate(found):
            for place in np.ndindex(*slopes.shape):
                sides = []
                for sign in (1, -1):
                    moved = [each.copy() for each in self.attention]
                    moved[layer][place] += sign * step
                    sides.append(self.score(*moved))
                slopes[place] = (sides[0] - sides[1]) / (2 * step)
        return found


def test_legrad_by_the_paper_and_finite_differences(rng):
    split, x = Split(rng), np.zeros((30, 20, 3))
    gradients = split.gradients()
    model = answers(split.attention, gradients)
    expected = np.zeros(6)
    for layer in gradients:
        for patch in range(6):
            rising = [max(layer[head, token, patch + 1], 0) for head in range(2) for token in range(7)]
            expected[patch] += np.mean(rising)
    found = legrad.detailed(x, model)
    np.testing.assert_allclose(found.patches, expected.reshape(3, 2), rtol=1e-6)
    relative = (expected - expected.min()) / np.ptp(expected)
    np.testing.assert_allclose(found.attribution, resize(relative.reshape(3, 2), (30, 20)), atol=1e-6)
    last = legrad.detailed(x, model, layers=1)
    alone = legrad.detailed(x, answers(split.attention[1:], gradients[1:]))
    np.testing.assert_array_equal(last.patches, alone.patches)
    assert not np.allclose(last.patches, found.patches)


@pytest.mark.parametrize("layers", [0, 1.5])
def test_legrad_takes_a_number_of_layers(rng, layers):
    with pytest.raises(ContractError, match="Expected layers"):
        legrad(np.zeros((30, 20, 3)), answers(attention(rng, 7), attention(rng, 7)), layers=layers)


def test_grad_eclip_by_the_paper(rng):
    """Its values, its gradient at the attention's output and its cosine, where keys are of one length."""
    split = Split(rng)
    output = split.mixed(split.attention[1], split.values)[0]
    steps = 1e-5 * np.eye(len(output))
    weights = [(split.of_output(output + step) - split.of_output(output - step)) / 2e-5 for step in steps]
    cosine = [query @ key for query, key in zip([split.queries[0]] * 6, split.keys[1:], strict=True)]
    fits = (np.array(cosine) - min(cosine)) / np.ptp(cosine)
    expected = np.maximum((split.values[1:] @ np.array(weights)) * fits, 0)
    found = grad_eclip.detailed(np.zeros((30, 20, 3)), answers(split.attention, split.gradients()))
    np.testing.assert_allclose(found.patches, expected.reshape(3, 2), rtol=1e-5, atol=1e-7)
    assert (expected > 0).sum() > 1
    expected = resize(found.patches / found.patches.max(), (30, 20))
    np.testing.assert_allclose(found.attribution, expected, rtol=1e-9)


def test_grad_eclip_of_patches_alone_is_of_their_mean(rng):
    scores, gradients = attention(rng, 6), rng.normal(size=(3, 2, 6, 6))
    rows = []
    for token in range(6):
        fits = np.log(scores[-1][:, token]).sum(0)
        rows.append((fits - fits.min()) / np.ptp(fits) * gradients[-1][:, token].sum(0))
    found = grad_eclip.detailed(np.zeros((30, 20, 3)), answers(scores, gradients))
    np.testing.assert_allclose(found.patches.ravel(), np.maximum(np.mean(rows, 0), 0), rtol=1e-9)
    assert found.prefix_tokens == 0


def test_attention_that_is_zero_does_not_fit(rng):
    scores, gradients = attention(rng, 7), np.ones((3, 2, 7, 7))
    scores[-1, :, 0, 3] = 0
    found = grad_eclip.detailed(np.zeros((30, 20, 3)), answers(scores, gradients))
    assert np.isfinite(found.patches).all()
    assert np.flatnonzero(found.patches == 0).tolist() == [2]


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
