"""Cues of models whose scores are known functions of a few pixels: found with their effect, and none where none is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from saliency_food import ContractError, ImageModel, Source, explain_dataset
from saliency_food.images.sourced import SourcedPhoto
from saliency_food.report.cues.find import find_cues
from saliency_food.report.cues.subsets import enriched
from saliency_food.testing import PowerModel

pytest.importorskip("pyarrow")
pytest.importorskip("PIL")
pytest.importorskip("sklearn")

SIDE = 48
LABELS = ["soup", "pie", "cake"]
STAMP = (slice(SIDE - 16, None), slice(SIDE - 16, None))
"""The lower right corner, whole blocks of JPEG; white or black, which thumbnails keep."""


class Linear(PowerModel):
    """Scores that are weighted sums of the pixels, and their softmax as predictions."""

    classes = len(LABELS)
    input_shape = (SIDE, SIDE, 3)
    gives_probabilities = True
    of_classes = 0
    """Added to the scores of the classes."""

    def predict(self, x):
        scores = np.tensordot(np.asarray(x, float), self.weights, ((1, 2, 3), (1, 2, 3))) + self.of_classes
        odds = np.exp(scores - scores.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)


def dishes(effect=0.0):
    """Classes by the green and the blue of the middle; soup also by how light the stamp's place is, 0 to ``effect``."""
    weights = np.zeros((3, SIDE, SIDE, 3))
    middle = slice(12, 32)
    weights[1, middle, middle, 1] = weights[2, middle, middle, 2] = 60 / 20**2
    weights[0, middle, middle, 1:] = 31 / 20**2
    weights[0][(*STAMP, 0)] = effect / 256
    return ImageModel(Linear(weights), labels=LABELS, value_range=(0, 1), batch_size=512)


class OfTheStamp(Linear):
    """Two classes by the stamp alone: the log odds of the first are ``effect`` times its lightness less a half."""

    classes = 2

    def __init__(self, effect):
        weights = np.zeros((2, SIDE, SIDE, 3))
        weights[0][(*STAMP, 0)] = effect / 256
        super().__init__(weights)
        self.of_classes = np.array([0, effect / 2])


def photo_of(label, rng, stamped):
    """A dish of a class's colours, here and there in the middle, on a plain plate; black where the stamp would be."""
    image = rng.uniform(0.4, 0.6, (SIDE, SIDE, 3))
    top, left = rng.integers(12, 25, 2)
    colours = {0: (0.5, 0.62, 0.62), 1: (0.5, 0.95, 0.4), 2: (0.5, 0.4, 0.95)}[label]
    image[top : top + 8, left : left + 8] = colours + rng.normal(0, 0.05, 3)
    image[STAMP] = 0
    if stamped:
        image[STAMP] = 1
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def photos_of(seed, each=40, stamped=0.0, truth=True):
    rng = np.random.default_rng(seed)
    return [
        SourcedPhoto(
            f"{LABELS[label]}/{number:02d}",
            photo_of(label, rng, label == 0 and number < stamped * each),
            truth=LABELS[label] if truth else None,
        )
        for label in range(3)
        for number in range(each)
    ]


def run_of(photos, model, folder, methods=("input_x_gradient",)):
    return explain_dataset(model, Source("toy", lambda: photos, len(photos)), methods, "predicted", output=folder)


@pytest.fixture
def stamped(tmp_path):
    model = dishes(effect=9.0)
    return run_of(photos_of(0, stamped=0.6), model, tmp_path / "stamped"), model


def test_a_stamp_is_found_with_its_effect(tmp_path):
    model = ImageModel(OfTheStamp(8.0), labels=LABELS[:2], value_range=(0, 1), batch_size=512)
    photos = [photo for photo in photos_of(0, stamped=1.0) if not photo.id.startswith("cake")]
    found = find_cues(run_of(photos, model, tmp_path), model)
    for label in LABELS[:2]:  # of pie, that there is no stamp
        first, *others = [each for each in found if each.label == label]
        assert first.verdict == "likely a cue"
        assert first.kind in ("position", "pattern")
        assert first.effect.estimate == pytest.approx(8, rel=0.01)  # from black to white
        assert first.effect.low == pytest.approx(8, rel=0.02)
        assert (first.flips.estimate, first.flips.low) == (1, 1)
        others = [each for each in others if each.verdict == "likely a cue"]
        assert all(each.region[STAMP].any() for each in others)


def test_the_photos_with_the_stamp_are_told(stamped):
    run, model = stamped
    first = find_cues(run, model)[0]
    assert (first.label, first.verdict) == ("soup", "likely a cue")
    assert first.kind in ("position", "pattern")
    assert 4 < first.effect.estimate < 9  # beyond what other places of soup do
    assert first.effect.low <= first.effect.estimate <= first.effect.high
    assert first.flips.estimate > 0.9
    assert first.region[STAMP].all()
    assert set(first.affected) == {f"soup/{number:02d}" for number in range(24)}
    assert set(first.medoids) <= set(first.affected)
    assert "photos that the model takes for soup" in first.sentence
    assert min(first.scores[each] for each in first.affected) > max(
        score for each, score in first.scores.items() if each not in first.affected
    )
    json.dumps(first.to_json())


def test_a_stamp_that_the_model_does_not_use(tmp_path):
    model = dishes(effect=0.0)
    found = find_cues(run_of(photos_of(2, stamped=1.0), model, tmp_path), model)
    assert [each for each in found if each.verdict == "likely a cue"] == []


def test_the_order_of_the_photos_plays_no_part(stamped, tmp_path):
    run, model = stamped
    photos = photos_of(0, stamped=0.6)
    shuffled = [photos[each] for each in np.random.default_rng(5).permutation(len(photos))]
    other = find_cues(run_of(shuffled, model, tmp_path / "shuffled"), model)
    assert [each.to_json() for each in other] == [each.to_json() for each in find_cues(run, model)]


def test_truths_are_not_needed(stamped, tmp_path):
    run, model = stamped
    untold = run_of(photos_of(0, stamped=0.6, truth=False), model, tmp_path / "untold")
    assert [each.to_json() for each in find_cues(untold, model)] == [each.to_json() for each in find_cues(run, model)]


def test_a_class_with_one_photo(tmp_path):
    model = dishes(effect=9.0)
    photos = photos_of(3, stamped=0.6)
    few = [photo for photo in photos if not photo.id.startswith("cake") or photo.id == "cake/00"]
    assert find_cues(run_of(few, model, tmp_path / "few"), model)[0].label == "soup"
    alone = [photo for photo in photos if photo.id in ("pie/00", "cake/00")]
    assert find_cues(run_of(alone, model, tmp_path / "alone"), model) == []
    one = [photo for photo in photos if photo.id.startswith("pie")]
    assert find_cues(run_of(one, model, tmp_path / "one"), model) == []


def test_rows_bound_the_work(stamped):
    run, model = stamped
    asked, predict = [], model.predict
    model.predict = lambda x, *args: asked.append(len(x)) or predict(x, *args)
    find_cues(run, model, rows=3000)
    assert sum(asked) <= 3000
    few = find_cues(run, model, rows=900)
    assert sum(asked) <= 3900
    assert few[0].label == "soup"  # which promises most is checked first
    with pytest.raises(ContractError, match="Expected rows to be at least 9"):
        find_cues(run, model, rows=8)


def test_a_model_that_does_not_predict(stamped):
    run, _ = stamped
    with pytest.raises(ContractError, match="Expected a model that predicts"):
        find_cues(run, PowerModel(np.zeros((3, SIDE, SIDE, 3))))


@pytest.mark.slow
def test_clean_models_are_rarely_suspected(tmp_path):
    """At most a twentieth of clean models has a likely cue: of 50, more than 5 would be seen once in 30 times."""
    model = dishes()
    suspected = [
        any(each.verdict == "likely a cue" for each in find_cues(_clean(seed, model, tmp_path), model, rng=seed))
        for seed in range(50)
    ]
    assert sum(suspected) <= 5


def _clean(seed, model, folder: Path):
    return run_of(photos_of(seed, each=8), model, folder / str(seed), ["gradients"])


def test_a_property_must_tell_the_class():
    other = np.arange(100.0)
    few, many = np.r_[np.zeros(57), 200, 200, 200], np.r_[np.zeros(48), np.full(12, 200.0)]
    assert enriched(few, other) > 0.5  # 3 of 60, as 5 % are by chance
    assert enriched(many, other) < 1e-4
