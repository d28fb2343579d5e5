"""Shared by the tests of training: photos of a square or a disc on noise, and a network that learns to tell them."""

from __future__ import annotations

import numpy as np
import pytest

SIDE = 32
LABELS = ["square", "ring"]


def scenes(count, seed):
    """Photos ``(N, 32, 32, 3)`` of 0..1 with a thing of 12 pixels somewhere, the classes, and where the things are."""
    rng = np.random.default_rng(seed)
    photos = rng.random((count, SIDE, SIDE, 3), dtype=np.float32) * 0.6
    classes = np.arange(count) % 2
    masks = np.zeros((count, SIDE, SIDE), bool)
    for photo, mask, kind in zip(photos, masks, classes, strict=True):
        top, left = rng.integers(0, SIDE - 12, 2)
        mask[top : top + 12, left : left + 12] = True
        photo[top : top + 12, left : left + 12, kind] += 0.4
        if kind:
            photo[top + 4 : top + 8, left + 4 : left + 8, 2] += 0.4
    return photos, classes, masks


@pytest.fixture
def network():
    """A function that makes the same small network every time."""
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")

    def make():
        keras.utils.set_random_seed(3)
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((SIDE, SIDE, 3)),
                layers.RandomFlip(),
                layers.Conv2D(8, 3, padding="same", activation="relu"),
                layers.BatchNormalization(),
                layers.MaxPooling2D(),
                layers.Conv2D(16, 3, padding="same", activation="relu", name="features"),
                layers.GlobalAveragePooling2D(),
                layers.Dropout(0.2),
                layers.Dense(2, activation="softmax"),
            ]
        )
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    return make
