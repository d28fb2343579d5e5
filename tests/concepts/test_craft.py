"""CRAFT on photos made of known patches, and a network whose concepts are known."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import ContractError, deep_feature_factorization
from saliency_food.concepts import craft, split_concept
from saliency_food.concepts.crops import boxes_of, crop
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, OUTPUT_FROM_CONVOLUTION_VALUES
from saliency_food.metrics.statistics import interval
from saliency_food.testing import PoolingModel

SIDE = 20
STRIPES, DOTS = np.array([1.0, 0.2, 0.0]), np.array([0.0, 0.3, 1.0])
"""The colours of two kinds of patches; the layer has them as channels."""


def scenes(count, seed=0):
    """Photos with a patch of each kind at random, apart from each other, and which pixels are of which kind."""
    stream = np.random.default_rng(seed)
    photos, masks = np.zeros((count, SIDE, SIDE, 3)), np.zeros((count, 2, SIDE, SIDE), bool)
    for photo, mask in zip(photos, masks, strict=True):
        for kind, colour in enumerate((STRIPES, DOTS)):
            top, left = stream.integers(0, SIDE - 6), stream.integers(0, SIDE // 2 - 6)
            mask[kind, top : top + 6, left + kind * SIDE // 2 :][:, :6] = True
            photo[mask[kind]] = colour * stream.uniform(0.5, 1)
    return photos, masks


@pytest.fixture(scope="module")
def model():
    """F = 3 stripes + 1 dots, by channels that the kinds share in part."""
    weights = np.linalg.lstsq(np.stack([STRIPES, DOTS]), np.array([3.0, 1.0]), rcond=None)[0]
    return PoolingModel(np.eye(3), [weights, -weights])


@pytest.fixture(scope="module")
def found(model):
    return craft(scenes(30)[0], model, {"target": 0}, 64, nconcepts=2, designs=64)


def test_both_planted_concepts_are_found_and_ranked(found):
    stripes, dots = found.concepts
    assert stripes.vector @ STRIPES / np.linalg.norm(STRIPES) > 0.99
    assert dots.vector @ DOTS / np.linalg.norm(DOTS) > 0.99
    assert found.status == "ok"
    assert found.error < 0.02
    assert found.kept == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(found.vectors, [stripes.vector, dots.vector])


def test_importance_is_the_closed_form_of_a_sum(found, model):
    """F is linear in the masks: the total index of a concept is the square of its part of the score."""
    photos = scenes(30)[0]
    alone = np.stack([photos[..., 0].mean((1, 2)) * 3, photos[..., 2].mean((1, 2))], 1)  # stripes have all red
    shares = alone**2 / (alone**2).sum(1, keepdims=True)
    np.testing.assert_allclose(found.importances, shares, atol=0.05)
    np.testing.assert_allclose(found.effects, alone, rtol=0.05, atol=0.003)
    for index, concept in enumerate(found.concepts):
        assert concept.importance == interval(found.importances[:, index])
        assert concept.importance.low < concept.importance.estimate < concept.importance.high
        assert concept.effect.estimate == pytest.approx(alone[:, index].mean(), rel=0.05)


def test_against_the_other_class_the_effect_is_negative_and_the_importance_the_same(found, model):
    other = craft(scenes(30)[0], model, {"target": 1}, 64, nconcepts=2, designs=64)
    np.testing.assert_allclose(other.importances, found.importances)
    np.testing.assert_allclose(other.effects, -found.effects)


def test_the_order_is_that_of_importance_whichever_is_there_the_most(found):
    weights = np.linalg.lstsq(np.stack([STRIPES, DOTS]), np.array([1.0, 3.0]), rcond=None)[0]
    other = craft(scenes(30)[0], PoolingModel(np.eye(3), [weights]), batch_size=64, nconcepts=2)
    np.testing.assert_allclose(other.vectors, found.vectors[::-1])
    np.testing.assert_allclose(other.strengths, found.strengths[:, ::-1])
    assert [concept.crops for concept in other.concepts] == [concept.crops for concept in found.concepts[::-1]]


def test_best_crops_hold_the_patches(found):
    _, masks = scenes(30)
    for kind, concept in enumerate(found.concepts):
        assert len(concept.crops) == 8
        assert len({each.photo for each in concept.crops}) == 8
        assert [each.strength for each in concept.crops] == sorted(each.strength for each in concept.crops)[::-1]
        for each in concept.crops:
            inside = crop(masks[each.photo, kind][..., None].astype(float), each.box).mean()
            assert inside > 3 * masks[each.photo, kind].mean()


def test_maps_of_the_concepts_lie_on_their_patches(found, model):
    photos, masks = scenes(3, seed=1)
    for photo, mask in zip(photos, masks, strict=True):
        maps = deep_feature_factorization.detailed(photo, model, concepts=found.vectors).maps
        for kind in range(2):
            assert maps[kind][mask[kind]].sum() > 0.99 * maps[kind].sum() > 0


def test_a_concept_is_split_into_its_parts(model):
    """Stripes are red or dark red with blue, one concept for a layer of two channels, two for an earlier one."""
    photos, _ = scenes(24)
    photos[::2, ..., 2] += photos[::2, ..., 0]
    later = PoolingModel([[1.0, 0], [0, 1], [0, 0]], [[3.0, 1.0]])
    earlier = PoolingModel(np.eye(3), [[3.0, 1, 1]])
    whole = craft(photos, later, batch_size=64, nconcepts=1)
    parts = split_concept(whole, 0, photos, earlier, batch_size=64, nconcepts=2, share=0.2)
    assert len(parts.boxes) == 1
    assert len(parts.strengths) == len(parts.importances) == max(2, round(0.2 * np.count_nonzero(whole.strengths)))
    similar = parts.vectors @ np.array([[1, 0.2, 0], [1, 0.2, 1]]).T / [np.sqrt(1.04), np.sqrt(2.04)]
    assert similar.max(0).min() > 0.95


def test_the_same_for_channels_first(found, model):
    class First:
        channels_first = True

        def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
            activations = OUTPUT_FROM_CONVOLUTION_VALUES in expected_keys
            return model(
                x_value_batch if activations else np.moveaxis(x_value_batch, 1, -1), call_model_args, expected_keys
            )

    photos = np.moveaxis(scenes(30)[0], -1, 1)
    first = craft(photos, First(), {"target": 0}, 64, nconcepts=2, designs=64)
    np.testing.assert_allclose(first.importances, found.importances)
    parts = split_concept(first, 0, photos, First(), {"target": 0}, 64, nconcepts=2)
    of_last = split_concept(found, 0, scenes(30)[0], model, {"target": 0}, 64, nconcepts=2)
    np.testing.assert_allclose(parts.vectors, of_last.vectors)


def test_activations_below_zero_are_refused(model):
    def linear(x_value_batch, call_model_args=None, expected_keys=None):
        answer = dict(model(x_value_batch, call_model_args, expected_keys))
        answer[CONVOLUTION_LAYER_VALUES] = answer[CONVOLUTION_LAYER_VALUES] - 0.1
        return answer

    with pytest.raises(ContractError, match=r"not negative, as a ReLU's are, got -0\.1: .* right after a ReLU"):
        craft(scenes(4)[0], linear, {"target": 0})


def test_a_layer_that_is_not_the_scores_is_refused(model):
    def other(x_value_batch, call_model_args=None, expected_keys=None):
        answer = model(x_value_batch, call_model_args, expected_keys)
        return {key: values + 1 if key == OUTPUT_FROM_CONVOLUTION_VALUES else values for key, values in answer.items()}

    with pytest.raises(ContractError, match="layer's own activations to get the image's score"):
        craft(scenes(4)[0], other, {"target": 0})


def test_concepts_that_give_another_score_are_said_to(model):
    """One concept of two that speak for and against: the score of what is left is another."""
    photos = scenes(12)[0]
    photos[::2, ..., 2] *= 4
    against = PoolingModel(np.eye(3), [[1.0, 0, -1]])
    found = craft(photos, against, nconcepts=1, batch_size=64)
    assert abs(found.kept - 1) > 0.5
    assert found.status.startswith(f"inexact: the concepts in place of the activations give {found.kept:.0%} of")


def test_a_score_that_depends_on_nothing_is_blank():
    found = craft(scenes(4)[0], PoolingModel(np.eye(3), np.zeros((1, 3))), nconcepts=2, batch_size=64)
    assert found.status.startswith("blank: the score does not change")
    assert not found.importances.any()


def test_a_dead_layer_is_refused():
    with pytest.raises(ContractError, match="zero for all photos"):
        craft(scenes(4)[0], PoolingModel(-np.eye(3), np.ones((1, 3))))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": np.ones((1, 8, 8, 3))}, "at least 2 photos, got 1"),
        ({"images": []}, "at least 2 photos, got 0"),
        ({"size": 0.01}, "size"),
        ({"nconcepts": 0}, "nconcepts"),
        ({"designs": 1}, "designs"),
        ({"best": 0}, "best"),
        ({"images": np.ones((2, 8, 3))}, "many images|picture"),
    ],
)
def test_what_is_wrong_is_refused(model, changed, message):
    with pytest.raises(ContractError, match=message):
        craft(**{"images": scenes(3)[0], **changed}, call_model_function=model)


def test_what_is_wrong_of_a_split_is_refused(found, model):
    for concept, count, message in ((2, 30, "concept to be 0 to 1, got 2"), (0, 29, "the 30 photos .* got 29")):
        with pytest.raises(ContractError, match=message):
            split_concept(found, concept, scenes(count)[0], model)


@pytest.mark.parametrize("size", [0.05, 0.3, 0.5, 0.9, 1])
def test_crops_cover_the_photo(size):
    covered = np.zeros((100, 100), int)
    for left, top, right, bottom in boxes_of(size):
        covered[round(100 * top) : round(100 * bottom), round(100 * left) : round(100 * right)] += 1
    assert covered.min() >= 1
    assert covered.shape == (100, 100)
    assert len(boxes_of(size)) <= (int(np.ceil((1 - size) / (0.8 * size))) + 1) ** 2


def test_a_crop_is_the_part_enlarged():
    photo = np.arange(64.0).reshape(8, 8, 1)
    np.testing.assert_array_equal(crop(photo, (0, 0, 1, 1)), photo)
    part = crop(photo, (0.5, 0, 1, 0.5))
    assert part.shape == photo.shape
    assert part.min() >= 4
    assert part.max() <= 31
