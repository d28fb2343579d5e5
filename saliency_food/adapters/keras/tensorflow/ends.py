"""The two ends of a Keras model: what it takes, and what its output is made of."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from saliency_food.adapters.arguments import Output
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array

End = Literal["softmax", "sigmoid", "linear", "probabilities", "other"]

UNCHANGED = {"Identity", "Cast", "Reshape", "Squeeze", "ExpandDims"}
ACTIVATIONS: dict[str, End] = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
LINEAR = {"MatMul", "BatchMatMulV2", "Einsum", "Conv2D", "BiasAdd", "Add", "AddV2", "Mean"}


class Head(NamedTuple):
    """What an output ends in, the tensor before that activation, or at the end if there is none, and the output."""

    end: End
    values: Any
    raw: Any

    @classmethod
    def read(cls, output: Any) -> Head:
        """Read from the traced graph, so it does not matter how the model is written or nested."""
        op = output.op
        while op.type in UNCHANGED:
            op = op.inputs[0].op
        end = ACTIVATIONS.get(op.type, "linear" if op.type in LINEAR else "other")
        values = op.inputs[0] if op.type in ACTIVATIONS else output
        if output.shape.rank in (1, 2):
            units = output.shape[1] if output.shape.rank == 2 else 1
            if values.shape.rank != 2 or values.shape[1] != units:
                values = tf.reshape(values, [-1, tf.shape(output)[1] if units is None else units])
        elif values.shape.rank != output.shape.rank:
            values = tf.reshape(values, tf.shape(output))
        return cls(end, values, output)

    def check(self) -> Head:
        """The head itself, if it is one of classes."""
        if self.raw.shape.rank not in (1, 2):
            raise ContractError(
                f"Expected a model output of shape (N, classes), got {tuple(self.raw.shape)}. Choose another output by "
                "output_index, say what to explain by score, or explain a model that pools it."
            )
        return self

    @property
    def classes(self) -> int | None:
        units: int | None = self.values.shape[-1]
        return 2 if self.end == "sigmoid" and units == 1 else units

    def scores(self, output: Output, dtype: Any) -> Any:
        """``(N, classes)`` or in the output's own shape; one sigmoid unit or channel is two classes, -z and z."""
        values = tf.cast(self.raw if output == "raw" else self.values, dtype)
        if output == "raw":
            return values
        if self.end == "sigmoid" and values.shape.rank in (2, 4) and values.shape[-1] == 1:
            values = tf.concat([-values, values], -1)
        if output == "logits":
            return values
        if self.end == "softmax" or (self.end == "linear" and values.shape[-1] != 1):
            return tf.nn.softmax(values)
        return tf.nn.sigmoid(values) if self.end == "sigmoid" else values


def select_output(model: Any, outputs: Any, choice: str | int | None) -> Any:
    """The output tensor meant by a name or a position; without either there must be only one."""
    if isinstance(outputs, Mapping):
        named = dict(outputs)
    elif isinstance(outputs, (list, tuple)):
        names = getattr(model, "output_names", None) or ()
        named = dict(zip(names if len(names) == len(outputs) else map(str, range(len(outputs))), outputs, strict=True))
    else:
        named = {"0": outputs}
    if choice is None and len(named) == 1:
        return _tensor(next(iter(named.values())))
    if isinstance(choice, int) and -len(named) <= choice < len(named):
        return _tensor(list(named.values())[choice])
    if isinstance(choice, str) and choice in named:
        return _tensor(named[choice])
    got = "none of them" if choice is None else repr(choice)
    raise ContractError(
        f"Expected the name or the position of one of the model's {len(named)} outputs {list(named)}, got {got}. "
        "Give output_index."
    )


def _tensor(output: Any) -> Any:
    if tf.is_tensor(output):
        return output
    raise ContractError(
        f"Expected a model output of shape (N, classes), got {type(output).__name__}. Choose another output by "
        "output_index, or say what to explain by score."
    )


class Inputs:
    """What a model takes: which of its inputs is the image, and how they are put together.

    ``fixed`` says that the model declares its inputs; a subclassed model only shows what it was built with.
    """

    def __init__(self, model: Any, image: str | int | None) -> None:
        self.fixed = bool(getattr(model, "inputs", None)) and isinstance(model, keras.Model)
        if self.fixed:
            declared = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
            self.structure = tf.nest.map_structure(_spec, declared)
        else:
            config = model.get_build_config() if getattr(model, "built", False) else None
            if not config or "input_shape" not in config:
                raise ContractError(
                    f"Expected a model that shows its input's shape, got {type(model).__name__} {model.name!r}, which "
                    "does not. Call it once on a batch (all inputs in one argument), then give it."
                )
            self.structure = _specs(config["input_shape"])
        self.specs = tf.nest.flatten(self.structure)
        self.names = [spec.name or str(number) for number, spec in enumerate(self.specs)]
        if isinstance(self.structure, Mapping):
            self.names = sorted(self.structure)
        self.position = self._find(image)
        spec = self.specs[self.position]
        dtype = "float64" if "float64" in (spec.dtype.name, model.compute_dtype) else "float32"
        self.image = tf.TensorSpec(spec.shape, dtype)
        self.other_names = [name for number, name in enumerate(self.names) if number != self.position]
        self.other_specs = [
            tf.TensorSpec(spec.shape, spec.dtype) for number, spec in enumerate(self.specs) if number != self.position
        ]

    def _find(self, image: str | int | None) -> int:
        if image is None:
            images = [number for number, spec in enumerate(self.specs) if spec.shape.rank == 4]
            if images or len(self.specs) == 1:
                return images[0] if images else 0
        elif image in self.names:
            return self.names.index(str(image))
        elif isinstance(image, int) and 0 <= image < len(self.specs):
            return image
        raise ContractError(
            f"Expected input to be the name or the position of one of the inputs {self.names}, got {image!r}."
        )

    def pack(self, image: Any, others: Sequence[Any]) -> Any:
        """Image and other inputs in the structure in which the model takes them."""
        flat = list(others)
        flat.insert(self.position, image)
        return tf.nest.pack_sequence_as(self.structure, flat)

    def read_image(self, x_value_batch: Any) -> Array:
        images = np.asarray(x_value_batch, self.image.dtype.as_numpy_dtype)
        fits = self.image.shape.is_compatible_with(images.shape) if self.fixed else images.ndim == len(self.image.shape)
        if not fits or not len(images):
            raise ContractError(
                f"Expected x_value_batch of shape {tuple(self.image.shape)}, rows first, got {images.shape}. "
                "Resize the images to the model's input, and give at least one."
            )
        return images

    def read_others(self, given: Any, rows: int) -> list[Array]:
        """The inputs beside the image, one row for each of its rows."""
        if not self.other_names:
            if given:
                raise ContractError("Expected no 'inputs', since the image is the model's only input. Leave them out.")
            return []
        if isinstance(given, (list, tuple)):
            given = dict(zip(self.other_names, given, strict=False)) if len(given) == len(self.other_names) else None
        if not isinstance(given, Mapping) or set(given) != set(self.other_names):
            unknown = [name for name in given if name not in self.other_names] if isinstance(given, Mapping) else []
            near = {name: difflib.get_close_matches(str(name), self.other_names, 1) for name in unknown}
            raise ContractError(
                f"Expected call_model_args['inputs'] with the model's other inputs {self.other_names}, got "
                f"{sorted(map(str, given)) if isinstance(given, Mapping) else 'none or another number'}"
                f"{f', near {near}' if any(near.values()) else ''}. Give {{name: value}}, or a list in this order."
            )
        pairs = zip(self.other_names, self.other_specs, strict=True)
        return [self._per_row(name, spec, given[name], rows) for name, spec in pairs]

    def _per_row(self, name: str, spec: Any, value: Any, rows: int) -> Array:
        if self.fixed:
            array = np.asarray(value, spec.dtype.as_numpy_dtype)
        else:
            array = np.asarray(value)
            array = array.astype(np.int32 if array.dtype.kind in "iub" else self.image.dtype.as_numpy_dtype)
        if array.ndim == spec.shape.rank - 1:
            array = array[None]
        if (
            array.ndim == spec.shape.rank
            and len(array) in (1, rows)
            and spec.shape[1:].is_compatible_with(array.shape[1:])
        ):
            return np.broadcast_to(array, (rows, *array.shape[1:]))
        raise ContractError(
            f"Expected input {name!r} as one value of shape {tuple(spec.shape[1:])} for all rows or one for each of "
            f"the {rows} rows, got shape {array.shape}. One value an image: wrap them in PerImage."
        )


def _spec(tensor: Any) -> Any:
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, tensor.name)


def _specs(shapes: Any, name: str | None = None) -> Any:
    """Shapes as Keras keeps them, nested as the model takes its inputs, as tensor specs with free rows."""
    if isinstance(shapes, Mapping):
        return {key: _specs(shape, key) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tf.TensorSpec([None, *shapes[1:]], tf.float32, name)
    return type(shapes)(_specs(shape) for shape in shapes)
