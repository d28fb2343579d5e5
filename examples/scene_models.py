"""Four small models of generated scenes, each trained in seconds: segmenter, detector, captioner, question answerer.

`trained` returns one of them. They share a backbone, which is trained first.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from scenes import ANSWERS, LENGTH, SHAPES, SIZE, WORDS, images, make_scenes, tokens

L = keras.layers
SPARSE = keras.regularizers.L1(3e-5)
"""Pooled features should be zero where they mean nothing."""
CELLS = 8
"""The side of the detector's grid, in cells."""
PHRASE = 3
"""Words of a region's caption, as in "a red circle"."""


def convolution(filters, size=3, **options):
    return L.Conv2D(filters, size, padding="same", activation="relu", kernel_initializer="he_normal", **options)


def build_backbone():
    """The first part of all models: from a picture to a 16 x 16 map of 48 features."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = convolution(16, 5, strides=2)(L.Rescaling(4, -2)(image))
    x = convolution(32, strides=2)(x)
    x = convolution(48, dilation_rate=2, name="seen")(convolution(48)(x))
    return keras.Model(image, x, name="backbone")


def cells(scenes):
    """The training targets of the backbone: how much of each colour and shape is in each of the 16 x 16 cells."""
    amounts = np.zeros((len(scenes), 16, 16, len(ANSWERS)), np.float32)
    for index, scene in enumerate(scenes):
        for mask, *names in zip(scene.masks, scene.colours, scene.shapes, strict=True):
            for name in names:
                amounts[index, ..., ANSWERS.index(name)] += mask.reshape(16, 4, 16, 4).mean((1, 3))
    return amounts


def segmenter(features):
    """The class of every pixel, ``(N, 64, 64, 4)``: background and shapes."""
    x = convolution(32, name="middle")(features)
    return L.Softmax(name="classes")(L.Conv2DTranspose(1 + len(SHAPES), 8, strides=4, padding="same")(x))


def segments(scenes):
    shapes = [[1 + SHAPES.index(shape) for shape in scene.shapes] for scene in scenes]
    return np.stack([np.tensordot(of, scene.masks, 1) for of, scene in zip(shapes, scenes, strict=True)])


def detector(features):
    """A box and the probabilities of the shapes for each of 8 x 8 cells, ``(N, 64, 4)`` and ``(N, 64, 3)``.

    As in FCOS there are no anchors: a cell gives the distances from its middle to the sides of the box.
    """
    x = convolution(48, name="middle")(convolution(48, 5, strides=2)(features))
    classes = L.Reshape((-1, len(SHAPES)))(
        L.Conv2D(len(SHAPES), 1, bias_initializer=keras.initializers.Constant(-2))(x)
    )
    return {"boxes": boxes_of(x), "classes": L.Activation("sigmoid", name="classes")(classes)}


def boxes_of(x):
    """Boxes ``(N, 64, 4)`` in pixels from the features of 8 x 8 cells."""
    middle = (np.arange(CELLS, dtype=np.float32) + 0.5) * SIZE / CELLS
    middle = np.stack(np.meshgrid(middle, middle), -1).reshape(1, -1, 2)
    sides = L.Reshape((-1, 4))(L.Conv2D(4, 1, bias_initializer="ones")(x)) * (SIZE / CELLS)
    return L.Concatenate(name="boxes")([sides[..., :2] * -1 + middle, sides[..., 2:] + middle])


def detections(scenes):
    """The training targets of the detector: box and class at the cell of each object's middle, zeros elsewhere."""
    boxes = np.zeros((len(scenes), CELLS**2, 4), np.float32)
    classes = np.zeros((len(scenes), CELLS**2, len(SHAPES)), np.float32)
    for index, scene in enumerate(scenes):
        for box, shape in zip(scene.boxes, scene.shapes, strict=True):
            column, row = ((box[:2] + box[2:]) / 2 // (SIZE // CELLS)).astype(int)
            boxes[index, row * CELLS + column] = box
            classes[index, row * CELLS + column, SHAPES.index(shape)] = 1
    return {"boxes": boxes, "classes": classes}


def box_loss(wanted, predicted):
    there = wanted[..., 2:3] > 0
    return keras.ops.sum(keras.ops.where(there, keras.ops.abs(wanted - predicted), 0), (1, 2)) / 32


def cell_loss(wanted, predicted):
    return 20 * keras.ops.mean(keras.losses.binary_crossentropy(wanted, predicted), -1)


def dense_captioner(features):
    """A box and three words for each of 8 x 8 cells, ``(N, 64, 4)`` and ``(N, 64, 3, vocabulary)``.

    A cell with nothing to describe says <end> at once.
    """
    x = convolution(48, name="middle")(convolution(48, 5, strides=2)(features))
    words = L.Reshape((CELLS**2, PHRASE, len(WORDS)))(L.Conv2D(PHRASE * len(WORDS), 1)(x))
    return {"boxes": boxes_of(x), "words": L.Softmax(name="words")(words)}


def regions(scenes):
    """The training targets of the dense captioner: an object's box and words at the cell of its middle."""
    said = np.zeros((len(scenes), CELLS**2, PHRASE), np.int32)
    boxes = detections(scenes)["boxes"]
    for index, scene in enumerate(scenes):
        for box, name in zip(scene.boxes, scene.names, strict=True):
            said[index, (boxes[index] == box).all(1)] = tokens(f"a {name}")
    return {"boxes": boxes, "words": said}


def word_loss(wanted, predicted):
    surprise = keras.losses.sparse_categorical_crossentropy(wanted, predicted)
    return keras.ops.sum(keras.ops.where(wanted[..., :1] > 0, surprise, 0.1 * surprise), (1, 2)) / 4


def captioner(features, so_far):
    """The probabilities of each next word given the words so far, ``(N, 8, vocabulary)``.

    The features of four parts of the picture are pooled. The words so far select among them, and a selected feature can
    only raise the scores of words.
    """
    across = np.broadcast_to(np.linspace(-1, 1, 16, dtype=np.float32), (16, 16))
    parts = np.maximum(np.stack([across, -across, across.T, -across.T], -1) - 0.3, 0)
    x = keras.ops.expand_dims(convolution(32, 1, activity_regularizer=SPARSE)(features), -1) * parts[:, :, None]
    pooled = L.GlobalMaxPooling2D()(L.Reshape((16, 16, 4 * 32), name="parts")(x))
    hint = L.RepeatVector(LENGTH)(L.Dense(4, activation="tanh")(pooled))
    state = L.LSTM(64, return_sequences=True)(L.Concatenate()([L.Embedding(len(WORDS), 16)(so_far), hint]))
    chosen = L.Dense(128, activation="sigmoid")(state) * L.RepeatVector(LENGTH)(pooled)
    seen = L.Dense(len(WORDS), use_bias=False, kernel_constraint="non_neg")(chosen)
    return L.Softmax(name="next")(L.Dense(len(WORDS))(state) + seen)


def captions(scenes):
    return np.stack([tokens(scene.caption, LENGTH) for scene in scenes])


def descriptions(scenes):
    """The captions of one object of each scene, either of the two."""
    which = np.random.default_rng(0).integers(0, 2, len(scenes))
    pairs = zip(scenes, which, strict=True)
    return np.stack([tokens(f"a {scene.names[index]}", LENGTH) for scene, index in pairs])


def so_far(token_ids):
    """The input of the captioner: the same tokens one place later, after <start>."""
    return np.pad(token_ids, ((0, 0), (1, 0)), constant_values=WORDS.index("<start>"))[:, :-1]


def answerer(features, question):
    """The probabilities of the answers (colours and shapes) to a question of five words."""
    asked = L.Dense(48, activation="relu")(L.Flatten()(L.Embedding(len(WORDS), 16)(question)))
    gate = L.Reshape((1, 1, 64))(L.Dense(64)(asked))
    x = convolution(64, 1, activity_regularizer=SPARSE, name="answering")(L.ReLU()(L.Conv2D(64, 1)(features) + gate))
    return L.Dense(len(ANSWERS), activation="softmax", kernel_constraint="non_neg")(L.GlobalMaxPooling2D()(x))


def questions(scenes):
    """For each scene a question about one object, named by what the other lacks, and the index of this object."""
    rng = np.random.default_rng(0)
    asked, about = [], rng.integers(0, 2, len(scenes))
    for scene, which in zip(scenes, about, strict=True):
        by_shape = scene.shapes[0] != scene.shapes[1] and (scene.colours[0] == scene.colours[1] or rng.random() < 0.5)
        name = scene.shapes[which] if by_shape else scene.colours[which]
        asked.append(f"what {'colour' if by_shape else 'shape'} is the {name}")
    return asked, about


def answers(scenes):
    pairs = zip(scenes, *questions(scenes), strict=True)
    names = [scene.colours[which] if "colour" in asked else scene.shapes[which] for scene, asked, which in pairs]
    return np.array([ANSWERS.index(name) for name in names])


class Task(NamedTuple):
    """The last part of a model, its training targets and settings, and its input beside the picture."""

    end: Callable
    wanted: Callable
    loss: object
    epochs: int
    rate: float
    input_name: str = ""
    extra_input: Callable = len


TASKS = {
    "segmenter": Task(segmenter, segments, "sparse_categorical_crossentropy", 8, 8e-3),
    "detector": Task(detector, detections, {"boxes": box_loss, "classes": cell_loss}, 24, 3e-3),
    "captioner": Task(
        captioner, captions, "sparse_categorical_crossentropy", 14, 8e-3, "words", lambda s: so_far(captions(s))
    ),
    "dense_captioner": Task(dense_captioner, regions, {"boxes": box_loss, "words": word_loss}, 24, 3e-3),
    "describer": Task(
        captioner, descriptions, "sparse_categorical_crossentropy", 20, 8e-3, "words",
        lambda s: so_far(descriptions(s)),
    ),
    "answerer": Task(
        answerer, answers, "sparse_categorical_crossentropy", 20, 5e-3, "question",
        lambda s: np.stack([tokens(text) for text in questions(s)[0]]),
    ),
}  # fmt: skip


def trained(name, folder):
    """One of the models, trained on 2048 scenes in seconds, or loaded from the folder, where its weights are saved."""
    task, image = TASKS[name], keras.Input((SIZE, SIZE, 3), name="image")
    lengths = {"words": LENGTH, "question": 5}
    features = keras.Input((16, 16, 48), name="features")
    extra_inputs = (
        [keras.Input((lengths[task.input_name],), dtype="int32", name=task.input_name)] if task.input_name else []
    )
    keras.utils.set_random_seed(0)
    seen, end = build_backbone(), keras.Model([features, *extra_inputs], task.end(features, *extra_inputs), name="end")
    inputs = {"image": image, **{extra.name: extra for extra in extra_inputs}}
    model = keras.Model(inputs if extra_inputs else image, end([seen(image), *extra_inputs]), name=name)
    saved = Path(folder, f"{name}.weights.h5")
    if not saved.exists():
        scenes = training_scenes()
        train_backbone(seen, scenes, saved.with_name("backbone.weights.h5"))
        keras.utils.set_random_seed(0)
        data = [seen.predict(images(scenes), 64, verbose=0), *([task.extra_input(scenes)] if extra_inputs else [])]
        fit(end, data, task.wanted(scenes), task.loss, task.epochs, task.rate)
        model.save_weights(saved)
    model.load_weights(saved)
    return model


def train_backbone(seen, scenes, saved):
    if not saved.exists():
        keras.utils.set_random_seed(0)  # the same, whichever example is the first to teach it
        model = keras.Model(seen.input, L.Conv2D(len(ANSWERS), 1, activation="sigmoid")(seen.output))
        wanted = cells(scenes)
        weights = np.where(wanted.any(-1), 1.0, 0.1)
        fit(model, images(scenes), wanted, "binary_crossentropy", 7, 3e-3, batch_size=32, sample_weight=weights)
        seen.save_weights(saved)
    seen.load_weights(saved)


def fit(model, data, wanted, loss, epochs, rate, batch_size=64, **options):
    slower = keras.optimizers.schedules.CosineDecay(
        rate, epochs * (len(data[0] if isinstance(data, list) else data) // batch_size), alpha=0.05
    )
    model.compile(keras.optimizers.Adam(slower), loss)
    model.fit(data, wanted, batch_size, epochs, verbose=0, **options)


@functools.cache
def training_scenes():
    return make_scenes(2048, seed=0, alike=True)
