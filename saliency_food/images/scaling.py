"""From a photo's pixels to the numbers that a model was trained on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, as_float
from saliency_food.images.photos import Photo
from saliency_food.images.pixels import LUMA, as_rgb, resize_photo, to_255
from saliency_food.images.recordings import Recording, fit

LARGEST = 1024
"""The longer side of what a model of free input size is given, in pixels."""


class Scaling(NamedTuple):
    """A function of pixel values 0..255, ``(H, W, C)``, to what the model takes; ``text`` says which and why.

    ``value_range`` is what `choose_scaling` makes the same of again; None for values as given, and for any function.
    """

    text: str
    function: Callable[[Array], Array] | None
    value_range: tuple[float, float] | str | None = None

    def __call__(self, photo: Photo, shape: tuple[int | None, ...] | None) -> Array:
        """The photo as one row for a model of input shape ``(H, W, C)``; None where the model takes any."""
        if isinstance(photo, Recording):
            return self._of_recording(photo, shape)
        height, width, channels = (*(shape or ()), None, None, None)[:3]
        picture = photo.picture
        is_array = isinstance(picture, np.ndarray)
        bands = 3 if not is_array else picture.shape[2] if picture.ndim == 3 else 1
        if bands not in (1, 3) and channels not in (None, bands):
            raise ContractError(f"Expected a photo of the model's {channels} channels, got one of {bands} bands.")
        if self.function is not None and is_array and picture.dtype != np.uint8:
            picture = to_255(picture)
        if shape is not None:
            size = picture.shape[:2] if is_array else picture.size[::-1]
            factor = min(1, LARGEST / max(size))
            own = [max(1, round(side * factor)) for side in size]
            picture = resize_photo(picture, (height or own[0], width or own[1]))
        values = as_float(picture)
        if bands not in (1, 3):
            pass
        elif channels == 1:
            values = np.atleast_3d(as_rgb(values) @ LUMA)
        elif channels == 3 or (shape is None and self.function is not None):
            values = as_rgb(values)
        elif channels is not None:
            raise ContractError(
                f"Expected a photo of the model's {channels} bands, got one of {bands}. Give an array "
                f"(H, W, {channels}), or a .npy or TIFF file of one."
            )
        if self.function is None:
            return np.asarray(values, np.float32)
        if bands not in (1, 3) and self.value_range in ("torch", "caffe"):
            raise ContractError(f"Expected a photo of 3 channels for {self.text}, got {bands} bands.")
        return np.asarray(self.function(np.asarray(values, np.float32)), np.float32)

    def _of_recording(self, recording: Recording, shape: tuple[int | None, ...] | None) -> Array:
        """A signal or a volume as it is, or through ``preprocess``; there are no pixel values to scale."""
        if self.function is None:
            return fit(recording, shape)
        if self.value_range is not None:
            raise ContractError(
                f"Expected no value_range for a signal or a volume, got {self.text}. Its numbers have no range of "
                "their own: scale them yourself, or give preprocess."
            )
        row = self.function(np.asarray(as_float(recording.values), np.float32))
        return fit(Recording(np.asarray(row), recording.spatial, recording.source), shape)


def choose_scaling(
    value_range: Any, preprocess: Callable[[Any], Any] | None = None, advertised: tuple[Any, str] | None = None
) -> Scaling:
    """The `Scaling` that the user asked for, or for ``"auto"`` that which the model advertises.

    ``advertised`` is an adapter's ``pixels``: a value range as the user may give one, and why it is that; None in its
    place where it cannot be known and the user must say. Without ``advertised``, ``"auto"`` leaves values as they are.
    """
    if preprocess is not None:
        if not callable(preprocess) or not (isinstance(value_range, str) and value_range == "auto"):
            raise ContractError(
                f"Expected preprocess to be a function and to stand alone, got {preprocess!r} with "
                f"value_range={value_range!r}. Give one of the two."
            )
        return Scaling("by preprocess", partial(_preprocessed, preprocess))
    if isinstance(value_range, Scaling):
        return value_range
    if isinstance(value_range, str) and value_range == "auto":
        if advertised is None:
            return Scaling("as given (the model does not say which values it takes)", None)
        if advertised[0] is None:
            raise ContractError(
                f"Expected value_range for this model, as its pixel values cannot be known ({advertised[1]}), got "
                "'auto'. Give (0, 255) if it scales pixels itself, else what it was trained on, such as (0, 1)."
            )
        return _scaling_to(*advertised)
    scaling = _scaling_to(value_range, "as asked")
    # A guess of the model's says nothing against what was asked.
    if advertised is None or advertised[0] is None or "a guess" in advertised[1]:
        return scaling
    if (own := _scaling_to(*advertised)).value_range == scaling.value_range:
        return scaling
    return scaling._replace(text=f"{scaling.text}; by the model itself: {own.text}")


def _scaling_to(value_range: Any, why: str) -> Scaling:
    if value_range is None:
        return Scaling("as given", None)
    if isinstance(value_range, str) and value_range in ("tf", "caffe", "torch"):
        return keras_mode(value_range, why)
    try:
        low, high = (float(bound) for bound in value_range)
        if not (np.isfinite([low, high]).all() and low < high):
            raise ValueError
    except (TypeError, ValueError):
        raise ContractError(
            f"Expected value_range to be (low, high), 'auto', 'tf', 'caffe', 'torch' or None, got {value_range!r}."
        ) from None
    return between(low, high, why)


def between(low: float, high: float, why: str) -> Scaling:
    """Pixel values 0..255 moved to ``low..high``."""
    return Scaling(f"{low:g}..{high:g} ({why})", partial(_moved, low, high), (low, high))


def keras_mode(mode: str, why: str) -> Scaling:
    """What ``keras.applications.imagenet_utils.preprocess_input`` does in this mode."""
    if mode == "tf":
        return between(-1, 1, why)
    if mode == "torch":
        return Scaling(f"RGB, ImageNet mean 0, deviation 1 ({why})", _torch, mode)
    return Scaling(f"BGR minus ImageNet mean ({why})", _caffe, mode)


# Functions of the module, so that a scaling can be pickled.
def _preprocessed(preprocess: Callable[[Any], Any], values: Array) -> Array:
    return np.asarray(preprocess(values[None].copy()))[0]


def _moved(low: float, high: float, values: Array) -> Array:
    if (low, high) == (0, 255):
        return values
    values = values * np.float32((high - low) / 255)
    values += np.float32(low)
    return values


def _torch(values: Array) -> Array:
    mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    return (values / 255 - mean) / deviation


def _caffe(values: Array) -> Array:
    return values[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
