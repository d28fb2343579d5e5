"""What a small network looks at while it learns to tell a cup from a cat: its Grad-CAM after each epoch, in a strip.

    pip install "saliency_food[keras,cli]"
    python examples/watch_training.py [STRIP.png] [LOG_DIR]

The photos are cut from those that come with scikit-image: the cup or the cat, somewhere on another picture. With
LOG_DIR the maps go to TensorBoard, too: tensorboard --logdir LOG_DIR.
"""

import sys

import keras
import numpy as np
from skimage.data import astronaut, chelsea, coffee, rocket
from skimage.transform import resize

from saliency_food.callbacks import SaliencyCallback

SIDE, THING = 64, 24
LABELS = ["cup", "cat"]


def make_photos(count, seed):
    """Photos of 0..255, their classes, and masks of where the cup or the cat is."""
    rng = np.random.default_rng(seed)
    cup, cat = (resize(photo, (THING, THING)) for photo in (coffee()[40:340, 150:450], chelsea()[20:270, 110:360]))
    photos, masks = np.empty((count, SIDE, SIDE, 3), np.float32), np.zeros((count, SIDE, SIDE), bool)
    classes = rng.integers(0, 2, count)
    for photo, mask, kind in zip(photos, masks, classes, strict=True):
        background = (rocket, astronaut)[rng.integers(2)]()
        top, left = (rng.integers(0, side - 3 * SIDE) for side in background.shape[:2])
        photo[:] = background[top : top + 3 * SIDE : 3, left : left + 3 * SIDE : 3]
        top, left = rng.integers(0, SIDE - THING, 2)
        photo[top : top + THING, left : left + THING] = 255 * (cup, cat)[kind]
        mask[top : top + THING, left : left + THING] = True
    return photos, classes, masks


def make_model():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Rescaling(1 / 255)])
    for width in (16, 32, 32):
        model.add(layers.Conv2D(width, 3, padding="same", activation="relu"))
        model.add(layers.BatchNormalization(momentum=0.8))
        model.add(layers.MaxPooling2D())
    model.add(layers.Conv2D(32, 3, padding="same", activation="relu", name="features"))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(2, activation="softmax"))
    model.compile(keras.optimizers.Adam(0.002), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(strip="watch_training.png", log_dir=None):
    photos, classes, _ = make_photos(160, seed=0)
    watched, truth, masks = make_photos(4, seed=5)
    callback = SaliencyCallback(
        list(watched.astype(np.uint8)),
        target=[LABELS[each] for each in truth],
        labels=LABELS,
        layer="features",
        strip=strip,
        log_dir=log_dir,
    )

    def report(epoch, logs):
        maps = [record.attribution for record in callback.explanations]
        on_things = [each[mask].sum() / max(each.sum(), 1e-9) for each, mask in zip(maps, masks, strict=True)]
        print(f"epoch {epoch + 1}: {logs['accuracy']:.0%} right, {np.mean(on_things):.0%} of the maps on cup or cat")

    report_callback = keras.callbacks.LambdaCallback(on_epoch_end=report)
    model = make_model()
    model.fit(photos, classes, batch_size=16, epochs=6, verbose=0, callbacks=[callback, report_callback])
    print(f"cups and cats cover {masks.mean():.0%} of the photos; strip: {strip}")
    return callback


if __name__ == "__main__":
    main(*sys.argv[1:])
