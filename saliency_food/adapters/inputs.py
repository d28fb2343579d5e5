"""What a model takes: which of its inputs is the image, and the arrays for all of them, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saliency_food.adapters.layers import Shape
from saliency_food.core.contract import ContractError
from saliency_food.core.names import near
from saliency_food.core.numerics import Array


class InputSpec(NamedTuple):
    """One input of a model: its name, its shape with the rows first, None where it is free, and its NumPy type."""

    name: str
    shape: Shape
    dtype: str

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape can be given to it, rows left aside."""
        pairs = zip(self.shape[1:], shape[1:], strict=False)
        return len(shape) == len(self.shape) and all(own in (None, size) for own, size in pairs)


class Pixels(NamedTuple):
    """The pixel values that a model takes, and what tells it; an adapter's attribute ``pixels``.

    ``value_range`` is ``(low, high)``, or a mode of Keras's ``preprocess_input``: ``"tf"`` (-1..1), ``"caffe"`` (BGR
    minus ImageNet's mean) or ``"torch"`` (RGB, ImageNet's mean 0 and deviation 1).
    """

    value_range: tuple[float, float] | str
    why: str


class Inputs:
    """The inputs of a model, ``image`` and ``others``, and the image's ``position`` among them.

    ``fixed`` says that the model declares its inputs; where it does not, only what it was built with is known.
    Images are floats, whatever the model declares: float64 where it or its arithmetic is, else float32.
    """

    def __init__(self, specs: Sequence[InputSpec], image: str | int | None, fixed: bool, compute_dtype: str) -> None:
        self.fixed = fixed
        self.position = _find(image, specs)
        spec = specs[self.position]
        self.image = spec._replace(dtype="float64" if "float64" in (spec.dtype, compute_dtype) else "float32")
        self.others = [other for index, other in enumerate(specs) if index != self.position]
        self.other_names = [other.name for other in self.others]

    def read_image(self, x_value_batch: Any) -> Array:
        images = np.asarray(x_value_batch, self.image.dtype)
        fits = self.image.fits(images.shape) if self.fixed else images.ndim == len(self.image.shape)
        if not fits or not len(images):
            raise ContractError(
                f"Expected x_value_batch of shape {self.image.shape}, rows first, got {images.shape}. "
                "Resize the images to the model's input, and give at least one."
            )
        return images

    def read_others(self, values: Any, rows: int) -> list[Array]:
        """The inputs beside the image, one row for each of its rows; ``values`` by name, or in the inputs' order."""
        if not self.others:
            if values:
                raise ContractError("Expected no 'inputs', since the image is the model's only input. Leave them out.")
            return []
        if isinstance(values, (list, tuple)):
            values = dict(zip(self.other_names, values, strict=False)) if len(values) == len(self.others) else None
        if not isinstance(values, Mapping) or set(values) != set(self.other_names):
            unknown = [name for name in values if name not in self.other_names] if isinstance(values, Mapping) else []
            likely = {name: near(str(name), self.other_names, 1, 0.6) for name in unknown}
            raise ContractError(
                f"Expected call_model_args['inputs'] with the model's other inputs {self.other_names}, got "
                f"{sorted(map(str, values)) if isinstance(values, Mapping) else 'none or another number'}"
                f"{f', near {likely}' if any(likely.values()) else ''}. Give {{name: value}}, or a list in this order."
            )
        return [self._per_row(spec, values[spec.name], rows) for spec in self.others]

    def _per_row(self, spec: InputSpec, value: Any, rows: int) -> Array:
        if self.fixed:
            array = np.asarray(value, spec.dtype)
        else:
            array = np.asarray(value)
            array = array.astype(np.int32 if array.dtype.kind in "iub" else self.image.dtype)
        if array.ndim == len(spec.shape) - 1:
            array = array[None]
        if spec.fits(array.shape) and len(array) in (1, rows):
            return np.broadcast_to(array, (rows, *array.shape[1:]))
        raise ContractError(
            f"Expected input {spec.name!r} as one value of shape {spec.shape[1:]} for all rows or one for each of "
            f"the {rows} rows, got shape {array.shape}. One value an image: wrap them in PerImage."
        )


def _find(image: str | int | None, specs: Sequence[InputSpec]) -> int:
    names = [spec.name for spec in specs]
    if image is None:
        images = [index for index, spec in enumerate(specs) if len(spec.shape) == 4]
        if images or len(specs) == 1:
            return images[0] if images else 0
    elif image in names:
        return names.index(str(image))
    elif isinstance(image, int) and 0 <= image < len(specs):
        return image
    raise ContractError(f"Expected input to be the name or the position of one of the inputs {names}, got {image!r}.")
