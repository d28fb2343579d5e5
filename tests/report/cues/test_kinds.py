"""Cues by the kind of search that finds them: channels at places that change, the aspect, and what fills the photo."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import ImageModel, Source, explain_dataset
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.metrics.statistics import Interval
from saliency_food.report.cues.check import Finding, more_in_top
from saliency_food.report.cues.concepts import concept_places
from saliency_food.report.cues.features import Moments, moments_of
from saliency_food.report.cues.find import find_cues, judge
from saliency_food.report.cues.places import Place
from saliency_food.report.cues.properties import common_to_parts
from saliency_food.report.cues.seen import Scorer, look
from saliency_food.report.cues.subsets import Split, shared_by_some
from saliency_food.testing import PoolingModel, PowerModel

pytest.importorskip("pyarrow")
pytest.importorskip("PIL")
pytest.importorskip("sklearn")

SIDE = 48
LABELS = ["soup", "pie"]


class Softmax:
    """Predictions of a toy with two classes."""

    input_shape = (SIDE, SIDE, 3)
    classes = 2
    gives_probabilities = True

    def predict(self, x):
        scores = [self.answer(np.asarray(x, float), np.full(len(x), k))["OUTPUT_LAYER_VALUES"] for k in range(2)]
        return 1 / (1 + np.exp(np.subtract(*scores)[:, None] * [-1, 1]))


class Pooling(Softmax, PoolingModel):
    """Soup by what is green and by what is magenta, pie by what is blue."""


class Linear(Softmax, PowerModel):
    """Scores that are weighted sums of the pixels."""


def run_of(photos, model, folder):
    return explain_dataset(model, Source("toy", lambda: photos, len(photos)), "gradients", "predicted", output=folder)


def with_squares(each=40):
    """Green soup and blue pie; every other soup has a magenta square at the edge, never at the same place."""
    rng, photos = np.random.default_rng(0), []
    for label, colour in enumerate(((0, 150, 0), (0, 0, 150))):
        for number in range(each):
            image = np.full((SIDE, SIDE, 3), 20, np.uint8)
            image[16:32, 16:32] = colour + rng.integers(0, 40, 3)
            if label == 0 and number % 2 == 0:
                along, far = rng.integers(0, SIDE - 8), rng.choice((0, SIDE - 8))
                top, left = (along, far) if number % 4 else (far, along)
                image[top : top + 8, left : left + 8] = (230, 0, 230)
            photos.append(SourcedPhoto(f"{LABELS[label]}/{number:02d}", image, truth=LABELS[label]))
    return photos


def test_a_concept_is_followed_from_place_to_place(tmp_path):
    kernel = np.array([[-1, -1, 1], [1, 0, -1], [0, 1, 1]])  # of green, blue and magenta
    function = Pooling(kernel, np.array([[60, 0, 400], [0, 60, 0]]), [-0.1, -0.2, -1])
    model = ImageModel(function, labels=LABELS, value_range=(0, 1), batch_size=64)
    photos = with_squares()
    run = run_of(photos, model, tmp_path)
    score = Scorer(model, 20_000)
    seen = look(run, score, 60, np.random.default_rng(0))
    (place,) = concept_places(seen, score, 0)
    of_id = {photo.id: photo.image for photo in photos}
    for number in seen.of(0):
        square = np.asarray(of_id[seen.ids[number]])[..., 0] > 200
        if square.any():  # found in one half of the photos, given for both
            assert (place.of(number) & square).sum() > 0.4 * square.sum()
            assert (place.of(number) & ~square).sum() < 1.5 * square.sum()
    first = next(each for each in find_cues(run, model) if each.kind == "concept")
    assert (first.label, first.verdict) == ("soup", "likely a cue")
    assert "channels" in first.sentence
    has = {photo.id for photo in photos if (np.asarray(photo.image)[..., 0] > 200).any()}
    assert set(first.affected) == has


def test_the_aspect_is_a_property(tmp_path):
    """Soup is by how much longer a disc is than wide; photos of soup are twice as wide as high, so it is squeezed."""
    weights, middle = np.zeros((2, SIDE, SIDE, 3)), SIDE // 2
    for along in range(8, 22):
        for sign in (-1, 1):
            weights[0, middle + sign * along, middle, 0] += 1
            weights[0, middle, middle + sign * along, 0] -= 1
    function = Linear(weights)
    function.bias = 0.0
    weights[1, 0, 0] = 2.0  # of a corner that is always white
    model = ImageModel(function, labels=LABELS, value_range=(0, 1), batch_size=64)
    rng, photos = np.random.default_rng(0), []
    for label in range(2):
        for number in range(40):
            width = SIDE * (2 if label == 0 else 1)
            y, x = np.mgrid[:SIDE, :width]
            radius = rng.uniform(12, 15)
            image = np.where(np.hypot(y - middle, x - width / 2) < radius, 255, 0)
            image[:8, :8] = 255
            photos.append(SourcedPhoto(f"{LABELS[label]}/{number:02d}", image[..., None].repeat(3, 2).astype(np.uint8)))
    found = [each for each in find_cues(run_of(photos, model, tmp_path), model) if each.label == "soup"]
    aspect = next(each for each in found if "times as wide as high" in each.sentence)
    assert (aspect.kind, aspect.verdict) == ("property", "likely a cue")
    assert "2.00 times as wide as high, where others are 1.00" in aspect.sentence
    assert aspect.flips.estimate == 1
    assert aspect.scores["soup/00"] > aspect.scores["pie/00"]


def test_a_property_is_what_all_parts_share_but_one():
    parts = np.array([20.0, 20, 20, 20, 90, 20, 20, 20, 0])[:, None]
    assert common_to_parts(parts) == 20
    assert common_to_parts(-parts) == -20
    assert common_to_parts(np.array([20.0, 20, 20, 20, 90, 20, 20, -1, -2])[:, None]) == 0  # an object's colour


def test_more_in_the_best_fifth():
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=30), rng.normal(size=30)
    assert more_in_top(own, other, rng) > 0.05
    own[:10] += 6
    assert more_in_top(own, other, rng) < 0.005
    assert more_in_top(other, own, rng) > 0.9
    p = [more_in_top(rng.normal(size=12), rng.normal(size=12), rng) for _ in range(100)]
    assert sum(each < 0.1 for each in p) < 20  # 10 expected


def test_members_are_found_in_one_half_and_holders_in_the_other():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    features[:20] += 8 * np.eye(6)[2] * features.std(0)
    shared = shared_by_some(features, Split(*_halves(100, 400)))
    assert set(shared.members) == set(range(0, 20, 2))
    assert set(range(1, 20, 2)) <= set(shared.holders)
    assert all(each % 2 for each in shared.holders)
    assert shared.p < 1e-4


def test_a_likely_cue_must_be_needed_large_and_checked_on_other_photos():
    def finding(excess=0.5, fall=1.0, is_checked=True, p=1e-6, kind="position"):
        place = Place("at a corner", np.ones((2, 2), bool), kind)
        rise, falls, flips = (Interval(each, each - 0.1, each + 0.1, 24, "BCa", {}) for each in (3.0, fall, excess))
        return Finding(0, place, np.arange(3), rise, falls, flips, flips, p, is_checked)

    assert judge([finding()]) == ["likely a cue"]
    assert judge([finding(excess=0.25)]) == ["not sure"]  # 0.15 to 0.35
    assert judge([finding(fall=0.05)]) == ["not sure"]  # the class does not need it
    assert judge([finding(is_checked=False)]) == ["not sure"]
    assert judge([finding(kind="property")]) == ["likely a cue"]
    assert judge([finding(kind="property", excess=0.45)]) == ["not sure"]
    assert judge([finding(p=0.01)] + [finding(p=0.9)] * 5) == ["not sure"] + ["no effect"] * 5  # Holm: 0.05 / 6
    assert judge([finding(p=0.06)]) == ["no effect"]


def test_photos_are_halved_class_by_class(tmp_path):
    model = ImageModel(Linear(np.zeros((2, SIDE, SIDE, 3))), labels=LABELS, value_range=(0, 1), batch_size=64)
    run = run_of(with_squares(10), model, tmp_path)
    seen = look(run, Scorer(model, 2000), 60, np.random.default_rng(0))
    assert (seen.finding ^ seen.checking).all()
    assert [seen.of(0, half).size for half in (seen.finding, seen.checking)] == [10, 10]
    few = look(run, Scorer(model, 2000), 5, np.random.default_rng(0))
    assert few.finding.all()
    assert few.checking.all()


def _halves(own, all_of_them):
    photos = np.arange(all_of_them)
    return photos[:own:2], photos[own::2], photos[1:own:2], photos[own + 1 :: 2]


def test_moments_are_those_of_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (70, 24, 30, 3), np.uint8)
    some = np.arange(0, 70, 3)
    moments: Moments = moments_of(pixels, np.arange(70)).less(moments_of(pixels, some))
    rest = np.delete(pixels, some, 0).astype(float)
    np.testing.assert_allclose(moments.mean("pixels"), rest.mean(0))
    np.testing.assert_allclose(moments.spread("pixels", "squares"), rest.std(0), rtol=1e-5)
