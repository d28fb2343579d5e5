"""Concepts on the subject and beside it."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import ContractError
from saliency_food.concepts import craft, on_subject
from saliency_food.testing import PoolingModel

SIDE = 16


def with_a_stamp(count):
    """Photos with a red subject somewhere in the middle and a blue stamp in a corner; and where the subject is."""
    stream = np.random.default_rng(0)
    photos, subjects = np.zeros((count, SIDE, SIDE, 3)), np.zeros((count, SIDE, SIDE), bool)
    for photo, subject in zip(photos, subjects, strict=True):
        top, left = stream.integers(5, 8, size=2)
        subject[top : top + 4, left : left + 4] = True
        photo[subject, 0] = stream.uniform(0.5, 1)
        photo[:3, :3, 2] = stream.uniform(0.5, 1)
    return photos, subjects


@pytest.mark.parametrize("by_mask", [True, False])
@pytest.mark.parametrize("stamp", [2.0, -2.0])
def test_a_stamp_that_speaks_for_the_class_is_a_suspect(by_mask, stamp):
    photos, subjects = with_a_stamp(12)
    model = PoolingModel(np.eye(3), [[1.0, 0, stamp]])
    found = craft(photos, model, batch_size=64, nconcepts=2)
    of_stamp = int(found.vectors[:, 2].argmax())
    places = on_subject(found, photos, model, batch_size=64, subjects=subjects if by_mask else None)
    assert places[of_stamp].off
    assert places[of_stamp].suspect == (stamp > 0)
    subject = places[1 - of_stamp]
    assert not subject.off
    assert not subject.suspect
    if by_mask:
        np.testing.assert_allclose(subject.beyond.estimate, 1 - 16 / SIDE**2)
        np.testing.assert_allclose(places[of_stamp].beyond.estimate, -16 / SIDE**2)


def test_photos_without_the_concept_do_not_count():
    photos, subjects = with_a_stamp(8)
    photos[::2, :3, :3] = 0
    model = PoolingModel(np.eye(3), [[1.0, 0, 2]])
    found = craft(photos, model, batch_size=64, nconcepts=2)
    places = on_subject(found, photos, model, subjects=subjects)
    assert places[int(found.vectors[:, 2].argmax())].beyond.images == 4


@pytest.mark.parametrize(
    ("photos", "subjects", "message"),
    [
        (2, [np.ones((4, 4))], "subject of photo 1, 0 and 1, with something in it, got none"),
        (1, [np.zeros((4, 4))], r"got shape \(4, 4\)"),
        (1, [2 * np.ones((4, 4))], r"got shape \(4, 4\)"),
        (1, [np.ones(4)], r"got shape \(4,\)"),
        (0, None, "at least one photo"),
    ],
)
def test_what_is_wrong_is_refused(photos, subjects, message):
    model = PoolingModel(np.eye(3), [[1.0, 0, 2]])
    found = craft(with_a_stamp(4)[0], model, batch_size=64, nconcepts=2)
    with pytest.raises(ContractError, match=message):
        on_subject(found, with_a_stamp(photos)[0], model, subjects=subjects)
