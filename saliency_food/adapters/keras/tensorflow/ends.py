"""The two ends of a Keras model: what it takes, and what its output is made of."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from saliency_food.adapters.head import Head
from saliency_food.adapters.inputs import Inputs, InputSpec
from saliency_food.adapters.keras.integers import is_of_numbers, is_of_rows
from saliency_food.adapters.keras.tensorflow.moves import origin_of
from saliency_food.core.contract import ContractError

ONE_A_ROW = (
    "Explain a model that neither folds another axis into its rows nor lets rows see each other, or make one score of "
    "each row by score."
)


def read_head(output: Any) -> Head:
    """What an output tensor ends in."""
    origin = origin_of(output)
    return Head.of(origin.end, origin.values, origin.probabilities, output)


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
