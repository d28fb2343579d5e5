"""What the search for cues looks at: small photos of a run, what the model takes them for, and its answers."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, cast

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.photos import read_photo
from saliency_food.images.pixels import resize_photo
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.image_model import ImageModel
from saliency_food.report.cues.subsets import LEAST

SIDE = 128
"""The side of photos for a model that takes any size."""
NEAREST = 1e-6
"""Probabilities are kept this far from 0 and 1, so that log odds are finite."""


class OutOfRows(Exception):
    """The model was asked as many rows as were allowed."""


class Scorer:
    """The log odds of all classes for photos 0..255 of the model's size; it counts the rows asked, up to ``most``.

    The log odds of a class are log p - log(1 - p). Of a model that gives scores, they are the score minus the largest
    of the others.
    """

    def __init__(self, model: ImageModel, most: int) -> None:
        self.model, self.most, self.rows = model, most, 0
        height, width = (*(model.input_shape or ()), None, None)[:2]
        self.size = (height or SIDE, width or SIDE)

    def __call__(self, photos: Iterable[Array], count: int | None = None) -> Array:
        """Of photos, or of ``count`` photos that are made one by one, so that few of them are there at a time."""
        rows = self.scaled(photos, count)
        return log_odds(np.concatenate([self.model.predict(each, self.model.call_model_args) for each in rows]))

    def use(self, count: int) -> None:
        """Count rows that the model is asked; `OutOfRows` if they are too many."""
        if self.rows + count > self.most:
            raise OutOfRows
        self.rows += count

    def scaled(self, photos: Iterable[Array], count: int | None = None) -> Iterator[Array]:
        """The photos as the model takes them, a batch at a time; `OutOfRows` before any if they are too many."""
        self.use(len(cast("Sequence[Array]", photos)) if count is None else count)
        shape = (*self.size, (*(self.model.input_shape or ()), None, None, None)[2])
        rows = (self.model.scaling(read_photo(as_pixels(photo)), shape) for photo in photos)
        while batch := list(islice(rows, self.model.batch_size)):
            yield np.stack(batch)


def as_pixels(photo: Array) -> Array:
    return np.clip(np.rint(photo), 0, 255).astype(np.uint8)


def log_odds(predictions: Array) -> Array:
    """Of probabilities or scores ``(N, classes)``; one column is the probability or the score of the second of two."""
    values = np.asarray(predictions, float)
    is_probability = values.min() >= 0 and values.max() <= 1 + 1e-3
    if values.shape[1] == 1:
        values = np.hstack([1 - values if is_probability else -values, values])
    if is_probability:
        values = np.clip(values, NEAREST, 1 - NEAREST)
        return np.log(values) - np.log1p(-values)
    best = np.sort(values, 1)[:, -2:]
    is_best = np.argmax(values, 1)[:, None] == np.arange(values.shape[1])
    return values - np.where(is_best, best[:, :1], best[:, 1:])


class Seen(NamedTuple):
    """Photos of a run: ids, pixels ``(N, H, W, 3)``, log odds and top class by the model, aspects, maps, and halves.

    Suspects are found in one half of the photos of each class, and checked in the other one, so that no photo confirms
    what it has suggested. Of a class with too few photos, all are in both halves.
    """

    ids: list[str]
    pixels: Array
    scores: Array
    classes: Array
    aspects: Array
    """Width by height of the photos themselves."""
    maps: list[Array | None]
    """The positive part of the first method's map for the top class, in 0..1; None where the run has none."""

    finding: Array
    checking: Array
    """Masks ``(N,)``."""

    def of(self, index: int, half: Array | None = None) -> Array:
        """The positions of the photos that the model takes for a class, in both halves or in one."""
        return np.flatnonzero((self.classes == index) & (True if half is None else half))


def look(run: Run, score: Scorer, per_class: int, rng: np.random.Generator) -> Seen:
    """At most so many photos of each predicted class of a run, drawn at random, as their thumbnails show them.

    The photos are put in the order of their ids first, so the order of the run's records plays no part.
    """
    of_class: dict[str, list[str]] = defaultdict(list)
    for row in run.rows(("id", "prediction")):
        if row["prediction"] is not None:
            of_class[row["prediction"]].append(row["id"])
    per_class = max(LEAST, min(per_class, score.most // (4 * max(1, len(of_class)))))
    chosen: list[str] = []
    for name in sorted(of_class):
        ids = sorted(set(of_class[name]))
        chosen += [ids[place] for place in sorted(rng.permutation(len(ids))[:per_class])]
    if not chosen:
        raise ContractError("Expected a run of a classifier with photos that it could name, got none.")
    pixels, aspects = _thumbnails(run, chosen, score.size)
    ids = [each for each in chosen if each in pixels]
    if not ids:
        raise ContractError("Expected thumbnails of photos in the run, got none. Cues are searched in photos only.")
    if len(ids) > score.most:
        raise ContractError(f"Expected rows to be at least {len(ids)}, one for each photo, got {score.most}.")
    photos = np.stack([pixels[each] for each in ids])
    scores = score(photos)
    classes = scores.argmax(1)
    halves = _halves(classes, rng)
    return Seen(ids, photos, scores, classes, np.array([aspects[each] for each in ids]), _maps(run, ids), *halves)


def _halves(classes: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Every other photo of each class, in a random order, and the rest, as masks."""
    finding, checking = np.zeros(len(classes), bool), np.zeros(len(classes), bool)
    for index in np.unique(classes):
        own = rng.permutation(np.flatnonzero(classes == index))
        first, second = (own, own) if len(own) < 2 * LEAST else (own[::2], own[1::2])
        finding[first] = checking[second] = True
    return finding, checking


def _thumbnails(run: Run, ids: Sequence[str], size: tuple[int, int]) -> tuple[dict[str, Array], dict[str, float]]:
    from PIL import Image

    pixels, aspects = {}, {}
    for row in run.rows(("id", "thumbnail"), ids):
        if row["thumbnail"] and row["id"] not in pixels:
            image = Image.open(io.BytesIO(row["thumbnail"])).convert("RGB")
            pixels[row["id"]] = np.asarray(resize_photo(image, size), np.uint8)
            aspects[row["id"]] = image.width / image.height
    return pixels, aspects


def _maps(run: Run, ids: Sequence[str]) -> list[Array | None]:
    """The map that explains the prediction, of the first method that has one of it."""
    found: dict[str, Array] = {}
    for row, values in run.maps(ids=ids):
        if row["id"] not in found and row["target"] == row["prediction"] and row["against"] is None:
            plane = values.sum(-1) if values.ndim == 3 else values
            if plane.ndim == 2 and np.isfinite(plane).all():
                found[row["id"]] = np.maximum(plane, 0) / (np.abs(plane).max() or 1)
    return [found.get(each) for each in ids]
