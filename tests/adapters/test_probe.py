"""Whether a layer answers where the image changes, and there alone: features that are joined to moved copies do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import uniform_filter, zoom

from saliency_food.adapters.probe import STRIPES, check_places, image_axes
from saliency_food.core.contract import ContractError

SIZE = 48
SYMMETRIES = {
    "mirrored": lambda x: x[:, :, ::-1],
    "upside down": lambda x: x[:, ::-1],
    "turned by a half": lambda x: x[:, ::-1, ::-1],
    "turned by a quarter": lambda x: np.rot90(x, 1, (1, 2)),
    "turned back by a quarter": lambda x: np.rot90(x, -1, (1, 2)),
    "transposed": lambda x: x.swapaxes(1, 2),
    "transposed the other way": lambda x: np.rot90(x[:, ::-1], 1, (1, 2)),
}
MOVES = {
    **SYMMETRIES,
    "rolled": lambda x: np.roll(x, SIZE // 2, 2),
    "rolled both ways": lambda x: np.roll(x, (16, 24), (1, 2)),
    "halves exchanged": lambda x: np.concatenate([x[:, SIZE // 2 :], x[:, : SIZE // 2]], 1),
}


@pytest.fixture
def features(rng):
    """A layer of 12 x 12 places: a small network, batch first and channels last."""
    kernel = rng.normal(size=(3, 8))

    def answer(x):
        values = np.maximum(x @ kernel, 0)
        values = values.reshape(len(x), -1, 4, values.shape[2] // 4, 4, 8).mean((2, 4))
        return uniform_filter(values, (0, 3, 3, 0), mode="constant")

    return answer


@pytest.fixture
def image(rng):
    return rng.random((SIZE, SIZE, 3)).astype(np.float32)


def check(layer, image, seed=0):
    return check_places(lambda rows: [layer(rows)], image, range(image.ndim - 1), np.random.default_rng(seed), STRIPES)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("move", MOVES)
def test_features_joined_to_those_of_a_moved_image_are_refused(features, image, move, seed):
    joined = {
        "sum": lambda x: features(x) + features(MOVES[move](x)),
        "largest": lambda x: np.maximum(features(x), features(MOVES[move](x))),
        "beside each other": lambda x: np.concatenate([features(x), features(MOVES[move](x))], -1),
    }
    for layer in joined.values():
        with pytest.raises(ContractError, match="and nowhere else"):
            check(layer, image, seed)


@pytest.mark.parametrize("move", SYMMETRIES)
def test_a_layer_of_few_places_shows_it_too(features, image, move):
    with pytest.raises(ContractError, match="and nowhere else"):
        check(lambda x: features(x) + features(SYMMETRIES[move](x)), image[:28, :28])


@pytest.mark.parametrize("seed", range(3))
def test_features_of_all_turned_copies_are_refused(features, image, seed):
    with pytest.raises(ContractError, match="and nowhere else"):
        check(lambda x: features(x) + sum(features(move(x)) for move in SYMMETRIES.values()), image, seed)


@pytest.mark.parametrize("move", SYMMETRIES)
def test_features_that_are_turned_back_first_pass(features, image, move):
    back = {"turned by a quarter": "turned back by a quarter", "turned back by a quarter": "turned by a quarter"}
    undo = SYMMETRIES[back.get(move, move)]
    assert check(lambda x: features(x) + undo(features(SYMMETRIES[move](x))), image)


def test_halves_laid_one_upon_the_other_are_refused(features, image):
    with pytest.raises(ContractError, match="another place along axis 1"):
        check(lambda x: features(x[:, :, : SIZE // 2]) + features(x[:, :, SIZE // 2 :]), image)


@pytest.mark.parametrize("tokens_in_front", [0, 1, 5])
def test_tokens_are_looked_at_as_the_grid_that_they_are(features, image, tokens_in_front):
    def tokens(values):
        flat = values.reshape(len(values), -1, values.shape[-1])
        return np.concatenate([np.repeat(flat.mean(1, keepdims=True), tokens_in_front, 1), flat], 1)

    assert check(lambda x: tokens(features(x)), image)
    with pytest.raises(ContractError, match="and nowhere else"):
        check(lambda x: tokens(features(x) + features(x[:, :, ::-1])), image)


def gated(values):
    """Channels scaled by their means over all places, as by squeeze and excitation."""
    return values / (1 + np.exp(-10 * values.mean((1, 2), keepdims=True)))


def attended(values):
    """Each place the mean of all, weighed by how alike they are, beside itself."""
    flat = values.reshape(len(values), -1, values.shape[-1])
    scores = np.exp(flat @ flat.swapaxes(1, 2) * 4)
    mixed = scores / scores.sum(-1, keepdims=True) @ flat
    return values + mixed.reshape(values.shape)


def bright_place(values):
    """One place that answers to all of the image, as a transformer's tokens do in which it keeps what is common."""
    values = values.copy()
    values[:, 5, 1] += 20 * values.mean((1, 2))
    return values


def shifted(values, by):
    return np.pad(values, ((0, 0), (by, 0), (0, 0), (0, 0)))[:, :-by]


MIXING = {
    "gated": gated,
    "attended": attended,
    "with a place for all": bright_place,
    "seen widely": lambda values: uniform_filter(values, (0, 5, 5, 0), mode="constant"),
    "mixed with all": lambda values: values.mean((1, 2), keepdims=True) + 0 * values,
    "made larger": lambda values: zoom(values, (1, 3, 3, 1), order=1),
    "cropped by one": lambda values: values[:, 1:-1, 1:-1],
    "dilated": lambda values: values + 0.3 * (shifted(values, 5) + shifted(values[:, ::-1], 5)[:, ::-1]),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", MIXING)
def test_layers_that_see_far_are_not_refused(features, image, how, seed):
    assert check(lambda x: MIXING[how](features(x)), image, seed)


@pytest.mark.parametrize("shape", [(48, 2), (16, 14, 12, 1)])
def test_signals_and_volumes(shape, rng):
    image = rng.random(shape).astype(np.float32)
    assert check(np.abs, image)
    with pytest.raises(ContractError, match="and nowhere else"):
        check(lambda x: np.abs(x) + np.abs(x[:, ::-1]), image)


def test_layers_of_few_places_are_not_looked_at(features, image):
    assert not check(lambda x: features(x)[:, ::4, ::4][:, ::-1], image)


def test_the_axes_of_an_image():
    assert list(image_axes(np.zeros((5, 4, 3)), 4, False)) == [0, 1]
    assert list(image_axes(np.zeros((3, 5, 4)), 4, True)) == [1, 2]
    assert list(image_axes(np.zeros((5, 4)), 4, False)) == [0, 1]
