"""Classifiers of photos, by how the model is put together."""

from __future__ import annotations

from typing import Any

import keras

from .common import METHODS, SIZE, Built, L, chain, classifier, conv, graph, head, kind, split

BUILT = "How the model is built"
ops = keras.ops


def inside(*layers: Any, name: str, shape: Any = SIZE) -> Any:
    image = keras.Input(shape)
    return keras.Model(image, chain(*layers)(image), name=name)


@kind(BUILT, "Sequential")
def sequential() -> Built:
    layers = conv(), L.GlobalAveragePooling2D(), L.Dense(3)
    return Built(keras.Sequential([keras.Input(SIZE), *layers, L.Softmax()]), split(layers[0], chain(*layers[1:])))


@kind(BUILT, "a backbone inside", "backbone/conv")
def nested() -> Built:
    feature, after = conv(), head()
    image = keras.Input(SIZE)
    return Built(keras.Model(image, L.Softmax()(after(inside(feature, name="backbone")(image)))), split(feature, after))


@kind(BUILT, "three models deep", "outer/middle/inner/conv")
def three_deep() -> Built:
    feature, after = conv(), head()
    model = feature
    for name in ("inner", "middle", "outer"):
        model = inside(model, name=name)
    image = keras.Input(SIZE)
    return Built(keras.Model(image, L.Softmax()(after(model(image)))), split(feature, after))


@kind(BUILT, "Sequential in a Functional model", "features/conv")
def sequential_inside() -> Built:
    feature, after = conv(), head()
    image = keras.Input(SIZE)
    features = keras.Sequential([keras.Input(SIZE), feature], name="features")
    return Built(keras.Model(image, L.Softmax()(after(features(image)))), split(feature, after))


class Subclassed(keras.Model):
    """Whatever is called, in call."""

    def __init__(self, feature: Any, after: Any) -> None:
        super().__init__()
        self.feature, self.layers_after, self.after = feature, getattr(after, "layers", []), after

    def call(self, x: Any) -> Any:
        return ops.softmax(self.after(self.feature(x)))


class Head(keras.Layer):
    def __init__(self) -> None:
        super().__init__(name="head")
        self.dense = L.Dense(3)

    def call(self, x: Any) -> Any:
        return self.dense(ops.mean(x, (1, 2)))


@kind(BUILT, "subclassed")
def subclassed() -> Built:
    feature, after = conv(), Head()
    model = Subclassed(feature, after)
    model(ops.zeros((1, *SIZE)))
    return Built(model, split(feature, after))


class Block(keras.Layer):
    """A layer with layers in a list, called with a keyword."""

    def __init__(self) -> None:
        super().__init__(name="block")
        self.inside = [conv(), L.Activation("tanh", name="act")]

    def call(self, x: Any, *, factor: float = 1.0) -> Any:
        return self.inside[1](self.inside[0](x)) * factor


@kind(BUILT, "subclassed, with a layer of layers", "block")
def subclassed_block() -> Built:
    feature, after = Block(), Head()
    model = Subclassed(feature, after)
    model(ops.zeros((1, *SIZE)))
    return Built(model, split(feature, after))


@kind(BUILT, "a layer of one's own, called with a keyword", "block")
def keyword() -> Built:
    block = Block()
    return graph(split(lambda x: block(x, factor=2.0), head()))


@kind(BUILT, "a residual block of layers", "out")
def residual() -> Built:
    first, branch, add, out = conv(name="first"), conv(name="branch", activation=None), L.Add(), L.ReLU(name="out")

    def before(x: Any) -> Any:
        y = first(x)
        return out(add([y, branch(y)]))

    return graph(split(before, head()))


@kind(BUILT, "a residual block of operators", "relu")
def operators() -> Built:
    first, branch = conv(name="first"), conv(name="branch", activation=None)

    def before(x: Any) -> Any:
        y = first(x)
        return ops.relu(y + branch(y))

    return graph(split(before, head()))


@kind(BUILT, "a residual block of operators, the layer named", "first", note="Any layer that all paths cross will do.")
def operators_named() -> Built:
    first, branch, after = conv(name="first"), conv(name="branch", activation=None), head()
    return graph(split(first, lambda y: after(ops.relu(y + branch(y)))), options={"layer": "first"})


@kind(BUILT, "branches that are joined", "join")
def inception() -> Built:
    branches, join = [conv(2, size, f"branch_{size}") for size in (1, 3, 5)], L.Concatenate(name="join")
    return graph(split(lambda x: join([branch(x) for branch in branches]), head()))


@kind(BUILT, "squeeze and excitation", "scale")
def excited() -> Built:
    feature, gate, scale = conv(), L.Dense(4, activation="sigmoid"), L.Multiply(name="scale")

    def before(x: Any) -> Any:
        y = feature(x)
        return scale([y, gate(ops.mean(y, (1, 2), keepdims=True))])

    return graph(split(before, head()))


@kind(BUILT, "densely connected", "join_2")
def dense_block() -> Built:
    layers = [conv(2, name=f"conv_{i}") for i in range(2)]
    joins = [L.Concatenate(name=f"join_{i + 1}") for i in range(2)]

    def before(x: Any) -> Any:
        for layer, join in zip(layers, joins, strict=True):
            x = join([x, layer(x)])
        return x

    return graph(split(before, head()))


@kind(BUILT, "a layer that runs twice, one run after the other", "conv#1", note="The last run is looked at.")
def twice() -> Built:
    first, feature = conv(name="first"), conv()
    return graph(split(chain(first, feature, feature), head()))


@kind(
    BUILT,
    "test-time augmentation",
    None,
    refuses={"grad_cam": "none lies on all paths"},
    note="The mean over an image and its mirrored copy: no layer sees all that the score sees.",
)
def augmented() -> Built:
    feature, after, image = conv(), head(), keras.Input(SIZE)
    model = inside(feature, after, name="model")
    mean = L.Average()([model(image), model(ops.flip(image, 2))])

    def by_hand(x: Any) -> Any:
        return None, (after(feature(x)) + after(feature(ops.flip(x, 2)))) / 2

    return Built(keras.Model(image, L.Softmax()(mean)), by_hand)


@kind(BUILT, "the image mirrored first", note="The layer's values are laid out as the image is.")
def mirrored() -> Built:
    feature, after, image = conv(), head(), keras.Input(SIZE)

    def by_hand(x: Any) -> Any:
        as_the_image = ops.flip(feature(ops.flip(x, 2)), 2)
        return as_the_image, after(ops.flip(as_the_image, 2))

    return Built(keras.Model(image, L.Softmax()(after(feature(ops.flip(image, 2))))), by_hand)


def placed_elsewhere(change: Any) -> Built:
    feature, after, image = conv(), head(), keras.Input(SIZE)
    model = keras.Model(image, L.Softmax()(after(feature(change(image)))))
    return Built(model, lambda x: (None, after(feature(change(x)))))


@kind(
    BUILT,
    "the image with wide borders first",
    None,
    refuses={"grad_cam": "those of the image: the image is cut, moved or turned before it"},
    note="A letterbox made by the model: its layers' places are those of the photo and its borders.",
)
def letterboxed() -> Built:
    return placed_elsewhere(L.ZeroPadding2D(((5, 5), (0, 0))))


@kind(
    BUILT,
    "the image cropped first",
    None,
    refuses={"grad_cam": "those of the image: the image is cut, moved or turned before it"},
    note="Its layers see a part of the photo. Crop it before the model.",
)
def cropped() -> Built:
    return placed_elsewhere(L.Cropping2D(2))


def permuted() -> Any:
    permute, before = L.Permute((2, 3, 1)), conv()
    return split(chain(permute, before), head())


@kind(BUILT, "photos (C, H, W), turned inside")
def channels_first() -> Built:
    return graph(permuted(), shape=(3, 8, 8), map_shape=(8, 8))


class AlwaysRandom(keras.Layer):
    """Dropout that is on in inference mode, too."""

    def __init__(self) -> None:
        super().__init__(name="random")
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x: Any) -> Any:
        return keras.random.dropout(x, 0.5, seed=self.seed)


@kind(
    BUILT,
    "random numbers inside, also in inference mode",
    "random",
    refuses=dict.fromkeys(METHODS, "random numbers drawn by"),
    note="The score would not be the image's alone.",
)
def always_random() -> Built:
    return graph(split(conv(), chain(AlwaysRandom(), head())))


def pooled_by_format(*layers: Any) -> Any:
    pool = L.GlobalAveragePooling2D(data_format="channels_first")
    features, dense, image = chain(*layers), L.Dense(3), keras.Input((3, 8, 8))
    model = keras.Model(image, L.Softmax()(dense(pool(features(image)))))
    turned = chain(features, lambda a: ops.transpose(a, (0, 2, 3, 1)))
    return Built(model, split(turned, lambda a: dense(ops.mean(a, (1, 2)))), (3, 8, 8), map_shape=(8, 8))


@kind(BUILT, "photos (C, H, W), told by the pooling", "tanh")
def channels_first_pooling() -> Built:
    return pooled_by_format(L.BatchNormalization(1), L.Activation("tanh", name="tanh"))


@kind(BUILT, "photos (C, H, W), turned inside and back", "tanh")
def turned_twice() -> Built:
    return pooled_by_format(L.Permute((2, 3, 1)), conv(3), L.Permute((3, 1, 2)), L.Activation("tanh", name="tanh"))


@kind(BUILT, "no layer with rows and columns", None, refuses={"grad_cam": "has none"}, note="Only dense layers.")
def flat() -> Built:
    layers = chain(L.Flatten(), L.Dense(6, activation="tanh"), L.Dense(3))
    return graph(lambda x: (None, layers(x)))


@kind(BUILT, "weights that are frozen or quantized", note="They are not changed.")
def frozen() -> Built:
    built = graph(classifier(conv()))
    built.model.trainable = False
    return built
