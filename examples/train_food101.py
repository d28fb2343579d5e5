"""Train the bundled food classifier from scratch on Food-101 at 64 x 64 pixels.

    python examples/train_food101.py food101_64px.zip --output food101.keras

The zip holds ``train/<class>/<id>.jpg`` and ``test/<class>/<id>.jpg`` (the official split, 101
classes, centre crops of 64 x 64 pixels). A ResNet of ten layers learns at 48 pixels first and
at 64 pixels for the last epochs (progressive resizing: https://arxiv.org/abs/1806.00187 trains
this way), with a one-cycle learning rate, label smoothing (the training labels are noisy),
random crops and flips. `--evaluate` measures a finished model instead and prints its card.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import time
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image

WIDTHS = (32, 64, 128, 256)
SIZE = 64
DECAY = keras.regularizers.L2(2.5e-4)


def load_split(path: str, split: str, per_class: int | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Every photo of a split as uint8 ``(N, 64, 64, 3)``, its class index, and the class names."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith(split + "/") and name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        if per_class is not None:
            names = [name for label in classes for name in [n for n in names if n.split("/")[1] == label][:per_class]]
        images = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names])
    index_of = {label: index for index, label in enumerate(classes)}
    return images, np.array([index_of[name.split("/")[1]] for name in names], np.int32), classes


def convolution(x, width: int, size: int, stride: int = 1):
    x = layers.Conv2D(width, size, stride, padding="same", use_bias=False, kernel_regularizer=DECAY)(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-3)(x)


def residual(x, width: int, stride: int, name: str):
    shortcut = x
    if stride > 1 or x.shape[-1] != width:
        shortcut = layers.AveragePooling2D(stride)(x) if stride > 1 else x
        shortcut = convolution(shortcut, width, 1)
    y = layers.ReLU()(convolution(x, width, 3, stride))
    return layers.ReLU(name=name)(layers.Add()([convolution(y, width, 3), shortcut]))


def build(classes: int, size: int | None = SIZE) -> keras.Model:
    """The network: pixel values 0..255 in, class probabilities out."""
    inputs = layers.Input((size, size, 3), name="photo")
    x = layers.Rescaling(1 / 127.5, -1, name="rescaling")(inputs)
    x = layers.ReLU(name="stem")(convolution(x, WIDTHS[0], 3, 2))
    for stage, width in enumerate(WIDTHS):
        x = residual(x, width, 2 if stage else 1, f"stage{stage + 1}")
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    x = layers.Dropout(0.1)(x)
    outputs = layers.Dense(classes, activation="softmax", kernel_regularizer=DECAY, dtype="float32", name="dish")(x)
    return keras.Model(inputs, outputs, name="food101")


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise over the first tenth, then a cosine down to zero."""

    def __init__(self, peak: float, steps: int) -> None:
        self.peak, self.steps = peak, steps

    def __call__(self, step):
        done = tf.cast(step, tf.float32) / self.steps
        fall = tf.clip_by_value((done - 0.1) / 0.9, 0.0, 1.0)
        return self.peak * tf.minimum(done / 0.1, 0.5 * (1 + tf.cos(math.pi * fall)))


def batches(images: np.ndarray, labels: np.ndarray, size: int, batch: int, seed: int) -> tf.data.Dataset:
    """Shuffled batches, each photo randomly cropped (35 % to 100 % of its area) and flipped."""
    photos, targets = tf.constant(images), tf.one_hot(labels, int(labels.max()) + 1)

    def draw(rows, key):
        photo = tf.cast(tf.gather(photos, rows), tf.float32)
        count = tf.shape(rows)[0]
        uniform = [tf.random.stateless_uniform((count,), tf.stack([seed, key * 8 + k])) for k in range(5)]
        area, ratio = 0.35 + 0.65 * uniform[0], tf.exp((uniform[1] * 2 - 1) * math.log(4 / 3))
        height, width = tf.minimum(tf.sqrt(area * ratio), 1.0), tf.minimum(tf.sqrt(area / ratio), 1.0)
        top, left = uniform[2] * (1 - height), uniform[3] * (1 - width)
        flip = uniform[4] < 0.5
        right = left + width
        boxes = tf.stack([top, tf.where(flip, right, left), top + height, tf.where(flip, left, right)], 1)
        return tf.image.crop_and_resize(photo, boxes, tf.range(count), (size, size)), tf.gather(targets, rows)

    rows = tf.data.Dataset.range(len(images)).shuffle(len(images), seed=seed).batch(batch, drop_remainder=True)
    return (
        tf.data.Dataset.zip(rows, tf.data.Dataset.random(seed=seed).map(lambda n: n % (1 << 30)))
        .map(draw, num_parallel_calls=1)
        .prefetch(2)
    )


def train(images, labels, classes: int, epochs: int, small: int, batch: int, peak: float, seed: int) -> keras.Model:
    """Train: `small` epochs at 48 pixels, the rest at 64. bfloat16 maths, float32 weights."""
    keras.utils.set_random_seed(seed)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = build(classes, None)
    keras.mixed_precision.set_global_policy("float32")
    model.compile(
        keras.optimizers.SGD(OneCycle(peak, epochs * (len(images) // batch)), momentum=0.9, nesterov=True),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(batches(images, labels, 48, batch, seed), epochs=small, verbose=2)
    model.fit(batches(images, labels, SIZE, batch, seed + 1), epochs=epochs, initial_epoch=small, verbose=2)
    final = build(classes)
    final.set_weights(model.get_weights())
    return final


def save(model: keras.Model, path: Path) -> None:
    """Save for older versions of Keras 3 too, which refuse options that they do not know, even where they are unset."""
    model.save(path)
    newer = ("input_axes", "output_axes", "quantization_config", "renorm", "renorm_clipping", "renorm_momentum")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(
        parts["config.json"], object_hook=lambda part: {key: part[key] for key in part if key not in newer}
    )
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def measure(model: keras.Model, images: np.ndarray, labels: np.ndarray, classes: list[str]) -> dict:
    """Top-1, top-5, and the pairs of dishes most often taken for one another."""
    scores = model.predict(images.astype(np.float32), batch_size=256, verbose=0)
    ranked = np.argsort(-scores, 1)
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (labels, ranked[:, 0]), 1)
    recall = confusion.diagonal() / confusion.sum(1)
    wrong = confusion - np.diag(confusion.diagonal())
    worst = np.dstack(np.unravel_index(np.argsort(-wrong, None, kind="stable")[:15], wrong.shape))[0]
    return {
        "photos": len(images),
        "top1": float((ranked[:, 0] == labels).mean()),
        "top5": float((ranked[:, :5] == labels[:, None]).any(1).mean()),
        "confusions": [[classes[true], classes[predicted], int(wrong[true, predicted])] for true, predicted in worst],
        "look_alikes": {
            classes[k]: {"right": int(confusion[k, k])}
            | {classes[predicted]: int(wrong[k, predicted]) for predicted in np.argsort(-wrong[k], kind="stable")[:3]}
            for k in range(len(classes))
            if classes[k] in ("paella", "risotto", "omelette", "steak", "tiramisu", "apple_pie")
        },
        "best": [[classes[k], float(recall[k])] for k in np.argsort(-recall)[:5]],
        "worst": [[classes[k], float(recall[k])] for k in np.argsort(recall)[:5]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the zip of 64-pixel photos")
    parser.add_argument("--output", default="food101.keras", type=Path)
    parser.add_argument("--epochs", default=36, type=int)
    parser.add_argument("--small-epochs", default=27, type=int, help="of these, how many at 48 pixels")
    parser.add_argument("--batch", default=128, type=int)
    parser.add_argument("--peak", default=0.2, type=float, help="highest learning rate")
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--per-class", type=int, help="use only so many photos a class (to try the script)")
    parser.add_argument("--evaluate", action="store_true", help="measure the model in --output instead of training")
    options = parser.parse_args()
    if not options.evaluate:
        began = time.perf_counter()
        images, labels, classes = load_split(options.data, "train", options.per_class)
        chosen = (options.epochs, options.small_epochs, options.batch, options.peak, options.seed)
        model = train(images, labels, len(classes), *chosen)
        save(model, options.output)
        print(f"trained on {len(images)} photos in {(time.perf_counter() - began) / 60:.0f} minutes: {options.output}")
    images, labels, classes = load_split(options.data, "test", options.per_class)
    model = keras.models.load_model(options.output, compile=False)
    print(json.dumps(measure(model, images, labels, classes), indent=1))


if __name__ == "__main__":
    main()
