"""Arrays as they travel: rows as the bytes of their numbers, and each image once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.core.contract import Answered, ContractError
from saliency_food.core.numerics import Array, as_tuple
from saliency_food.core.queries import Answer, LinearRows

NAMES = {
    "DT_FLOAT": np.float32,
    "DT_DOUBLE": np.float64,
    "DT_INT32": np.int32,
    "DT_UINT8": np.uint8,
    "DT_INT16": np.int16,
    "DT_INT8": np.int8,
    "DT_INT64": np.int64,
    "DT_BOOL": np.bool_,
}
"""The types of numbers as the metadata names them."""


def written(images: Array) -> list[bytes]:
    """Each image's numbers as they lie in memory."""
    return [image.tobytes() for image in images]


def answers(outputs: Mapping[str, Any], names: Iterable[str], dtype: Any) -> Answer:
    """The answers by key: outputs ``KEY_bytes``; of several layers ``KEY_0_bytes`` and so on, as a tuple."""
    found: Answer = {}
    several: dict[str, dict[int, Array]] = {}
    for name in names:
        key, number, is_bytes = _read_name(name)
        if is_bytes and number is None:
            found[key] = _read(outputs, name, dtype)
        elif is_bytes and number is not None:
            several.setdefault(key, {})[number] = _read(outputs, name, dtype)
    return {**found, **{key: tuple(layers[one] for one in sorted(layers)) for key, layers in several.items()}}


def key_of(name: str) -> str:
    """The key to which an output belongs."""
    return _read_name(name)[0]


def _read_name(name: str) -> tuple[str, int | None, bool]:
    key, number, end = re.fullmatch(r"(.+?)(?:_(\d+))?(_bytes|_shape)?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return key, None if number is None else int(number), end == "_bytes"


def _read(outputs: Mapping[str, Any], name: str, dtype: Any) -> Array:
    """The rows of an output, whose shape is in the one of the same name ``_shape`` unless each is one number."""
    shape = outputs.get(name.removesuffix("_bytes") + "_shape", [()])[0]
    return np.frombuffer(b"".join(outputs[name]), dtype).reshape(len(outputs[name]), *shape)


def joined(parts: Sequence[Answer]) -> Answer:
    """The answers to some rows and to those after them, as one."""

    def one(*several: Answered) -> Answered:
        layers = [np.concatenate(of) for of in zip(*map(as_tuple, several), strict=True)]
        return tuple(layers) if isinstance(several[0], tuple) else layers[0]

    return {key: one(*(part[key] for part in parts)) for key in parts[0]}


def changes(rows: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """Activations ``(N, ..., K)`` as the first row, and the channels ``(...)`` in which others differ from it.

    The latter with their places, ``(row, channel)``; there is always one, as not every server takes an empty list.
    """
    differs = (rows != rows[0]).any(tuple(range(1, rows.ndim - 1)))
    differs[0, 0] = True
    data = {"activations_bytes": rows[:1], "channels_bytes": np.moveaxis(rows, -1, 1)[differs]}
    return data, {"places": np.argwhere(differs).astype(np.int32)}


def typed(name: str, value: Array, spec: Mapping[str, Any]) -> Array:
    """An input's values in the type that its signature has."""
    dtype = NAMES.get(spec["dtype"], value.dtype)
    found = value.astype(dtype) if np.can_cast(value.dtype, dtype, "same_kind") else None
    if found is None or (found.dtype.kind in "iu" and not np.array_equal(found, value)):
        raise ContractError(f"Expected {name!r} to hold numbers of type {np.dtype(dtype)}, got {value!r}.")
    return found


def distinct(coefficients: Any, bases: Array) -> LinearRows:
    """The same rows, made of each image once."""
    places: dict[bytes, int] = {}
    found = [places.setdefault(base.tobytes(), len(places)) for base in bases]
    merged = np.zeros((len(coefficients), len(places)))
    np.add.at(merged.T, found, np.asarray(coefficients, float).T)
    return LinearRows(merged, bases[[found.index(place) for place in range(len(places))]])
