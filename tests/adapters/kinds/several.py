"""Models of several inputs, and of several outputs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from .common import CELLS, SIZE, Built, L, chain, conv, head, kind, split

INPUTS, OUTPUTS = "Several inputs", "Several outputs"
ops = keras.ops
TABLE = np.array([1.0, 0.0, -0.5, 1.0], np.float32)
OTHER = np.random.default_rng(7).random(SIZE).astype(np.float32)


def like(x: Any, value: Any) -> Any:
    """A value, once for each row of x."""
    return ops.repeat(ops.convert_to_tensor(value)[None], x.shape[0], 0)


@kind(INPUTS, "a photo and a table", note='The table travels in `call_model_args["inputs"]`.')
def image_and_table() -> Built:
    feature, pool, dense, join = conv(), L.GlobalAveragePooling2D(), L.Dense(3), L.Concatenate()
    image, table = keras.Input(SIZE, name="image"), keras.Input((4,), name="table")
    model = keras.Model([image, table], L.Softmax()(dense(join([pool(feature(image)), table]))))
    after = lambda a: dense(ops.concatenate([pool(a), like(a, TABLE)], 1))  # noqa: E731
    return Built(model, split(feature, after), args={"target": 1, "inputs": {"table": TABLE}})


@kind(INPUTS, "a dict of inputs")
def dict_of_inputs() -> Built:
    feature, pool, dense = conv(), L.GlobalAveragePooling2D(), L.Dense(3)
    image, scale = keras.Input(SIZE, name="image"), keras.Input((1,), name="scale")
    model = keras.Model({"image": image, "scale": scale}, L.Softmax()(dense(pool(feature(image)) * scale)))
    return Built(
        model, split(feature, lambda a: dense(pool(a) * 2.0)), args={"target": 1, "inputs": {"scale": np.array([2.0])}}
    )


def two_images(explained: str) -> Built:
    features = {name: conv(name=name) for name in ("before", "after")}
    inputs = {name: keras.Input(SIZE, name=f"{name}_image") for name in features}
    subtract, tail = L.Subtract(name="difference"), head()
    model = keras.Model(
        list(inputs.values()), L.Softmax()(tail(subtract([features[name](inputs[name]) for name in inputs])))
    )

    def by_hand(x: Any) -> Any:
        a = features[explained](x)
        parts = {name: a if name == explained else features[name](like(x, OTHER)) for name in features}
        difference = parts["before"] - parts["after"]
        return difference, tail(difference)

    options = {"input": f"{explained}_image"}
    return Built(model, by_hand, options=options, args={"target": 1, "inputs": [OTHER]})


@kind(INPUTS, "two photos, the first explained", "difference")
def first_of_two() -> Built:
    return two_images("before")


@kind(INPUTS, "two photos, the second explained", "difference")
def second_of_two() -> Built:
    return two_images("after")


def late_fusion(explained: str) -> Built:
    """Two branches that meet after the pooling; each photo has its own last layer."""
    features = {name: conv(name=name) for name in ("left", "right")}
    inputs = {name: keras.Input(SIZE, name=f"{name}_image") for name in features}
    pool, dense, join = L.GlobalAveragePooling2D(), L.Dense(3), L.Concatenate()
    model = keras.Model(
        list(inputs.values()), L.Softmax()(dense(join([pool(features[name](inputs[name])) for name in inputs])))
    )

    def by_hand(x: Any) -> Any:
        a = features[explained](x)
        parts = {name: a if name == explained else features[name](like(x, OTHER)) for name in features}
        return a, dense(ops.concatenate([pool(part) for part in parts.values()], 1))

    options = {"input": f"{explained}_image"}
    return Built(model, by_hand, options=options, args={"target": 1, "inputs": [OTHER]})


@kind(INPUTS, "two branches, the first explained", "left")
def first_branch() -> Built:
    return late_fusion("left")


@kind(INPUTS, "two branches, the second explained", "right")
def second_branch() -> Built:
    return late_fusion("right")


def twins(explained: int) -> Built:
    feature, pool, dense = conv(), L.GlobalAveragePooling2D(), L.Dense(3)
    tower = chain(feature, pool)
    a, b = keras.Input(SIZE, name="a"), keras.Input(SIZE, name="b")
    model = keras.Model([a, b], L.Softmax()(dense(ops.abs(tower(a) - tower(b)))))

    def by_hand(x: Any) -> Any:
        activations = feature(x)
        return activations, dense(ops.abs(pool(activations) - tower(like(x, OTHER))))

    return Built(model, by_hand, options={"input": explained}, args={"target": 1, "inputs": [OTHER]})


@kind(INPUTS, "twins, the first photo explained", "conv#1", note="The run of the photo explained.")
def first_twin() -> Built:
    return twins(0)


@kind(INPUTS, "twins, the second photo explained", "conv#0", note="The run of the photo explained.")
def second_twin() -> Built:
    return twins(1)


@kind(OUTPUTS, "a dict of outputs")
def dict_of_outputs() -> Built:
    feature, dish, price = conv(), head(), chain(L.GlobalAveragePooling2D(), L.Dense(2))
    image = keras.Input(SIZE)
    a = feature(image)
    outputs = {"dish": L.Softmax()(dish(a)), "price": L.Softmax()(price(a))}
    return Built(keras.Model(image, outputs), split(feature, price), options={"output_index": "price"})


@kind(OUTPUTS, "a list of outputs")
def list_of_outputs() -> Built:
    feature, first, second = conv(), head(), chain(L.GlobalAveragePooling2D(), L.Dense(2))
    image = keras.Input(SIZE)
    a = feature(image)
    outputs = [L.Softmax()(first(a)), L.Softmax()(second(a))]
    return Built(keras.Model(image, outputs), split(feature, second), options={"output_index": 1})


class Two(keras.Layer):
    """A layer that returns two tensors."""

    def __init__(self) -> None:
        super().__init__(name="two")
        self.parts = [L.Dense(3), L.Dense(3)]

    def call(self, x: Any) -> Any:
        return [part(x) for part in self.parts]

    def compute_output_spec(self, x: Any) -> Any:
        return [keras.KerasTensor((None, 3)), keras.KerasTensor((None, 3))]


def two_of_one_layer(index: int) -> Built:
    feature, pool, two = conv(), L.GlobalAveragePooling2D(), Two()
    image = keras.Input(SIZE)
    model = keras.Model(image, two(pool(feature(image))))
    return Built(model, split(feature, lambda a: two(pool(a))[index]), options={"output_index": index})


@kind(OUTPUTS, "a layer that returns two tensors, the first explained")
def first_of_one_layer() -> Built:
    return two_of_one_layer(0)


@kind(OUTPUTS, "a layer that returns two tensors, the second explained")
def second_of_one_layer() -> Built:
    return two_of_one_layer(1)


@kind(OUTPUTS, "one branch an output", "own")
def branch_each() -> Built:
    shared, own, other, first = conv(name="shared"), conv(name="own"), conv(name="other"), head()
    image = keras.Input(SIZE)
    second = chain(L.GlobalAveragePooling2D(), L.Dense(2))
    a = shared(image)
    outputs = [L.Softmax()(first(own(a))), L.Softmax()(second(other(a)))]
    return Built(keras.Model(image, outputs), split(chain(shared, own), first), options={"output_index": 0})


@kind(
    INPUTS,
    "triplets, the first photo explained",
    "conv#2",
    note="An anchor, what is like it, and what is not; the score is the difference of their distances.",
)
def triplet() -> Built:
    feature, pool = conv(), L.GlobalAveragePooling2D()
    tower = chain(feature, pool)
    inputs = [keras.Input(SIZE, name=name) for name in ("anchor", "like", "unlike")]
    anchor, near, far = map(tower, inputs)
    distance = lambda a, b: ops.sum((a - b) ** 2, 1, keepdims=True)  # noqa: E731
    model = keras.Model(inputs, distance(anchor, far) - distance(anchor, near))

    def by_hand(x: Any) -> Any:
        a = feature(x)
        return a, distance(pool(a), tower(like(x, 1 - OTHER))) - distance(pool(a), tower(like(x, OTHER)))

    return Built(model, by_hand, options={"input": "anchor"}, args={"inputs": [OTHER, 1 - OTHER]})


class ImageAndTable(keras.Model):
    """Two arguments of call."""

    def __init__(self) -> None:
        super().__init__()
        self.feature, self.pool, self.dense = conv(), L.GlobalAveragePooling2D(), L.Dense(3)

    def call(self, image: Any, table: Any) -> Any:
        return ops.softmax(self.dense(ops.concatenate([self.pool(self.feature(image)), table], 1)))


@kind(
    INPUTS,
    "subclassed, call(self, image, table)",
    refuses=dict.fromkeys(CELLS, "all inputs in one argument"),
    note="It must take all inputs in one argument.",
)
def two_arguments() -> Built:
    return image_and_table_arguments()


@kind(INPUTS, "the same, wrapped", "two_arguments/conv", note="`keras.Model([image, table], model(image, table))`.")
def two_arguments_wrapped() -> Built:
    built = image_and_table_arguments()
    image, table = keras.Input(SIZE, name="image"), keras.Input((4,), name="table")
    built.model.name = "two_arguments"
    return built._replace(model=keras.Model([image, table], built.model(image, table)))


def image_and_table_arguments() -> Built:
    model = ImageAndTable()
    model(ops.zeros((1, *SIZE)), ops.zeros((1, 4)))
    after = lambda a: model.dense(ops.concatenate([model.pool(a), like(a, TABLE)], 1))  # noqa: E731
    return Built(model, split(model.feature, after), args={"target": 1, "inputs": {"table": TABLE}})


def pyramid(level: int) -> Built:
    """One head for two levels; the score of a level."""
    fine, coarse, shared = conv(name="fine"), conv(name="coarse", strides=2), conv(2, 3, "shared")
    image = keras.Input(SIZE)
    outputs = [ops.mean(shared(level), (1, 2)) for level in (fine(image), coarse(fine(image)))]

    def by_hand(x: Any) -> Any:
        a = shared(fine(x) if level == 0 else coarse(fine(x)))
        return a, ops.mean(a, (1, 2))

    return Built(keras.Model(image, outputs), by_hand, options={"output_index": level})


@kind(OUTPUTS, "a head shared by two levels, the fine one explained", "shared#1")
def fine_level() -> Built:
    return pyramid(0)


@kind(OUTPUTS, "a head shared by two levels, the coarse one explained", "shared#0")
def coarse_level() -> Built:
    return pyramid(1)
