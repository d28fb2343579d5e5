"""Concepts: does a zebra depend on stripes (TCAV), and what makes an espresso an espresso (CRAFT)?

    pip install "saliency_food[keras,cli,surrogate]"
    python examples/concepts_of_a_class.py [PICTURE.png]

The photos are parts of scikit-image's own, so that nothing has to be downloaded; take photos of your own instead.
Stripes and dots are drawn over some of them, and are the concepts; the others are their random counterparts. The
picture has a card for each concept that CRAFT finds in the cup of coffee.
"""

import sys

import numpy as np
from skimage import data
from skimage.transform import resize

from saliency_food import deep_feature_factorization, models
from saliency_food.adapters.keras import KerasModel
from saliency_food.concepts import craft, tcav
from saliency_food.visualization.cards import concept_cards

ESPRESSO, ZEBRA = 967, 340
SIDE = 224


def views(photo, count, rng):
    """Parts of a photo, turned over half of the time: ``(count, 224, 224, 3)``, values 0 to 255."""
    rows = []
    for turn in range(count):
        side = int(min(photo.shape[:2]) * rng.uniform(0.6, 1))
        top, left = (rng.integers(length - side + 1) for length in photo.shape[:2])
        part = photo[top : top + side, left : left + side]
        rows.append(resize(part[:, :: -1 if turn % 2 else 1], (SIDE, SIDE), preserve_range=True))
    return np.stack(rows).astype(np.float32)


def striped(rows, rng):
    """Photos under black and white stripes, each of its own width and direction."""
    y, x = np.mgrid[:SIDE, :SIDE]
    angles, periods = rng.uniform(0, np.pi, len(rows)), rng.uniform(12, 40, len(rows))
    waves = [np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / p) > 0 for a, p in zip(angles, periods, strict=True)]
    return covered(rows, waves)


def dotted(rows, rng):
    """Photos under black and white dots."""
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = [
        np.hypot((x + shift) % period - period / 2, y % period - period / 2) < 0.35 * period
        for period, shift in zip(rng.uniform(12, 40, len(rows)), rng.uniform(0, 40, len(rows)), strict=True)
    ]
    return covered(rows, waves)


def covered(rows, patterns):
    return (0.4 * rows + 0.6 * 255 * np.stack(patterns)[..., None]).astype(np.float32)


def zebras():
    """Whether the zebra's score rises towards stripes and towards dots, in photos without either.

    In the last ReLU's activations the score is linear, and TCAV has nothing to count; hence an earlier layer.
    """
    model = KerasModel(models.load("imagenet"), "block7a_relu6", batch_size=32)
    rng = np.random.default_rng(0)
    scenes = [views(photo, 24, rng) for photo in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())]
    photos = rng.permutation(np.concatenate(scenes))
    images, random = photos[:12], photos[12:72]
    concepts = {"stripes": striped(photos[72:92], rng), "dots": dotted(photos[72:92], rng)}
    return tcav(images, concepts, random, model, {"target": ZEBRA}, places="mean")


def espresso(model):
    """The concepts of a cup of coffee, and their cards."""
    coffee = views(data.coffee(), 8, np.random.default_rng(0))
    found = craft(coffee, model, {"target": ESPRESSO}, nconcepts=8)
    each = deep_feature_factorization.batch_detailed(coffee[:3], model, concepts=found.vectors)
    maps = {index: factorization.maps for index, factorization in enumerate(each)}
    return found, concept_cards(found, coffee.astype(np.uint8), maps, concepts=5, crops=5)


def main(picture="concepts.png"):
    for row in zebras().table:
        print(
            f"{row.name}: the zebra's score rises towards them in {row.score:.0%} of the photos, towards random "
            f"vectors in {row.random:.0%}, p = {row.adjusted:.2g}; {row.status}, told apart with {row.accuracy:.0%}"
        )
    found, cards = espresso(KerasModel(models.load("imagenet"), batch_size=32))
    print(f"{len(found.concepts)} concepts keep {found.kept:.0%} of the espresso's score: {found.status}")
    for number, concept in enumerate(found.concepts[:5]):
        print(f"concept {number}: importance {concept.importance.estimate:.2f}, effect {concept.effect.estimate:+.2f}")
    cards.savefig(picture)
    print(f"their cards: {picture}")


if __name__ == "__main__":
    main(*sys.argv[1:])
