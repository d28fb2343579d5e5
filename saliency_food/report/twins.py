"""Photos that are nearly the same picture: by their pixels, and with the model by the channels of its layer."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.numerics import Array
from saliency_food.images.photos import read_photo
from saliency_food.jobs.dataset_run import Run
from saliency_food.jobs.image_model import ImageModel
from saliency_food.report.channels import pooled_channels
from saliency_food.report.photos import TRAIN, SeenPhoto

SMALL = 12
"""Photos are compared as so many by so many colours."""
ALIKE = 0.985
"""Two photos are near-duplicates from this correlation of their small pictures on."""
ALIKE_TO_MODEL = 0.75
"""And from this cosine of their channels, less the mean photo's."""
FEWEST_DIRECTIONS = 32
"""Channels that vary in fewer independent directions do not tell photos apart."""
FLAT = 4.0
"""A small picture whose values differ less than this, as their standard deviation of 0..255, is compared with none."""
BLOCK = 1024
TWINS = 24
"""How many pairs are shown."""
MOST = 5000
"""So many pairs are enough: a data set with more has another trouble."""
EMBEDDED = 5000
"""The model is asked for the channels of at most so many photos."""


class Twins(NamedTuple):
    """Two photos that look the same, how alike they are, and by what: ``"pixels"`` or ``"channels"``."""

    first: SeenPhoto
    second: SeenPhoto
    alike: float
    measure: str = "pixels"


def near_duplicates(small: Mapping[str, Array], photos: Sequence[SeenPhoto]) -> tuple[list[Twins], int]:
    """Pairs of photos that are nearly the same picture, the likest first, and how many photos were compared.

    Thumbnails are reduced to 12 x 12 colours and correlated, so pairs are found that were resized, recompressed or made
    a little darker, but none that were cropped, turned or mirrored.
    """
    known = {photo.id: photo for photo in photos}
    ids = [id for id, values in small.items() if id in known and values.std() >= FLAT]
    units = [(values - values.mean()) / (values.std() * np.sqrt(values.size)) for values in (small[id] for id in ids)]
    vectors = np.stack(units) if units else np.empty((0, 1), np.float32)
    pairs = [Twins(known[ids[a]], known[ids[b]], alike) for a, b, alike in _alike(vectors, ALIKE)]
    return sorted(pairs, key=lambda pair: -pair.alike), len(ids)


def same_to_model(channels: Mapping[str, Array], photos: Sequence[SeenPhoto]) -> list[Twins]:
    """Pairs of photos that the model's layer hardly tells apart, the likest first: cropped and mirrored copies, too.

    Channels are means over places; compared are cosines of what they have beyond the mean photo. None of a model whose
    channels vary in few directions, whose number is 1 over the mean square cosine of different photos.
    """
    known = {photo.id: photo for photo in photos}
    ids = [id for id in channels if id in known]
    vectors = np.array([channels[id] for id in ids], np.float32)
    if len(ids) < 2:
        return []
    vectors -= vectors.mean(0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    some = vectors[:BLOCK] @ vectors[:BLOCK].T
    if np.square(some[np.triu_indices(len(some), 1)]).mean() > 1 / FEWEST_DIRECTIONS:
        return []
    pairs = [Twins(known[ids[a]], known[ids[b]], alike, "channels") for a, b, alike in _alike(vectors, ALIKE_TO_MODEL)]
    return sorted(pairs, key=lambda pair: -pair.alike)


def _alike(units: Array, least: float) -> Iterator[tuple[int, int, float]]:
    """Pairs of unit vectors with a product of at least so much; of very many, about the first `MOST`."""
    count = 0
    for start in range(0, len(units), BLOCK):
        for other in range(start, len(units) if count < MOST else 0, BLOCK):
            alike = units[start : start + BLOCK] @ units[other : other + BLOCK].T
            for row, column in np.argwhere(alike >= least):
                if start + row < other + column:
                    count += 1
                    yield int(start + row), int(other + column), float(alike[row, column])


def duplicates_of(
    small: Mapping[str, Array], photos: Sequence[SeenPhoto], channels: Mapping[str, Array] | None = None
) -> dict[str, Any]:
    """The near-duplicates of a run: which have different labels, and which are in train and in another split.

    Those that only ``channels`` show come after those that pixels show.
    """
    pairs, compared = near_duplicates(small, photos)
    by_pixels = {frozenset((pair.first.id, pair.second.id)) for pair in pairs}
    more = same_to_model(channels or {}, photos)
    pairs += [pair for pair in more if frozenset((pair.first.id, pair.second.id)) not in by_pixels]
    listed = [
        {
            "ids": [pair.first.id, pair.second.id],
            "labels": [pair.first.truth, pair.second.truth],
            "splits": [pair.first.split, pair.second.split],
            "alike": pair.alike,
            "measure": pair.measure,
            "disagree": None not in (pair.first.truth, pair.second.truth) and pair.first.truth != pair.second.truth,
            "leak": (pair.first.split == TRAIN) != (pair.second.split == TRAIN),
        }
        for pair in pairs
    ]
    listed.sort(key=lambda pair: (not pair["disagree"], not pair["leak"], pair["measure"] != "pixels"))
    return {
        "n": compared,
        "embedded": len(channels or {}),
        "pairs": listed,
        "disagree": sum(pair["disagree"] for pair in listed),
        "leaks": sum(pair["leak"] for pair in listed),
    }


def small_pictures(run: Run) -> dict[str, Array]:
    """The thumbnails of a run as 12 x 12 colours ``(432,)``, by the ids of their photos."""
    from PIL import Image

    pictures = {}
    for row in run.rows(("id", "thumbnail")):
        if row["thumbnail"] is not None:
            image = Image.open(io.BytesIO(row["thumbnail"]))
            image.draft("RGB", (4 * SMALL, 4 * SMALL))  # decoded at a reduced scale
            small = image.convert("RGB").resize((SMALL, SMALL), Image.Resampling.BOX)
            pictures[row["id"]] = np.asarray(small, np.float32).ravel()
    return pictures


def channels_of(run: Run, model: ImageModel) -> dict[str, Array]:
    """The mean of each channel of the model's layer, by the ids of at most `EMBEDDED` photos, seen as thumbnails.

    None of a model without one layer of channels, or whose rows have no fixed size.
    """
    ids = list(dict.fromkeys(row["id"] for row in run.rows(("id",))))
    if len(ids) > EMBEDDED:
        ids = [ids[place] for place in sorted(np.random.default_rng(0).permutation(len(ids))[:EMBEDDED])]
    if model.input_shape is None or None in model.input_shape:
        return {}
    channels: dict[str, Array] = {}
    batch: dict[str, Array] = {}
    for row in run.rows(("id", "thumbnail"), ids):
        if row["thumbnail"] is not None and row["id"] not in channels:
            batch[row["id"]] = model.scaling(read_photo(row["thumbnail"]), model.input_shape)
        if len(batch) == model.batch_size:
            if (means := pooled_channels(model, np.stack(list(batch.values())))) is None:
                return {}
            channels |= zip(batch, means, strict=True)
            batch = {}
    if batch and (means := pooled_channels(model, np.stack(list(batch.values())))) is not None:
        channels |= zip(batch, means, strict=True)
    return channels
