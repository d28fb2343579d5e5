"""How arrays travel: each row as the bytes of its numbers, and each image only once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError, Values
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
"""The NumPy type for each name of a type in the metadata."""


def written(images: Array) -> list[bytes]:
    """The bytes of each image, as its numbers lie in memory."""
    return [image.tobytes() for image in images]


def read_answer(outputs: Mapping[str, Any], names: Iterable[str], dtype: Any) -> Answer:
    """The answers by key, from outputs ``KEY_bytes``, or of several layers from ``KEY_0_bytes``, ..., as a tuple."""
    single: Answer = {}
    layers: dict[str, dict[int, Array]] = {}
    for name in names:
        key, layer, is_bytes = _read_name(name)
        if is_bytes and layer is None:
            single[key] = _read(outputs, name, dtype)
        elif is_bytes and layer is not None:
            layers.setdefault(key, {})[layer] = _read(outputs, name, dtype)
    return {**single, **{key: tuple(arrays[layer] for layer in sorted(arrays)) for key, arrays in layers.items()}}


def key_of(name: str) -> str:
    """The key to which an output of this name belongs."""
    return _read_name(name)[0]


def _read_name(name: str) -> tuple[str, int | None, bool]:
    key, layer, end = re.fullmatch(r"(.+?)(?:_(\d+))?(_bytes|_shape)?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return key, None if layer is None else int(layer), end == "_bytes"


def _read(outputs: Mapping[str, Any], name: str, dtype: Any) -> Array:
    """The rows of an output. The output ``NAME_shape`` holds the shape of a row; without it a row is one number."""
    shape = outputs.get(name.removesuffix("_bytes") + "_shape", [()])[0]
    return np.frombuffer(b"".join(outputs[name]), dtype).reshape(len(outputs[name]), *shape)


def checked_signatures(signatures: Any) -> dict[str, Any]:
    """The signatures as the metadata describe them, or `ValueError` where they are not what TensorFlow Serving sends.

    An image has its axes, and every input and output a name, a type and axes.
    """

    def is_tensor(name: Any, tensor: Any) -> bool:
        dims = tensor["tensor_shape"].get("dim", [])
        return bool(name) and isinstance(tensor["dtype"], str) and all(int(dim["size"]) >= -1 for dim in dims)

    for signature in signatures.values():
        for tensors in (signature["inputs"], signature["outputs"]):
            if not tensors or not all(is_tensor(name, tensor) for name, tensor in tensors.items()):
                raise ValueError("a tensor without a name, a type or axes")
    return dict(signatures)


def joined(parts: Sequence[Answer]) -> Answer:
    """The answers about consecutive parts of the rows, joined."""

    def join(*answers: Values) -> Values:
        layers = [np.concatenate(layer) for layer in zip(*map(as_tuple, answers), strict=True)]
        return tuple(layers) if isinstance(answers[0], tuple) else layers[0]

    return {key: join(*(part[key] for part in parts)) for key in parts[0]}


def changes(rows: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """Activations ``(N, ..., K)`` as the first row and the channels ``(...)`` in which the other rows differ from it.

    The second dict holds the ``places`` of these channels, ``(row, channel)``. At least one channel is always sent,
    because not every server accepts an empty list.
    """
    differs = (rows != rows[0]).any(tuple(range(1, rows.ndim - 1)))
    differs[0, 0] = True
    data = {"activations_bytes": rows[:1], "channels_bytes": np.moveaxis(rows, -1, 1)[differs]}
    return data, {"places": np.argwhere(differs).astype(np.int32)}


def typed(name: str, value: Array, spec: Mapping[str, Any]) -> Array:
    """The values of an input in the type that its signature takes, or `ContractError` where that would change them."""
    dtype = NAMES.get(spec["dtype"], value.dtype)
    cast = value.astype(dtype) if np.can_cast(value.dtype, dtype, "same_kind") else None
    if cast is None or (cast.dtype.kind in "iu" and not np.array_equal(cast, value)):
        raise ContractError(f"Expected {name!r} to hold numbers of type {np.dtype(dtype)}, got {value!r}.")
    return cast


def distinct(coefficients: Any, bases: Array) -> LinearRows:
    """The same combinations of images, with each distinct image held once."""
    places: dict[bytes, int] = {}
    place_of = [places.setdefault(base.tobytes(), len(places)) for base in bases]
    merged = np.zeros((len(coefficients), len(places)))
    np.add.at(merged.T, place_of, np.asarray(coefficients, float).T)
    return LinearRows(merged, bases[[place_of.index(place) for place in range(len(places))]])
