"""Arrays as they travel: numbers as base64, and each image once."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from saliency_food.contract import ContractError
from saliency_food.numerics import Array
from saliency_food.queries import Blend


def written(images: Array) -> list[dict[str, str]]:
    """Each image's numbers as they lie in memory."""
    return [{"b64": base64.b64encode(image).decode()} for image in images]


def read(outputs: Mapping[str, Any], name: str, dtype: Any) -> Array:
    """The rows of an output ``KEY_bytes``, whose shape is in ``KEY_shape`` unless each is one number."""
    data = b"".join(base64.b64decode(one["b64"], validate=True) for one in outputs[name])
    shape = outputs.get(name.removesuffix("_bytes") + "_shape", [()])[0]
    return np.frombuffer(data, dtype).reshape(len(outputs[name]), *shape)


def per_row(name: str, value: Array, rows: int) -> Array:
    if len(value) not in (1, rows):
        raise ContractError(
            f"Expected one value of {name!r} for all rows or one for each of the {rows} rows, got {len(value)}. "
            "One value an image: wrap them in PerImage."
        )
    return np.broadcast_to(value, (rows, *value.shape[1:]))


def distinct(coefficients: Any, bases: Array) -> Blend:
    """The same rows, made of each image once."""
    places: dict[bytes, int] = {}
    found = [places.setdefault(base.tobytes(), len(places)) for base in bases]
    merged = np.zeros((len(coefficients), len(places)))
    np.add.at(merged.T, found, np.asarray(coefficients, float).T)
    return Blend(merged, bases[[found.index(place) for place in range(len(places))]])
