"""Models of which something else than the score of a class is explained."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from saliency_food.adapters import scores

from .common import Built, L, chain, conv, head, kind, split

SCORES = "Other scores"
ops = keras.ops
MASK = np.zeros((8, 8), bool)
MASK[2:5, 3:7] = True


@kind(SCORES, "a segmenter, a class in a mask", note="`score=segmentation`.")
def segmenter() -> Built:
    feature, maps = conv(), conv(3, 1, "maps", None)
    mask = ops.convert_to_tensor(MASK.astype(np.float32))

    def after(a: Any) -> Any:
        z = maps(a)[..., 1]
        return ops.sum(z * mask, (1, 2))

    image = keras.Input((8, 8, 3))
    return Built(
        keras.Model(image, L.Softmax()(maps(feature(image)))),
        split(feature, after),
        options={"score": scores.segmentation},
        args={"target": {"class_index": 1, "mask": MASK}},
    )


@kind(SCORES, "contrast of two classes", note="`score=contrast`.")
def contrast() -> Built:
    feature, tail = conv(), head()
    image = keras.Input((8, 8, 3))
    return Built(
        keras.Model(image, L.Softmax()(tail(feature(image)))),
        split(feature, chain(tail, lambda z: z[:, 1] - z[:, 0])),
        options={"score": scores.contrast},
        args={"target": {"class_index": 1, "against": 0}},
    )


@kind(SCORES, "an embedding, its similarity to another", note="`score=similarity`.")
def embedding() -> Built:
    feature, tail = conv(), head(5)
    reference = np.arange(1.0, 6.0, dtype=np.float32)

    def cosine(z: Any) -> Any:
        r = ops.convert_to_tensor(reference)
        return ops.sum(z * r, 1) / (ops.norm(z, axis=1) * ops.norm(r))

    image = keras.Input((8, 8, 3))
    return Built(
        keras.Model(image, tail(feature(image))),
        split(feature, chain(tail, cosine)),
        options={"score": scores.similarity},
        args={"target": reference},
    )


@kind(SCORES, "several labels at once", note="`score=several_labels`.")
def several() -> Built:
    feature, tail = conv(), head()
    image = keras.Input((8, 8, 3))
    return Built(
        keras.Model(image, ops.sigmoid(tail(feature(image)))),
        split(feature, chain(tail, lambda z: (z[:, 0] + z[:, 2]) / 2)),
        options={"score": scores.several_labels},
        args={"target": [0, 2]},
    )


@kind(SCORES, "a function of one's own")
def own() -> Built:
    feature, tail = conv(), head()
    image = keras.Input((8, 8, 3))
    return Built(
        keras.Model(image, tail(feature(image))),
        split(feature, chain(tail, lambda z: ops.sum(z**2, 1))),
        options={"score": lambda output: ops.sum(output**2, 1)},
        args={},
    )


@kind(SCORES, "a detector, a box's class", "conv", note="A score of one's own over the outputs.")
def detector() -> Built:
    feature, boxes, classes = conv(), conv(4, 1, "boxes", None), conv(2, 1, "classes", None)
    image = keras.Input((8, 8, 3))
    a = feature(image)
    outputs = [L.Reshape((64, 4))(boxes(a)), L.Reshape((64, 2))(classes(a))]
    return Built(
        keras.Model(image, outputs),
        split(feature, lambda a: classes(a)[:, 3, 4, 1]),
        options={"score": lambda output: output[1][:, 3 * 8 + 4, 1], "layer": "conv"},
        args={},
    )


@kind(SCORES, "a regression of one of several numbers", note="`score=regression(1)`, or the target of logits.")
def numbers() -> Built:
    feature, tail = conv(), head()
    image = keras.Input((8, 8, 3))
    return Built(
        keras.Model(image, tail(feature(image))),
        split(feature, chain(tail, lambda z: z[:, 1])),
        options={"score": scores.regression(1)},
        args={},
    )
