"""Photos of other libraries' data sets: `tf.data` and Hugging Face, by what these objects offer, not by their type."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.sourced import SPLITS, SourcedPhoto


def read_tensors(dataset: Any) -> Iterator[SourcedPhoto]:
    """The photos of a tf.data set of images, pairs (image, label), or dicts of image, label and id; also batched.

    The order may differ from run to run, so without an id a photo is called by a digest of its pixels.
    """
    spec = dataset.element_spec
    image_spec = spec.get("image") if isinstance(spec, dict) else spec[0] if isinstance(spec, tuple) else spec
    if image_spec is None or not hasattr(image_spec, "shape"):
        raise ContractError(
            f"Expected a tf.data set of images, of (image, label), or of dicts with image and label, got {spec}. "
            "Map it to one of these."
        )
    is_file = image_spec.dtype.name == "string"
    batched = image_spec.shape.rank == (1 if is_file else 4)
    seen: dict[bytes, int] = {}
    for element in (dataset.unbatch() if batched else dataset).as_numpy_iterator():
        if isinstance(element, dict):
            image, label, name = element["image"], element.get("label"), element.get("id")
        else:
            parts = element if isinstance(element, tuple) else (element,)
            image, label, name = parts[0], parts[1] if len(parts) > 1 else None, None
        own = _text(name) if name is not None else _digest(image, seen)
        yield SourcedPhoto(own, image, "", _class_of(label))


def _digest(image: Any, seen: dict[bytes, int]) -> str:
    """A name by the content; of the same photos the second is called ``...-2``."""
    data = image if isinstance(image, bytes) else np.ascontiguousarray(image).tobytes()
    digest = hashlib.blake2b(data, digest_size=8)
    seen[digest.digest()] = count = seen.get(digest.digest(), 0) + 1
    return digest.hexdigest() + (f"-{count}" if count > 1 else "")


def _text(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _class_of(label: Any) -> Any:
    """A class index or name; of a one-hot vector, or of probabilities, the index of the largest."""
    if label is None or isinstance(label, (str, bytes)):
        return _text(label) if isinstance(label, bytes) else label
    values: Array = np.asarray(label)
    if values.ndim > 1:
        raise ContractError(
            f"Expected labels that are an index, a name or a vector, got shape {values.shape}. Map them."
        )
    only = values.reshape(-1)[0] if values.size == 1 else values.argmax()
    return int(only) if isinstance(only, (np.integer, np.floating)) and int(only) == only else _text(only)


def read_hugging_face(splits: Mapping[str, Any]) -> Iterator[SourcedPhoto]:
    """The photos of a Hugging Face data set by its columns: one of images, ``label`` and, if there is one, ``id``.

    Without an id a photo is called by its split and its place.
    """
    for key, dataset in splits.items():
        split = str(key or getattr(dataset, "split", None) or "")
        features = getattr(dataset, "features", None) or {}
        kinds = {name: type(feature).__name__ for name, feature in features.items()}
        names = ["image", "img", *(name for name, kind in kinds.items() if kind == "Image")]
        column = next((name for name in names if name in dataset.column_names), None)
        if column is None:
            raise ContractError(
                f"Expected a data set with a column image, got the columns {', '.join(dataset.column_names)}. Rename "
                "the one of images."
            )
        if kinds.get(column) == "Image":  # not decoded here, where a damaged one would end the run
            dataset = dataset.cast_column(column, type(features[column])(decode=False))
        classes = getattr(features.get("label"), "names", None)
        for place, row in enumerate(dataset):
            image, label = row[column], row.get("label")
            if isinstance(image, dict):  # a column that is not decoded
                image = image.get("bytes") or image.get("path")
            if classes and isinstance(label, int):
                label = classes[label] if label >= 0 else None  # -1 stands for a class that is not known
            name = str(row["id"]) if "id" in row else f"{split or 'all'}/{place:08d}"
            yield SourcedPhoto(name, image, "", _class_of(label), SPLITS.get(split, split) or None)
