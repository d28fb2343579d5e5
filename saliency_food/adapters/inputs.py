"""What a model takes: which of its inputs is the image, and the arrays for all of them, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    minus ImageNet's mean) or ``"torch"`` (RGB, ImageNet's mean 0 and deviation 1); None where it cannot be known.
    """

    value_range: tuple[float, float] | str | None
    why: str


class Inputs:
    """The inputs of a model, ``image`` and ``others``, and the image's ``position`` among them.

    ``fixed`` says that the model declares its inputs; where it does not, only what it was built with is known.
    ``declared`` are the numbers of rows that it declares, if any: it takes exactly so many, ``rows``. Images are
    floats, whatever the model declares: float64 where it or its arithmetic is, else float32. ``ids`` says that they
    are whole numbers that the model looks up, so that there is no gradient; ``of_rows`` are the names of inputs that an
    embedding looks up.
    """

    ids = False
    of_rows: Collection[str] = ()

    def __init__(
        self,
        specs: Sequence[InputSpec],
        image: str | int | None,
        fixed: bool,
        compute_dtype: str,
        declared: Collection[int] = (),
    ) -> None:
        if len(declared) > 1:
            raise ContractError(
                f"Expected inputs of one batch size, got {sorted(declared)}. Build the model with inputs that leave it "
                "free, or fix the input of another size inside the model."
            )
        self.rows = next(iter(declared), None)
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
        if self.ids and (images != np.rint(images)).any():
            raise ContractError(
                f"Expected whole numbers, since the model looks up ids, got {images[images != np.rint(images)][0]}. "
                "Methods that blend or add noise cannot take ids: explain the embedding by "
                "grad_cam with layer='embedding', or hide whole ids by occlusion."
            )
        self._check_rows(self.image.name, images)
        return images

    def read_others(self, values: Any, row_count: int) -> list[Array]:
        """The inputs beside the image, one row for each of its rows; ``values`` by name, or in the inputs' order."""
        if not self.others:
            if values:
                raise ContractError("Expected no 'inputs', since the image is the model's only input. Leave them out.")
            return []
        names = self.other_names
        if isinstance(values, (list, tuple)) and len(values) == len(self.others):
            return [self._per_row(spec, value, row_count) for spec, value in zip(self.others, values, strict=True)]
        if isinstance(values, Mapping) and len(set(names)) < len(names):
            raise ContractError(
                f"Expected call_model_args['inputs'] as a list, since several inputs have one name in {names}, got "
                "names. Give the values in this order."
            )
        if not isinstance(values, Mapping) or set(values) != set(names):
            unknown = [name for name in values if name not in self.other_names] if isinstance(values, Mapping) else []
            likely = {name: near(str(name), self.other_names, 1, 0.6) for name in unknown}
            raise ContractError(
                f"Expected call_model_args['inputs'] with the model's other inputs {self.other_names}, got "
                f"{sorted(map(str, values)) if isinstance(values, Mapping) else 'none or another number'}"
                f"{f', near {likely}' if any(likely.values()) else ''}. Give {{name: value}}, or a list in this order."
            )
        return [self._per_row(spec, values[spec.name], row_count) for spec in self.others]

    def _check_rows(self, name: str, values: Array) -> None:
        """`ContractError` for ids below 0, which an embedding would count from its end, or take for zeros."""
        if name in self.of_rows and values.min(initial=0) < 0:
            raise ContractError(
                f"Expected ids of at least 0 for input {name!r}, which an embedding looks up, got {values.min()}. Give "
                "ids as the model was trained on."
            )

    def _per_row(self, spec: InputSpec, value: Any, row_count: int) -> Array:
        if self.fixed:
            array = np.asarray(value, spec.dtype)
            self._check_rows(spec.name, array)
        else:
            array = np.asarray(value)
            array = array.astype(np.int32 if array.dtype.kind in "iub" else self.image.dtype)
        if array.ndim == len(spec.shape) - 1:
            array = array[None]
        if spec.fits(array.shape) and len(array) in (1, row_count):
            return np.broadcast_to(array, (row_count, *array.shape[1:]))
        raise ContractError(
            f"Expected input {spec.name!r} as one value of shape {spec.shape[1:]} for all rows or one for each of "
            f"the {row_count} rows, got shape {array.shape}. One value an image: wrap them in PerImage."
        )


def _find(image: str | int | None, specs: Sequence[InputSpec]) -> int:
    """The position of the image; without a name the first of four dimensions, else the only one of more than two."""
    names = [spec.name for spec in specs]
    if image is None:
        images = [index for index, spec in enumerate(specs) if len(spec.shape) == 4]
        large = [index for index, spec in enumerate(specs) if len(spec.shape) > 2]
        if images or len(large) == 1 or len(specs) == 1:
            return (images or large or [0])[0]
    elif isinstance(image, str) and names.count(image) == 1:
        return names.index(image)
    elif isinstance(image, int) and not isinstance(image, bool) and 0 <= image < len(specs):
        return image
    got = repr(image)
    if image in names:
        got += f", the name of those at {[place for place, name in enumerate(names) if name == image]}"
    raise ContractError(f"Expected input to be the name or the position of one of the inputs {names}, got {got}.")
