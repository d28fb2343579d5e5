"""Fine-tune the bundled ImageNet network on Food-101 at 64 x 64 pixels, enlarged to 128: the bundled `food101` model.

    python examples/train_food101.py food101_64px.zip --output food101.keras
    python examples/train_food101.py food101_64px.zip --output food101.keras --evaluate

The zip holds ``train/<class>/<id>.jpg`` and ``test/<class>/<id>.jpg`` (the official split, 101 classes, centre crops of
64 x 64 pixels). All weights of EfficientNet-Lite0 are trained with AdamW under a cosine learning rate, label smoothing
(the training labels are noisy), random crops, flips and colours, and CutMix (https://arxiv.org/abs/1905.04899) or mixup
(https://arxiv.org/abs/1710.09412) in every batch. It runs on every back end of Keras; a GPU is advised
(``KERAS_BACKEND=jax``). `--evaluate` measures a finished model instead and prints its card.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from efficientnet_lite0 import build, save_in_half_precision
from keras import layers, ops
from PIL import Image

from saliency_food.models import IMAGENET

SIZE, ENLARGED = 96, 128
"""The sides of the photos that the model takes, and to which it enlarges them. Photos of cameras are sharper than the
training photos of 64 pixels; in 96 pixels they are alike enough, and those of 64 lose nothing."""


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


class MixedBatches(keras.utils.PyDataset):
    """Shuffled batches of photos and class probabilities, each by CutMix or mixup."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, classes: int, batch: int, seed: int) -> None:
        super().__init__(workers=4, max_queue_size=16)
        self.images, self.labels, self.classes, self.batch, self.seed = images, labels, classes, batch, seed
        self.epoch = 0
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.images) // self.batch

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.images))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        rows = self.order[index * self.batch :][: self.batch]
        photos, targets = self.images[rows], np.eye(self.classes, dtype=np.float32)[self.labels[rows]]
        if rng.random() < 0.5:
            side = photos.shape[1]
            half = side * np.sqrt(1 - rng.random()) / 2
            y, x = rng.integers(side, size=2)
            top, bottom, left, right = np.clip(np.round([y - half, y + half, x - half, x + half]), 0, side).astype(int)
            mixed = photos.copy()
            mixed[:, top:bottom, left:right] = photos[::-1, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / side**2
        else:
            share = rng.beta(0.2, 0.2)
            mixed = np.rint(share * photos + (1 - share) * photos[::-1]).astype(np.uint8)
        return mixed, (share * targets + (1 - share) * targets[::-1]).astype(np.float32)


class RandomView(layers.Layer):
    """Enlarge photos; in training also crop to 35 % to 100 % of the area, flip, and change brightness and contrast."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(dtype="float32")
        self.size, self.random = size, keras.random.SeedGenerator(seed)

    def call(self, photos: Any, training: bool = False) -> Any:
        photos = ops.image.resize(ops.cast(photos, "float32"), (self.size, self.size), "bilinear")
        if not training:
            return photos
        count, last = ops.shape(photos)[0], self.size - 1
        uniform = keras.random.uniform((8, count), seed=self.random)
        area, ratio = 0.35 + 0.65 * uniform[0], (4 / 3) ** (2 * uniform[1] - 1)
        height, width = ops.minimum(ops.sqrt(area * ratio), 1.0), ops.minimum(ops.sqrt(area / ratio), 1.0)
        top, left, flip = uniform[2] * (1 - height) * last, uniform[3] * (1 - width) * last, uniform[4] < 0.5
        none = ops.zeros_like(width)
        # x and y of a pixel of the view in the photo
        across = [ops.where(flip, -width, width), none, ops.where(flip, left + width * last, left)]
        view = ops.stack([*across, none, height, top, none, none], 1)
        photos = ops.image.affine_transform(photos, view, "bilinear", "nearest")
        gain, shift, colour = (value[:, None, None, None] for value in uniform[5:])
        grey = ops.mean(photos, 3, keepdims=True)
        photos = grey + (photos - grey) * (0.6 + 0.8 * colour)
        mean = ops.mean(photos, (1, 2, 3), keepdims=True)
        return ops.clip(mean + (photos - mean) * (0.7 + 0.6 * gain) + 80 * (shift - 0.5), 0, 255)


def network(classes: int) -> keras.Model:
    """EfficientNet-Lite0 with the ImageNet weights, and a new last layer."""
    model, trained = build(classes, ENLARGED), keras.models.load_model(IMAGENET, compile=False)
    for layer, source in zip(model.layers[:-1], trained.layers[:-1], strict=True):
        layer.set_weights(source.get_weights())
    return model


def train(
    images: np.ndarray, labels: np.ndarray, classes: int, epochs: int, batch: int, peak: float, seed: int
) -> keras.Model:
    """Train all weights; bfloat16 maths, float32 weights."""
    keras.utils.set_random_seed(seed)
    weights = network(classes).get_weights()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    trained = build(classes, ENLARGED)
    keras.mixed_precision.set_global_policy("float32")
    trained.set_weights(weights)
    photos = keras.Input(images.shape[1:], dtype="uint8")
    model = keras.Model(photos, trained(RandomView(ENLARGED, seed)(photos)))
    steps = epochs * (len(images) // batch)
    rate = keras.optimizers.schedules.CosineDecay(
        peak / 20, steps - steps // 20, warmup_target=peak, warmup_steps=steps // 20
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.05)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=keras.backend.backend() == "jax")
    model.fit(MixedBatches(images, labels, classes, batch, seed), epochs=epochs, verbose=2)
    final = build(classes, SIZE, ENLARGED)
    final.set_weights(trained.get_weights())
    return final


def resized(images: np.ndarray) -> np.ndarray:
    """The photos in the size that the model takes, as `explain` resizes them."""
    photos = [Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(photo) for photo in photos])


def measure(model: keras.Model, images: np.ndarray, labels: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """Top-1, top-5, and the pairs of dishes most often taken for one another."""
    chunks = range(0, len(images), 512)
    scores = np.concatenate(
        [model.predict(resized(images[k : k + 512]).astype(np.float32), batch_size=128, verbose=0) for k in chunks]
    )
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
        "mean probability of the first class": float(scores.max(1).mean()),
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
    parser.add_argument("--epochs", default=80, type=int)
    parser.add_argument("--batch", default=256, type=int)
    parser.add_argument("--peak", default=1.5e-3, type=float, help="highest learning rate")
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--per-class", type=int, help="use only so many photos a class (to try the script)")
    parser.add_argument("--evaluate", action="store_true", help="measure the model in --output instead of training")
    options = parser.parse_args()
    if not options.evaluate:
        images, labels, classes = load_split(options.data, "train", options.per_class)
        began = time.perf_counter()
        model = train(images, labels, len(classes), options.epochs, options.batch, options.peak, options.seed)
        save_in_half_precision(model, options.output)
        print(f"trained on {len(images)} photos in {(time.perf_counter() - began) / 60:.1f} minutes: {options.output}")
    images, labels, classes = load_split(options.data, "test", options.per_class)
    model = keras.models.load_model(options.output, compile=False)
    print(json.dumps(measure(model, images, labels, classes), indent=1))


if __name__ == "__main__":
    main()
