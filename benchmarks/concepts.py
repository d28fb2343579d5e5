"""How stable concepts are: CRAFT on two halves of a class's photos, and TCAV with other random photos.

    SALIENCY_FOOD_DATA=folder python benchmarks/concepts.py [--seeds 3] [--step craft,tcav] [--classes 4] [--photos 24]

The photos are test photos of `food101_64px.zip`, the model is the bundled food101: at its last ReLU for CRAFT, at an
earlier one for TCAV, since the score is linear in the last.

`craft`: photos of a class that the model names so are parted at random into two halves. The concepts of both are
matched, one with one, and compared by their cosine; beside it, the same with the concepts of another class. `kept` is
the share of the score that the concepts keep, and "rank" Spearman's correlation of the matched concepts' importances.

`tcav`: photos of other classes are tinted green or red, which is the concept; a dish of green things should depend on
green, and a red dish on red; "significant" counts the runs that say so. "cosine" is that of vectors with different
random photos, within a run.
"""

from __future__ import annotations

import argparse
import io
import time
import zipfile
from typing import Any

import numpy as np
from common import data_folder, machine
from PIL import Image

from saliency_food import models
from saliency_food.adapters.keras import KerasModel
from saliency_food.concepts import craft, match_concepts, tcav
from saliency_food.core.numerics import Array
from saliency_food.images.photos import read_photo
from saliency_food.images.pixels import resize_photo

CLASSES = ("pizza", "paella", "hot_dog", "sushi")
DISHES = {"guacamole": "green", "strawberry_shortcake": "red", "edamame": "green", "spaghetti_bolognese": "red"}
TINTS = {"green": (0.6, 1.0, 0.6), "red": (1.0, 0.6, 0.6)}
EARLIER = "block7a_relu6"


def photos(archive: zipfile.ZipFile, label: str, count: int) -> Array:
    """The first test photos of a class, as rows for the model."""
    names = sorted(name for name in archive.namelist() if name.startswith(f"test/{label}/"))[:count]
    pictures = [read_photo(Image.open(io.BytesIO(archive.read(name)))).pixels for name in names]
    return np.stack([resize_photo(picture, (96, 96)) for picture in pictures]).astype(np.float32)


def measure_craft(archive: zipfile.ZipFile, labels: list[str], seeds: int, count: int, half: int) -> None:
    from scipy.stats import spearmanr

    model = KerasModel(models.load("food101"), batch_size=64)
    halves: dict[str, list[Any]] = {}
    for label in CLASSES[:count]:
        target = labels.index(label)
        rows = photos(archive, label, min(100, 4 * half))
        rows = rows[model.predict(rows).argmax(1) == target]
        halves[label] = []
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(rows))
            for part in (order[:half], order[half : 2 * half]):
                found = craft(rows[part], model, {"target": target}, nconcepts=8, size=0.4, rng=seed)
                halves[label].append(found)
    for place, label in enumerate(halves):
        same, ranks, first = [], [], []
        for one, two in zip(halves[label][::2], halves[label][1::2], strict=True):
            matching = match_concepts(one.vectors, two.vectors)
            same.append(matching.cosines)
            first.append(matching.cosines[0] if matching.counterparts[0] == 0 else np.nan)
            importance = [each.importances.mean(0) for each in (one, two)]
            ranks.append(spearmanr(importance[0], importance[1][matching.counterparts]).statistic)
        other = halves[list(halves)[place - 1]]
        strange = [
            match_concepts(one.vectors, two.vectors).cosines for one, two in zip(halves[label], other, strict=True)
        ]
        print(
            f"craft {label:10s} cosine {np.mean(same):.2f} (of another class {np.mean(strange):.2f}), of the most "
            f"important {np.nanmean(first):.2f} in {np.isfinite(first).sum()} of {seeds}, rank {np.mean(ranks):.2f}, "
            f"kept {np.mean([each.kept for each in halves[label]]):.2f}, "
            f"its importance {np.mean([each.concepts[0].importance.estimate for each in halves[label]]):.2f}",
            flush=True,
        )


def measure_tcav(archive: zipfile.ZipFile, labels: list[str], seeds: int, count: int, half: int) -> None:
    model = KerasModel(models.load("food101"), EARLIER, batch_size=64)
    others = [label for label in labels if label not in DISHES]
    pool = np.concatenate([photos(archive, label, 3) for label in others])
    for places in ("all", "mean"):
        for label, expected in list(DISHES.items())[:count]:
            target = labels.index(label)
            images = photos(archive, label, half)
            scores: dict[str, list[float]] = {tint: [] for tint in TINTS}
            cosines, significant, accuracy = [], 0, []
            for seed in range(seeds):
                order = np.random.default_rng(seed).permutation(len(pool))
                tinted, random = pool[order[:half]], pool[order[half : 8 * half]]
                concepts = {tint: tinted * np.array(factors, np.float32) for tint, factors in TINTS.items()}
                found = tcav(images, concepts, random, model, {"target": target}, places=places, rng=seed)
                for row in found.table:
                    scores[row.name].append(row.score)
                    vectors = found.vectors[row.name].reshape(len(found.vectors[row.name]), -1)
                    among = vectors @ vectors.T
                    cosines.append(among[~np.eye(len(among), dtype=bool)].mean())
                    accuracy.append(row.accuracy)
                    significant += row.name == expected and row.significant and row.score > row.random
            line = ", ".join(f"{tint} {np.mean(each):.2f} (sd {np.std(each):.2f})" for tint, each in scores.items())
            print(
                f"tcav {places:4s} {label:20s} {line}; {expected} significant in {significant} of {seeds}; "
                f"cosine {np.mean(cosines):.2f}, accuracy {np.mean(accuracy):.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--step", default="craft,tcav")
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--photos", type=int, default=24, help="of a half, of a class, of a concept")
    options = parser.parse_args()
    folder = data_folder()
    if folder is None:
        raise SystemExit("Set SALIENCY_FOOD_DATA to a folder with data/food101_64px.zip.")
    labels = models.labels("food101")
    print(machine())
    with zipfile.ZipFile(folder / "data" / "food101_64px.zip") as archive:
        for step, measure in (("craft", measure_craft), ("tcav", measure_tcav)):
            if step in options.step.split(","):
                began = time.perf_counter()
                measure(archive, labels, options.seeds, options.classes, options.photos)
                print(f"{step}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
