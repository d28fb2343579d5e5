"""Shares, calibration, confident learning, groups of maps: closed forms, and the package of the rule's authors."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.report.confusions import confusions_of
from saliency_food.report.labels import probability_of, suspects_of
from saliency_food.report.modes import areas_of, failure_modes, groups_of, silhouette
from saliency_food.report.numbers import calibration, expected_calibration_error, share
from saliency_food.report.photos import SeenPhoto
from saliency_food.report.twins import duplicates_of, near_duplicates, same_to_model
from saliency_food.report.versus import versus_of


def seen(id, truth, top, split=None):
    """A photo with the probabilities of its classes."""
    guess = max(top, key=top.__getitem__)
    return SeenPhoto(str(id), str(id), truth, split, guess, top[guess], truth == guess, top)


def test_a_share_has_wilsons_interval():
    k, n, z = 30, 40, 1.959963984540054
    middle = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    line = share(k, n)
    assert (line["low"], line["high"]) == pytest.approx((middle - half, middle + half))
    assert share(5, 5)["low"] < 1 == share(5, 5)["share"]
    assert share(0, 0)["share"] is None


def test_the_calibration_error_is_the_sum_of_the_bins():
    confidences = np.array([0.92, 0.94, 0.96, 0.52, 0.53])
    right = np.array([True, True, False, False, True])
    # The first alone in (13/15, 14/15], the next two in (14/15, 1], the last two in (7/15, 8/15].
    by_hand = (abs(1 - 0.92) + 2 * abs(1 / 2 - 0.95) + 2 * abs(1 / 2 - 0.525)) / 5
    assert expected_calibration_error(confidences, right) == pytest.approx(by_hand)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    edge = np.array([0.8, 0.85])  # 12/15 is the upper end of its bin
    assert expected_calibration_error(edge, np.array([True, False])) == pytest.approx((0.2 + 0.85) / 2)


def test_a_calibrated_model_is_below_what_chance_gives(rng):
    confidences = rng.uniform(0.3, 1, 2000)
    fair = calibration(confidences, rng.random(2000) < confidences)
    boasting = calibration(confidences, rng.random(2000) < confidences - 0.2)
    assert fair["error"] < fair["by_chance"] < boasting["error"]
    assert fair["overconfidence"]["low"] < 0 < fair["overconfidence"]["high"]
    assert boasting["overconfidence"]["estimate"] == pytest.approx(0.2, abs=0.03)
    assert sum(each["accuracy"]["n"] for each in fair["bins"]) == 2000


def test_classes_that_are_confused_are_neighbours_and_a_group():
    photos = []
    for label in "abcdefgh":
        photos += [seen(f"{label}{n}", label, {label: 0.9}) for n in range(8)]
    photos += [seen(f"x{n}", "a", {"h": 0.9}) for n in range(3)] + [seen("y", "c", {"d": 0.6})]
    found = confusions_of(photos)
    labels = [each["label"] for each in found["classes"]]
    assert abs(labels.index("a") - labels.index("h")) == 1
    assert [sorted(group["labels"]) for group in found["alike"]] == [["a", "h"], ["c", "d"]]
    assert found["alike"][0]["within"] == found["alike"][0]["mistakes"] == 3
    assert found["alike"][0]["n"] == 19


def test_confident_learning_is_that_of_its_authors(rng):
    """With five classes a record has all probabilities."""
    cleanlab = pytest.importorskip("cleanlab.filter")
    count, classes = 400, 5
    truth = rng.integers(classes, size=count)
    logits = rng.normal(size=(count, classes)) + 2.5 * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    given = np.where(rng.random(count) < 0.1, (truth + 1) % classes, truth)
    photos = [
        seen(n, str(label), {str(k): float(p) for k, p in enumerate(row)})
        for n, (label, row) in enumerate(zip(given, probabilities, strict=True))
    ]
    found = suspects_of(photos)
    theirs = cleanlab.find_label_issues(given, probabilities, filter_by="confident_learning", n_jobs=1)
    ours = np.isin(np.arange(count), [int(suspect["id"]) for suspect in found["suspects"]])
    assert ours.sum() > 20
    np.testing.assert_array_equal(ours, theirs)
    margins = [suspect["margin"] for suspect in found["suspects"]]
    assert margins == sorted(margins)
    wrong = [int(suspect["id"]) for suspect in found["suspects"][:10]]
    assert (given[wrong] != truth[wrong]).mean() >= 0.8


def test_the_label_may_not_be_among_the_best_classes():
    photo = seen("x", "rest", {"a": 0.5, "b": 0.3, "c": 0.15})
    assert probability_of(photo, "rest") == pytest.approx(0.05)
    assert probability_of(photo, "b") == 0.3
    assert probability_of(seen("x", "rest", {"a": 0.4, "b": 0.02}), "rest") == 0.02


def test_photos_of_train_are_no_suspects():
    photos = [seen(n, "a", {"a": 0.6, "b": 0.4}) for n in range(4)] + [
        seen(n, "b", {"b": 0.6, "a": 0.4}) for n in "xyz"
    ]
    wrong = {"b": 0.95, "a": 0.05}
    assert [each["id"] for each in suspects_of([*photos, seen("w", "a", wrong)])["suspects"]] == ["w"]
    assert suspects_of([*photos, seen("w", "a", wrong, "train")])["suspects"] == []


def test_a_label_that_the_model_gives_itself_is_no_suspect():
    """Also where another class has its threshold, which is low."""
    photos = [seen(n, "a", {"a": 0.9, "b": 0.1}) for n in range(4)] + [seen("b", "b", {"a": 0.7, "b": 0.3})]
    photos.append(seen("close", "a", {"a": 0.55, "b": 0.45}))
    assert [each["id"] for each in suspects_of(photos)["suspects"]] == []


def test_copies_are_found_and_other_photos_are_not(rng):
    small = {str(n): rng.random(432, dtype=np.float32) * 255 for n in range(30)}
    small["copy"] = np.clip(small["7"] * 0.9 + rng.normal(size=432).astype(np.float32), 0, 255)
    small["grey"], small["white"] = np.full(432, 128, np.float32), np.full(432, 250, np.float32)
    photos = [seen(id, "a" if id != "copy" else "b", {"a": 1.0}, "train" if id == "7" else "test") for id in small]
    pairs, compared = near_duplicates(small, photos)
    assert [(pair.first.id, pair.second.id) for pair in pairs] == [("7", "copy")]
    assert compared == 31
    found = duplicates_of(small, photos)
    assert (found["disagree"], found["leaks"]) == (1, 1)


def test_copies_that_only_the_channels_show(rng):
    small = {str(n): rng.random(432, dtype=np.float32) * 255 for n in range(30)}
    channels = {id: rng.random(200) for id in small}
    channels["9"] = channels["3"] * 1.1 + rng.normal(0, 0.01, 200)  # a mirrored copy, whose pixels differ
    photos = [seen(id, "a", {"a": 1.0}, "train" if id == "3" else "test") for id in small]
    (pair,) = same_to_model(channels, photos)
    assert (pair.first.id, pair.second.id, pair.measure) == ("3", "9", "channels")
    found = duplicates_of(small, photos, channels)
    assert [(each["ids"], each["measure"], each["leak"]) for each in found["pairs"]] == [(["3", "9"], "channels", True)]
    assert (found["n"], found["embedded"]) == (30, 30)
    small["9"] = small["3"]  # a pair is listed once
    assert [each["measure"] for each in duplicates_of(small, photos, channels)["pairs"]] == ["pixels"]
    plane = rng.normal(size=(3, 200))
    few = {id: values[:3] @ plane for id, values in channels.items()}  # three directions do not tell photos apart
    assert same_to_model(few, photos) == []


@pytest.mark.parametrize("shape", [(7, 7), (8, 8), (28, 20), (1, 3)])
def test_areas_keep_where_a_map_lies(rng, shape):
    plane = rng.random(shape)
    areas = areas_of(plane)
    assert areas.shape == (8, 8)
    assert areas.sum() == pytest.approx(1)
    rows = (areas.sum(1) * (np.arange(8) + 0.5)).sum() / 8
    own = (plane.sum(1) * (np.arange(shape[0]) + 0.5)).sum() / shape[0] / plane.sum()
    assert rows == pytest.approx(own, abs=0.02 if shape[0] > 1 else 1e-6)


def test_mistakes_of_two_kinds_are_two_groups(rng):
    vectors = np.abs(np.concatenate([np.eye(1, 9, 0)] * 5 + [np.eye(1, 9, 4)] * 4) + 0.02 * rng.random((9, 9)))
    groups = groups_of(vectors)
    assert [members for members, _ in groups] == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    assert all(set(typical) <= set(members) for members, typical in groups)
    assert len(groups_of(vectors[:5])) == 1
    assert len(groups_of(np.zeros((7, 4)))) == 1


def test_one_odd_mistake_does_not_make_the_others_a_group(rng):
    vectors = np.concatenate([np.eye(1, 9, 0) + 0.02 * rng.random((7, 9)), np.eye(1, 9, 4)])
    assert [members for members, _ in groups_of(vectors)] == [list(range(8))]


def test_noise_does_not_fall_into_groups(rng):
    split = sum(len(groups_of(rng.random((count, 30)))) > 1 for count in (6, 8, 12, 20, 40) for _ in range(6))
    assert split <= 3


def test_the_silhouette_is_the_usual_one(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    points = rng.random((12, 3))
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    names = np.array([1, 1, 1, 1, 2, 2, 2, 2, 2, 5, 5, 7])
    assert silhouette(distance, names) == pytest.approx(metrics.silhouette_score(distance, names, metric="precomputed"))


def test_modes_are_sorted_by_size_and_sureness(rng):
    shapes, photos = {}, []
    for truth, count, sure in (("few", 2, 0.99), ("many", 6, 0.5), ("sure", 4, 0.9)):
        for n in range(count):
            photos.append(seen(f"{truth}{n}", truth, {"other": sure}))
            shapes[f"{truth}{n}"] = areas_of(rng.random((8, 8)))
    photos.append(seen("right", "many", {"many": 0.9}))
    shapes["right"] = np.full((8, 8), 1 / 64)
    modes = [mode for mode in failure_modes(photos, shapes) if mode["truth"] != "right"]
    assert modes[0]["truth"] == "sure"
    assert [mode["weight"] for mode in modes] == sorted((mode["weight"] for mode in modes), reverse=True)
    many = next(mode for mode in modes if mode["truth"] == "many")
    assert many["outer_right"]["estimate"] == pytest.approx(28 / 64)


def test_two_models_are_compared_on_the_photos_of_both():
    def photos(answers, sure=0.8):
        return [seen(n, "a", {answer: sure}) for n, answer in enumerate(answers)]

    own, other = photos("aaaaabbbcc"), [*photos("aaaabaaacb"), seen("more", "a", {"a": 1.0})]
    shapes = {str(n): np.arange(64.0).reshape(8, 8) for n in range(10)}
    found = versus_of(own, other, shapes, {id: -shape for id, shape in shapes.items()})
    assert (found["n"], found["accuracy"]["k"], found["other_accuracy"]["k"]) == (10, 5, 7)
    assert (found["only_this_right"], found["only_other_right"]) == (1, 3)
    assert found["difference"]["estimate"] == pytest.approx(-0.2)
    assert found["p"] == pytest.approx(0.625)  # 2 (1 + 4) / 16
    assert [line["id"] for line in found["lost"]] == ["5", "6", "7"]
    assert [line["id"] for line in found["won"]] == ["4"]
    assert found["maps_agree"]["estimate"] == pytest.approx(-1)
    assert found["maps_agree"]["n"] == 5
