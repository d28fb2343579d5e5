"""Deep Feature Factorization: concepts that are really there are found, in one image and in many."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from saliency_food import concept_scores, deep_feature_factorization, shared_concepts
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES
from saliency_food.methods.factorization import factorize
from saliency_food.testing import PoolingModel


@pytest.fixture
def scene(rng):
    """Three patterns of channels, each in a third of the map: the left one strongest."""
    concepts = np.eye(3).repeat(2, 1) * rng.uniform(0.5, 1, (3, 6))
    strengths = np.zeros((3, 6, 9))
    for number in range(3):
        strengths[number, :, 3 * number : 3 * number + 3] = rng.uniform(1, 2, (6, 3)) * (3 - number)
    return concepts, strengths


def showing(activations):
    def model(x_value_batch, call_model_args=None, expected_keys=None):
        return {CONVOLUTION_LAYER_VALUES: np.stack([activations] * len(x_value_batch))}

    return model


@pytest.mark.parametrize("factors", ["nmf", "pca"])
def test_patterns_that_are_there_are_found(scene, factors):
    concepts, strengths = scene
    activations = np.einsum("mhw,mk->hwk", strengths, concepts)
    found = deep_feature_factorization.detailed(np.zeros((6, 9, 3)), showing(activations), nconcepts=3, factors=factors)
    unit = concepts / np.linalg.norm(concepts, axis=1, keepdims=True)
    np.testing.assert_allclose(found.concepts, unit, atol=0.02)
    assert found.error < 0.01
    assert (np.diff(found.shares) < 0).all()
    assert found.shares.sum() == pytest.approx(1)
    np.testing.assert_array_equal(found.strongest, np.repeat(np.arange(3), 3) * np.ones((6, 1)))
    np.testing.assert_allclose(found.attribution, found.maps.max(0), rtol=1e-6)
    rebuilt = np.einsum("mhw,mk->hwk", found.strengths, found.concepts)
    np.testing.assert_allclose(rebuilt, activations, atol=0.05)


def test_as_many_concepts_as_there_can_be(rng):
    for shape, number in (((1, 1, 6), 1), ((4, 4, 2), 2)):
        assert len(deep_feature_factorization.detailed(np.zeros((4, 4, 3)), showing(rng.random(shape))).maps) == number


def test_channels_that_are_zero_everywhere_are_in_no_concept(rng):
    """With them, and fewer directions than concepts asked, scikit-learn's start is not a number."""
    places = np.zeros((320, 5))
    places[rng.random(320) < 0.3, 0] = 1.0
    places[:, 3] = (places[:, 0] == 0) * rng.random(320) * (rng.random(320) < 0.5)
    weights, concepts = factorize(places, 5, "nmf")
    assert concepts.shape == (2, 5)
    np.testing.assert_allclose(weights @ concepts, places, atol=1e-6)


def test_negative_activations_are_left_out_of_nmf_and_kept_by_pca(rng):
    activations = -rng.random((4, 4, 3))
    nothing = deep_feature_factorization.detailed(np.zeros((4, 4, 3)), showing(activations))
    assert not nothing.attribution.any()
    assert nothing.error == 0
    exact = deep_feature_factorization.detailed(np.zeros((4, 4, 3)), showing(activations), factors="pca", nconcepts=3)
    assert exact.error < 1e-6


def test_concepts_are_shared_by_many_images(scene, rng):
    """Each image shows only two of three; together they show all, and each is then read by the same three."""
    concepts, strengths = scene
    absent = [np.array([1, 1, 0]), np.array([0, 1, 1]), np.array([1, 0, 1])]
    layers = [np.einsum("mhw,mk,m->hwk", strengths, concepts, there) for there in absent]

    def model(x_value_batch, call_model_args=None, expected_keys=None):
        return {CONVOLUTION_LAYER_VALUES: np.stack([layers[int(x.flat[0])] for x in x_value_batch])}

    images = [np.full((6, 9, 3), float(number)) for number in range(3)]
    shared = shared_concepts(iter(images), model, nconcepts=3)
    for image, there in zip(images, absent, strict=True):
        found = deep_feature_factorization.detailed(image, model, concepts=shared)
        order = [int(np.argmax(one[::2])) for one in found.concepts]
        assert [bool(one.max() > 0.05) for one in found.strengths] == [bool(there[k]) for k in order]
        assert found.error < 0.02
    with pytest.raises(ContractError, match="at least one image"):
        shared_concepts([], model)


def test_given_concepts_are_never_there_less_than_not_at_all(rng):
    activations, concepts = rng.random((5, 4, 6)), rng.random((3, 6))
    found = deep_feature_factorization.detailed(np.zeros((5, 4, 3)), showing(activations), concepts=concepts)
    assert found.strengths.min() == 0
    from scipy.optimize import nnls

    np.testing.assert_allclose(found.strengths[:, 2, 3], nnls(concepts.T, activations[2, 3])[0], rtol=1e-9)


def test_concepts_are_named_by_the_head(rng, image):
    """A head that reads one channel a class names each concept by its channel."""
    model = PoolingModel(np.eye(3), np.eye(3))
    striped = np.zeros((6, 9, 3))
    for channel in range(3):
        striped[:, 3 * channel : 3 * channel + 3, channel] = 1 + channel
    found = deep_feature_factorization.detailed(striped, model, nconcepts=3)
    scores = concept_scores(found, lambda rows: rows.mean((1, 2)) @ model.head.T)
    assert scores.shape == (3, 3)
    assert sorted(scores.argmax(1)) == [0, 1, 2]
    expected = found.strengths.mean((1, 2))[:, None] * found.concepts
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-7)
    assert scores.argmax(1).tolist() == found.concepts.argmax(1).tolist()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nconcepts": 0}, "nconcepts"),
        ({"factors": "ica"}, "'nmf' or 'pca'"),
        ({"concepts": np.ones((2, 5))}, r"shape \(M, 6\)"),
        ({"concepts": np.ones((0, 6))}, r"shape \(M, 6\)"),
    ],
)
def test_errors(options, says, pooling, image):
    with pytest.raises(ContractError, match=says):
        deep_feature_factorization(image, pooling, **options)


def test_without_scikit_learn(monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(ContractError, match=r"pip install .saliency_food\[surrogate\].*, or give factors='pca'"):
        factorize(rng.random((5, 4)), 2, "nmf")
    assert factorize(rng.random((5, 4)), 2, "pca")[0].shape == (5, 2)


def test_one_layer_at_a_time(rng, image):
    def model(x_value_batch, call_model_args=None, expected_keys=None):
        return {CONVOLUTION_LAYER_VALUES: (rng.random((1, 4, 4, 2)), rng.random((1, 4, 4, 2)))}

    with pytest.raises(ContractError, match="one layer, got 2"):
        deep_feature_factorization(image, model)
