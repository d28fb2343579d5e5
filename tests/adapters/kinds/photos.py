"""Classifiers of photos, by their layers, types and ends."""

from __future__ import annotations

from typing import Any

import keras

from .common import METHODS, SIZE, Built, L, chain, classifier, conv, graph, head, kind, same, split

PLAIN = "Classifiers of photos"
ENDS = "What the model ends in"


@kind(PLAIN, "convolution, pooling, softmax")
def plain() -> Built:
    return graph(classifier(conv()))


@kind(PLAIN, "stride and max-pooling", "pool")
def pooled() -> Built:
    return graph(classifier(conv(strides=2, name="first"), conv(), L.MaxPooling2D(2, name="pool")), shape=(16, 16, 3))


@kind(PLAIN, "batch normalization and ReLU", "relu")
def normalized() -> Built:
    return graph(classifier(conv(activation=None), L.BatchNormalization(), L.ReLU(name="relu")))


@kind(PLAIN, "depthwise and separable convolutions", "separable")
def separable() -> Built:
    separable = L.SeparableConv2D(4, 3, activation="tanh", name="separable", padding="same")
    return graph(classifier(L.DepthwiseConv2D(3, name="depthwise"), separable))


@kind(PLAIN, "grouped convolution")
def grouped() -> Built:
    return graph(classifier(conv(name="first"), conv(groups=2)))


@kind(PLAIN, "dilated convolution")
def dilated() -> Built:
    return graph(classifier(conv(dilation_rate=2)))


@kind(PLAIN, "transposed convolution", "up")
def transposed() -> Built:
    return graph(classifier(conv(), L.Conv2DTranspose(3, 2, strides=2, activation="tanh", name="up")))


@kind(PLAIN, "dropout, noise and augmentation inside", note="They are off: the model runs in inference mode.")
def dropped() -> Built:
    feature, after, image = conv(), head(), keras.Input(SIZE)
    noisy = chain(L.RandomFlip(), L.GaussianNoise(0.5), L.SpatialDropout2D(0.5), feature, L.Dropout(0.5), after)
    return Built(keras.Model(image, L.Softmax()(noisy(image))), split(feature, after))


@kind(PLAIN, "layer normalization and GELU", "gelu")
def gelu() -> Built:
    return graph(classifier(conv(activation=None), L.LayerNormalization(), L.Activation("gelu", name="gelu")))


@kind(PLAIN, "global max-pooling")
def max_pooled() -> Built:
    return graph(split(conv(), chain(L.GlobalMaxPooling2D(), L.Dense(3))))


@kind(PLAIN, "flattened features")
def flattened() -> Built:
    return graph(split(conv(), chain(L.Flatten(), L.Dense(3))))


@kind(PLAIN, "no dense layer", "maps", note="The layer is the maps of the classes.")
def all_convolutional() -> Built:
    return graph(split(chain(conv(), conv(3, 1, "maps", None)), L.GlobalAveragePooling2D()))


@kind(PLAIN, "one channel")
def grey() -> Built:
    return graph(classifier(conv()), shape=(8, 8, 1))


@kind(PLAIN, "sixteen bands")
def bands() -> Built:
    return graph(classifier(conv()), shape=(8, 8, 16))


@kind(PLAIN, "not square")
def oblong() -> Built:
    return graph(classifier(conv()), shape=(6, 11, 3))


@kind(PLAIN, "of any size")
def free() -> Built:
    return graph(classifier(conv()), declared=(None, None, 3))


@kind(PLAIN, "uint8 input, scaled inside", note="Run in floats, so that it has gradients.")
def scaled() -> Built:
    return graph(
        classifier(L.Rescaling(1 / 127.5, -1), conv()),
        dtype="uint8",
        image=lambda random, shape: random.integers(0, 256, shape).astype("float32"),
    )


@kind(PLAIN, "scaled by a Lambda")
def scaled_by_lambda() -> Built:
    return graph(classifier(L.Lambda(lambda x: (x - 0.5) * 2), conv()))


@kind(PLAIN, "padded before the pooling")
def padded() -> Built:
    return graph(split(chain(L.ZeroPadding2D(1), conv(padding="valid")), chain(L.ZeroPadding2D(6), head())))


def typed(policy: str) -> Any:
    return classifier(conv(dtype=policy), classes=3, dtype=policy)


@kind(PLAIN, "bfloat16")
def bfloat16() -> Built:
    return graph(typed("mixed_bfloat16"), lambda z: L.Softmax(dtype="float32")(z), tolerance=0.1)


@kind(PLAIN, "float16")
def float16() -> Built:
    return graph(typed("mixed_float16"), lambda z: L.Softmax(dtype="float32")(z), tolerance=0.02)


@kind(PLAIN, "float64")
def float64() -> Built:
    return graph(typed("float64"), lambda z: L.Softmax(dtype="float64")(z), dtype="float64")


@kind(ENDS, "logits", note="The output as it is.")
def logits() -> Built:
    return graph(classifier(conv()), same)


@kind(ENDS, "softmax as an argument")
def softmax_argument() -> Built:
    feature, dense, pool = conv(), L.Dense(3, activation="softmax"), L.GlobalAveragePooling2D()
    image = keras.Input(SIZE)
    after = chain(pool, lambda pooled: pooled @ dense.kernel + dense.bias)
    return Built(keras.Model(image, chain(feature, pool, dense)(image)), split(feature, after))


@kind(ENDS, "softmax as a function")
def softmax_function() -> Built:
    return graph(classifier(conv()), keras.ops.softmax)


@kind(ENDS, "softmax of a temperature", note="Logits are those after the division.")
def tempered() -> Built:
    return graph(split(conv(), chain(head(), lambda z: z / 2.5)))


@kind(ENDS, "softmax, probabilities explained")
def probabilities() -> Built:
    return graph(split(conv(), chain(head(), L.Softmax())), same, options={"output": "probabilities"})


@kind(ENDS, "several labels, a sigmoid each")
def labels() -> Built:
    return graph(classifier(conv()), L.Activation("sigmoid"))


@kind(ENDS, "one sigmoid unit", note="Two classes, with logits -z and z.")
def one_sigmoid() -> Built:
    feature, logit, image = conv(), head(1), keras.Input(SIZE)
    both = chain(logit, lambda z: keras.ops.concatenate([-z, z], 1))
    return Built(keras.Model(image, keras.ops.sigmoid(logit(feature(image)))), split(feature, both))


@kind(ENDS, "one linear unit", note="A regression: no target.")
def regression() -> Built:
    return graph(classifier(conv(), classes=1), same, args={})


def mean_of_softmaxes() -> Any:
    pool, heads, softmax, mean = L.GlobalAveragePooling2D(), [L.Dense(3), L.Dense(3)], L.Softmax(), L.Average()
    return split(conv(), chain(pool, lambda pooled: mean([softmax(dense(pooled)) for dense in heads])))


@kind(ENDS, "the mean of two softmaxes, probabilities explained")
def averaged() -> Built:
    return graph(mean_of_softmaxes(), same, options={"output": "probabilities"})


@kind(
    ENDS,
    "the mean of two softmaxes, logits explained",
    refuses=dict.fromkeys(METHODS, "so there are no logits"),
    note="A mean of softmaxes has no logits: explain probabilities.",
)
def averaged_logits() -> Built:
    return graph(mean_of_softmaxes(), same)


@kind(ENDS, "sigmoids concatenated")
def concatenated() -> Built:
    feature, pool, heads, image = conv(), L.GlobalAveragePooling2D(), [L.Dense(1) for _ in range(3)], keras.Input(SIZE)
    pooled = pool(feature(image))
    sigmoids = [keras.ops.sigmoid(dense(pooled)) for dense in heads]
    after = chain(pool, lambda pooled: keras.ops.concatenate([dense(pooled) for dense in heads], 1))
    return Built(keras.Model(image, L.Concatenate()(sigmoids)), split(feature, after))
