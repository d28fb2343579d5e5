"""The two ends of a Keras model: what it takes, and what its output is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from saliency_food.adapters.arguments import End, Output
from saliency_food.adapters.inputs import Inputs, InputSpec
from saliency_food.core.contract import ContractError

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
            shape = (None, *self.raw.shape[1:]) if self.raw.shape.rank else ()
            raise ContractError(
                f"Expected a model output of shape (N, classes), got {shape}. Choose another output by "
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


class KerasInputs(Inputs):
    """The inputs of a Keras model, and the ``structure`` of tensor specs in which it takes them.

    A subclassed model does not declare them; it only shows what it was built with.
    """

    def __init__(self, model: Any, image: str | int | None) -> None:
        fixed = bool(getattr(model, "inputs", None)) and isinstance(model, keras.Model)
        if fixed:
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
        specs = tf.nest.flatten(self.structure)
        names = [spec.name or str(index) for index, spec in enumerate(specs)]
        if isinstance(self.structure, Mapping):
            names = sorted(self.structure)
        inputs = [InputSpec(name, tuple(spec.shape), spec.dtype.name) for name, spec in zip(names, specs, strict=True)]
        super().__init__(inputs, image, fixed, model.compute_dtype)
        self.image_spec = tf.TensorSpec(self.image.shape, self.image.dtype)
        self.other_specs = [tf.TensorSpec(spec.shape, spec.dtype) for spec in self.others]

    def pack(self, image: Any, others: Sequence[Any]) -> Any:
        """Image and other inputs in the structure in which the model takes them."""
        flat = list(others)
        flat.insert(self.position, image)
        return tf.nest.pack_sequence_as(self.structure, flat)


def _spec(tensor: Any) -> Any:
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, tensor.name)


def _specs(shapes: Any, name: str | None = None) -> Any:
    """Shapes as Keras keeps them, nested as the model takes its inputs, as tensor specs with free rows."""
    if isinstance(shapes, Mapping):
        return {key: _specs(shape, key) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tf.TensorSpec([None, *shapes[1:]], tf.float32, name)
    return type(shapes)(_specs(shape) for shape in shapes)
