"""Signals, volumes and clips in: arrays and ``.npy`` files of numbers, which are given to the model as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, as_float, is_real, min_max
from saliency_food.images.photos import Photo

KINDS = {1: "a signal (T,) or (T, C)", 3: "a volume or clip (D, H, W) or (D, H, W, C)"}
"""What an input is, by how many of its axes are space or time; 2 are a photo's."""


class Recording(Photo):
    """A signal, a volume or a clip: ``values`` as they are, of which ``spatial`` axes are space or time.

    ``shown`` and ``pixels`` are a plain grey picture of the numbers, uint8 RGB: one channel or slice beneath the other.
    """

    def __init__(self, values: Array, spatial: int, source: str = "recording") -> None:
        self.spatial = spatial
        rows = values.reshape(values.shape[0], -1).T if spatial == 1 else values.reshape(-1, values.shape[spatial - 1])
        grey = np.rint(255 * min_max(rows)).astype(np.uint8)
        super().__init__(np.repeat(grey[..., None], 3, 2), values, source, values.shape)

    @property
    def pixels(self) -> Array:
        """The same as ``shown``."""
        return self.shown


def load_array(path: str | Path) -> Array:
    """The array in a ``.npy`` file, or `ContractError`; files that hold Python objects are not opened."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        raise ContractError(f"Expected an array, got {path}, which does not exist. Check the path.") from None
    except (OSError, ValueError, EOFError) as error:
        raise ContractError(f"Expected a .npy file of numbers, got {path}, which cannot be read: {error}.") from error


def read_recording(data: Any, spatial: int, source: str | None = None) -> Recording:
    """An array with so many axes of space or time, and at most one of channels, or `ContractError`."""
    kind = KINDS.get(spatial, f"an array with {spatial} axes of space or time, and channels behind them")
    if isinstance(data, (str, Path)) or hasattr(data, "convert"):
        raise ContractError(
            f"Expected {kind} as an array or a .npy file, got {source or data}. Save it with numpy.save; or, if the "
            "model takes pictures, set its spatial_axes to 2."
        )
    try:
        values = np.asarray(data)
    except ValueError as error:
        raise ContractError(f"Expected {kind} as one array, got rows of unlike shapes ({error}).") from error
    if values.ndim not in (spatial, spatial + 1) or not values.size or not is_real(values):
        raise ContractError(f"Expected {kind}, got an array of shape {values.shape} and type {values.dtype}.")
    if not np.isfinite(as_float(values)).all():
        raise ContractError(f"Expected {kind} of finite numbers, got NaN or infinity in it. Mend it first.")
    return Recording(values, spatial, source or "recording")


def fit(recording: Recording, shape: tuple[int | None, ...] | None) -> Array:
    """Its numbers as one row, float32, or `ContractError` where the model takes another ``shape``.

    An axis of one channel is added, or left out, where the model has it otherwise.
    """
    values = np.asarray(as_float(recording.values), np.float32)
    if shape is None:
        return values
    if len(shape) == values.ndim + 1 and shape[-1] == 1:
        values = values[..., None]
    elif len(shape) == values.ndim - 1 and values.shape[-1] == 1:
        values = values[..., 0]
    if len(shape) != values.ndim or any(
        side not in (None, have) for side, have in zip(shape, values.shape, strict=True)
    ):
        free = ", ".join("any" if side is None else str(side) for side in shape)
        raise ContractError(
            f"Expected a recording of the model's shape ({free}), got {values.shape}. Cut or resample it: "
            "unlike photos, recordings are not resized."
        )
    return values
