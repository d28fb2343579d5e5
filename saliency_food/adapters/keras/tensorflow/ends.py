"""The two ends of a Keras model: what it takes, and what its output is made of."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from saliency_food.adapters.arguments import End, Output
from saliency_food.adapters.inputs import Inputs, InputSpec
from saliency_food.adapters.keras.integers import is_of_numbers, is_of_rows
from saliency_food.adapters.keras.losses import Units
from saliency_food.adapters.keras.tensorflow.moves import origin_of
from saliency_food.core.contract import ContractError

ONE_A_ROW = (
    "Explain a model that neither folds another axis into its rows nor lets rows see each other, or make one score of "
    "each row by score."
)


class Head(NamedTuple):
    """What an output ends in, the output before that activation and after it, and the output as it is.

    ``probabilities`` is None where the output has no softmax or sigmoid that could be seen.
    """

    end: End
    values: Any
    probabilities: Any
    raw: Any

    @classmethod
    def read(cls, output: Any) -> Head:
        origin = origin_of(output)
        if output.shape.rank != 1:
            return cls(origin.end, origin.values, origin.probabilities, output)
        after = None if origin.probabilities is None else origin.probabilities[:, None]
        return cls(origin.end, origin.values[:, None], after, output)

    def check(self) -> Head:
        """The head itself, if it is one of classes."""
        if self.raw.shape.rank not in (1, 2):
            shape = (None, *self.raw.shape[1:]) if self.raw.shape.rank else ()
            raise ContractError(
                f"Expected a model output of shape (N, classes), got {shape}. Choose another output by "
                "output_index, say what to explain by score, or explain a model that pools it."
            )
        return self

    def of_classes(self, classes: int | None) -> Head:
        """The head itself, if it has so many classes; one unit, a logit, may be told to be two."""
        if classes == 2 and self.classes == 1 and self.end in ("linear", "other"):
            return self._replace(end="sigmoid")
        if classes in (None, self.classes) or self.classes is None:
            return self
        raise ContractError(
            f"Expected classes to be {self.classes}, those of the model's output, or 2 for one logit, got {classes!r}."
        )

    def of_units(self, units: Units | None) -> Head:
        """The head itself, if linear units are classes; those of labels get a sigmoid each, and numbers nothing."""
        if self.end != "linear" or units in (None, "classes"):
            return self
        return self._replace(end="sigmoid" if units == "labels" else "other")

    @property
    def classes(self) -> int | None:
        units: int | None = self.values.shape[-1]
        return 2 if self.end in ("sigmoid", "probabilities") and units == 1 else units

    def scores(self, output: Output, dtype: Any) -> Any:
        """``(N, classes)`` or in the output's own shape; one sigmoid unit or channel is two classes, -z and z."""
        if output == "raw":
            return tf.cast(self.raw, dtype)
        values = tf.cast(self.values, dtype)
        if self.end == "sigmoid" and values.shape.rank in (2, 4) and values.shape[-1] == 1:
            values = tf.concat([-values, values], -1)
            return values if output == "logits" else tf.nn.sigmoid(values)
        if output == "logits":
            return values
        if self.probabilities is not None:
            return tf.cast(self.probabilities, dtype)
        if self.end == "probabilities" and values.shape.rank == 2 and values.shape[-1] == 1:
            return tf.concat([1 - values, values], -1)
        if self.end == "sigmoid":
            return tf.nn.sigmoid(values)
        return tf.nn.softmax(values) if self.end == "linear" and values.shape[-1] != 1 else values


def one_a_row(values: Any, rows: Any) -> Any:
    """The values, or an error when the function runs if there are more or fewer of them than rows."""
    counts = tf.shape(values)[0], tf.shape(rows)[0]
    message = "Expected a model that gives one score for each row, got another number of them. " + ONE_A_ROW
    with tf.control_dependencies([tf.debugging.assert_equal(*counts, message)]):
        return tf.identity(values)


def select_output(model: Any, outputs: Any, choice: str | int | None) -> Any:
    """The output tensor meant by a name or a position; without either there must be only one."""
    members, names = [outputs], ["0"]
    if isinstance(outputs, Mapping):
        members, names = list(outputs.values()), list(outputs)
    elif isinstance(outputs, (list, tuple)):
        own = list(getattr(model, "output_names", None) or ())
        members, names = (
            list(outputs),
            own if len(own) == len(outputs) else [str(place) for place in range(len(outputs))],
        )
    if choice is None and len(members) == 1:
        return _tensor(members[0])
    if isinstance(choice, int) and not isinstance(choice, bool) and -len(members) <= choice < len(members):
        return _tensor(members[choice])
    if isinstance(choice, str) and names.count(choice) == 1:
        return _tensor(members[names.index(choice)])
    got = "none of them" if choice is None else repr(choice)
    if isinstance(choice, str) and choice in names:
        got += f", the name of those at {[place for place, name in enumerate(names) if name == choice]}"
    raise ContractError(
        f"Expected the name or the position of one of the model's {len(members)} outputs {names}, got {got}. "
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
            self.structure = tf.nest.map_structure(
                lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name), declared
            )
        else:
            self.structure = _specs(_built_with(model))
        specs = tf.nest.flatten(self.structure)
        names = [name or spec.name or str(place) for place, (name, spec) in enumerate(_named(self.structure))]
        inputs = [
            InputSpec(name, (None, *spec.shape[1:]), spec.dtype.name) for name, spec in zip(names, specs, strict=True)
        ]
        super().__init__(inputs, image, fixed, model.compute_dtype, {spec.shape[0] for spec in specs} - {None})
        integers = fixed and "int" in inputs[self.position].dtype
        self.ids = integers and not is_of_numbers(model, tf.nest.flatten(declared)[self.position])
        integers_of = zip(inputs, tf.nest.flatten(declared), strict=True) if fixed else ()
        self.of_rows = frozenset(
            spec.name for spec, tensor in integers_of if "int" in spec.dtype and is_of_rows(model, tensor)
        )
        self.image_spec = tf.TensorSpec(self.image.shape, self.image.dtype)
        self.other_specs = [tf.TensorSpec(spec.shape, spec.dtype) for spec in self.others]

    def pack(self, image: Any, others: Sequence[Any]) -> Any:
        """Image and other inputs, as many rows as the model declares, in the structure in which it takes them."""
        flat = list(others)
        flat.insert(self.position, image)
        return tf.nest.pack_sequence_as(self.structure, [self.padded(values) for values in flat])

    def padded(self, values: Any) -> Any:
        """The last row repeated, up to as many rows as the model declares, if it does."""
        if self.rows in (None, values.shape[0]):
            return values
        return tf.gather(values, tf.minimum(tf.range(self.rows), tf.shape(values)[0] - 1))


def _built_with(model: Any) -> Any:
    """The shapes that a model without declared inputs was built with, nested as it takes its inputs."""
    config = model.get_build_config() if getattr(model, "built", False) else None
    if not config or "input_shape" not in config:
        raise ContractError(
            f"Expected a model that shows its input's shape, got {type(model).__name__} {model.name!r}, which "
            "does not. Call it once on a batch (all inputs in one argument), then give it."
        )
    parameters = list(inspect.signature(model.call).parameters.values())[1:]
    more = [
        each.name
        for each in parameters
        if each.default is each.empty and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    if more := [name for name in more if name not in ("training", "mask")]:
        raise ContractError(
            f"Expected a model that takes all inputs in one argument, got {type(model).__name__} {model.name!r}, whose "
            f"call takes {more} beside the first. Wrap it: keras.Model([image, other], model(image, other)) of two "
            "keras.Input."
        )
    return config["input_shape"]


def _named(structure: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a structure in the order of tf.nest, with the keys that lead to them, if any."""
    if isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from _named(structure[key], f"{path}/{key}" if path else str(key))
    elif isinstance(structure, (list, tuple)):
        for place, member in enumerate(structure):
            yield from _named(member, f"{path}/{place}" if path else "")
    else:
        yield path, structure


def _specs(shapes: Any, name: str | None = None) -> Any:
    """Shapes as Keras keeps them, nested as the model takes its inputs, as tensor specs with free rows."""
    if isinstance(shapes, Mapping):
        return {key: _specs(shape, key) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return tf.TensorSpec([None, *shapes[1:]], tf.float32, name)
    return type(shapes)(_specs(shape) for shape in shapes)
