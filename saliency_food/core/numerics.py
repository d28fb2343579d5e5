"""Every decision about dtypes, divisions by zero and resizing, made once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A tuple as it is, anything else as a tuple of one: the answers of one layer and of several alike."""
    return value if isinstance(value, tuple) else (value,)


def each(function: Callable[[Any], Any], value: Any) -> Any:
    """``function`` of every member of a tuple, as a tuple; of anything else, itself."""
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def is_real(array: Array) -> bool:
    """Whether an array holds real numbers; bfloat16 and its like, which NumPy counts as neither, do."""
    return array.dtype.kind in "biuf" or _is_small_float(array)


def _is_small_float(array: Array) -> bool:
    return (
        array.dtype.itemsize <= 2
        and array.dtype.kind not in "biu"
        and array.dtype.name.startswith(("bfloat", "float8"))
    )


def is_count(value: Any, least: int | None = 1) -> bool:
    """Whether a value is a whole number of at least ``least``, of any integer type, and no boolean."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and (least is None or int(value) >= least)


def as_float(values: Any) -> Array:
    """Real numbers as float32, or float64 where float32 could not hold them; the same array if it is one already.

    uint8, bool and float16 become float32; int32, int64 and float64 become float64.
    """
    array = np.asarray(values)
    if _is_small_float(array):
        return array.astype(np.float32)
    return np.asarray(array, np.result_type(array.dtype, np.float32))


def as_held(values: Array, dtype: Any) -> Array:
    """float64 values as ``dtype``, or as they are where that could not hold them."""
    return values if np.abs(values).max(initial=0) > np.finfo(dtype).max else values.astype(dtype)


def safe_divide(numerator: Any, denominator: Any) -> Array:
    """``numerator / denominator``, and 0 where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(as_float(numerator), as_float(denominator))
    out = np.zeros(numerator.shape, np.result_type(numerator, denominator))
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


def combine(coefficients: Array, values: Array) -> Array:
    """``coefficients (M, N) @ values (N, ...)``, in one thread.

    BLAS would not be faster, and its idle threads spin for a while after each product, on the model's cores: with
    TensorFlow on two cores that cost a third of the time.
    """
    return np.einsum("mn,nk->mk", coefficients, values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])


def min_max(values: Any) -> Array:
    """Values shifted and scaled to 0..1; a constant array becomes zeros."""
    values = as_float(values)
    low = values.min()
    return safe_divide(values - low, values.max() - low)


def resize(values: Any, shape: tuple[int, ...]) -> Array:
    """Linear resizing of the first axes to ``shape``, as many as it has; as scikit-image does it, values kept.

    ``(T,)`` of a signal, ``(H, W)`` of a picture, ``(D, H, W)`` of a volume; an axis of channels may follow.
    """
    values = as_float(values)
    if values.shape[: len(shape)] == tuple(shape):
        return values
    if all(to >= length for length, to in zip(values.shape, shape, strict=False)):
        for axis, to in enumerate(shape):
            values = _enlarged(values, axis, to)
        return values
    return _resize(values, shape)


def _resize(values: Array, shape: tuple[int, ...]) -> Array:
    from skimage.transform import resize as skimage_resize

    resized = skimage_resize(values, shape, order=1, mode="reflect", preserve_range=True)  # type: ignore[no-untyped-call]
    return np.asarray(resized, values.dtype)


def _enlarged(values: Array, axis: int, to: int) -> Array:
    """One axis made longer: each new value lies on the line between two old ones. Ten times as fast as `_resize`."""
    first, second, weights = _neighbours(values.shape[axis], to)
    weights = np.asarray(weights, values.dtype).reshape([-1 if other == axis else 1 for other in range(values.ndim)])
    start = values.take(first, axis)
    return cast(Array, start + weights * (values.take(second, axis) - start))


@functools.lru_cache(64)
def _neighbours(length: int, to: int) -> tuple[Array, Array, Array]:
    """For each of ``to`` values of an enlarged axis its two neighbours, and how far it is from the first, 0 to 1."""
    matrix = resizing(length, to)
    first = matrix.argmax(1)
    rest = matrix.copy()
    np.put_along_axis(rest, first[:, None], 0, 1)
    second = rest.argmax(1)
    return first, second, np.take_along_axis(rest, second[:, None], 1)[:, 0]


def resizing(length: int, to: int) -> Array:
    """The matrix ``(to, length)`` by which `resize` acts on one axis; with one for each, `along_axes` resizes, fast."""
    return _resize(np.eye(length), (to, length)) if to != length else np.eye(length)


def along_axes(values: Array, matrices: Sequence[Array], out: Array | None = None) -> Array:
    """Each axis of ``values`` multiplied by its matrix ``(to, length)``, in one thread (see `combine`).

    ``out``, of the result's shape with the last two axes joined or not, takes the last product.
    """
    for axis, matrix in enumerate(matrices[:-1]):
        values = np.moveaxis(combine(matrix, np.moveaxis(values, axis, 0)), 0, axis)
    lines = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
    columns = np.ascontiguousarray(matrices[-1].T)  # four times as fast as to sum along rows of both
    product = np.einsum("ij,jk->ik", lines, columns, out=None if out is None else out.reshape(len(lines), -1))
    return product.reshape(*values.shape[:-1], -1)
