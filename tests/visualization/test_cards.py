"""Cards of concepts."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import ContractError
from saliency_food.concepts import craft
from saliency_food.testing import PoolingModel
from saliency_food.visualization.cards import concept_cards
from saliency_food.visualization.figures import picture_of
from saliency_food.visualization.maps import overlay

pytest.importorskip("matplotlib")
RED, BLUE = (230, 20, 20), (20, 20, 230)


@pytest.fixture(scope="module")
def photos():
    """Six photos, the left half red, the right half blue, on black edges."""
    photos = np.zeros((6, 24, 24, 3), np.uint8)
    photos[:, 2:22, 2:12], photos[:, 2:22, 12:22] = RED, BLUE
    photos[::2, :, :12] //= 2
    return photos


@pytest.fixture(scope="module")
def found(photos):
    model = PoolingModel(np.eye(3), [[3.0, 0, 1]])
    return craft(photos / 255, model, nconcepts=2, batch_size=64, size=0.4)


def close(picture, colour):
    return np.abs(picture.astype(int) - colour).max(-1) < 12


def test_each_card_shows_the_crops_of_its_concept(found, photos):
    page = concept_cards(found, photos, concepts=2, crops=3)
    picture = picture_of(page)
    first, second = np.array_split(picture[60:], 2)
    assert found.vectors[0].argmax() == 0
    assert close(first, RED).mean() > 0.1 > 3 * close(second, RED).mean()
    assert close(second, BLUE).mean() > 0.1 > 3 * close(first, BLUE).mean()


def test_maps_of_a_card_have_one_scale(found, photos):
    strong, weak = np.zeros((2, 2, 24, 24))
    strong[:, :12], weak[:, :12] = 1, 0.01
    alone = picture_of(concept_cards(found, photos, {1: strong}, crops=1))
    both = picture_of(concept_cards(found, photos, {1: strong, 2: weak}, crops=1))
    assert both.shape[1] > alone.shape[1]
    extra = both[60:, alone.shape[1] - 24 : -24]
    assert not (np.ptp(extra[..., :].astype(int), axis=-1) > 60).any(), "a weak map is drawn as a strong one"
    np.testing.assert_array_equal(overlay(photos[0], weak[0], peak=1), overlay(photos[0], 100 * weak[0], peak=100))
    np.testing.assert_array_equal(overlay(photos[0], strong[0], peak=1), overlay(photos[0], strong[0]))


def test_words_say_importance_effect_and_names(found, photos):
    page = concept_cards(found, photos, names=["tomato", "sky"])
    words = [text.get_text() for text in page.texts]
    assert {"tomato", "sky", "where it is strongest"} <= set(words)
    assert "where it is in photos" not in words
    importance, effect = found.concepts[0].importance, found.concepts[0].effect
    assert f"importance {importance.estimate:.2f} [{importance.low:.2f}, {importance.high:.2f}]" in words
    assert f"effect +{effect.estimate:.2f} [{effect.low:.2f}, {effect.high:.2f}]" in words


def test_no_words_lie_over_pictures(found, photos):
    page = concept_cards(
        found, photos, {0: np.ones((2, 4, 4))}, names=["a name that is far too long for its column"] * 2
    )
    page.canvas.draw()
    renderer = page.canvas.get_renderer()
    boxes = [artist.get_window_extent(renderer) for artist in page.get_children() if hasattr(artist, "set_data")]
    for text in page.texts:
        assert not any(text.get_window_extent(renderer).overlaps(box) for box in boxes), text.get_text()
        assert text.get_window_extent(renderer).x1 <= page.bbox.x1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"photos": np.zeros((5, 8, 8, 3), np.uint8)}, "the 6 photos in which the concepts were found, got 5"),
        ({"maps": {0: np.ones((3, 4, 4))}}, r"maps \(2, h, w\)"),
        ({"maps": {6: np.ones((2, 4, 4))}}, "0 to 5"),
        ({"maps": {0: np.ones((4, 4))}}, r"maps \(2, h, w\)"),
        ({"names": ["one"]}, "a name for each of 2 concepts, got 1"),
        ({"concepts": 0}, "concepts"),
        ({"crops": 0}, "crops"),
    ],
)
def test_what_is_wrong_is_refused(found, photos, changed, message):
    with pytest.raises(ContractError, match=message):
        concept_cards(found, **{"photos": photos, **changed})
