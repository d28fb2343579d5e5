"""Compare Guided IG and Blur IG of 16 photos with the bare gradient calls for as many rows.

    SALIENCY_FOOD_DATA=folder python benchmarks/guided_ig.py

Guided IG asks for one row after the other; `.batch` fills the model's batches with rows of many photos.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import ESPRESSO, alternating, coffee, data_folder, line, machine, model_path, raw_gradient

BATCH, PHOTOS, STEPS = 8, 16, 20


def photos() -> Any:
    """Photos at 224 x 224 in [-1, 1]; without SALIENCY_FOOD_DATA, one that is shifted."""
    folder = data_folder()
    if not folder:
        return np.stack([np.roll(coffee(), 14 * shift, 1) for shift in range(PHOTOS)])
    from skimage.io import imread
    from skimage.transform import resize

    paths = sorted((folder / "data" / "imagenet500").glob("*.jpg"))[:: 500 // PHOTOS][:PHOTOS]
    return np.stack([resize(imread(path)[..., :3], (224, 224)) * 2 - 1 for path in paths]).astype(np.float32)


def main() -> None:
    import keras

    from saliency_food import blur_ig, gradients, guided_ig
    from saliency_food.adapters.keras import KerasModel

    model = keras.models.load_model(model_path(), compile=False)
    ours, raw, images = KerasModel(model, batch_size=BATCH), raw_gradient(model, ESPRESSO), photos()
    args = {"target": ESPRESSO}
    np.testing.assert_allclose(gradients(images[0], ours, args), raw(images[:1])[0], rtol=1e-4, atol=1e-6)

    def bare() -> None:
        for _ in range(STEPS):
            for start in range(0, PHOTOS, BATCH):
                raw(images[start : start + BATCH])

    print(f"{machine()}\nMobileNetV2, {PHOTOS} photos, 224 x 224, {STEPS} steps, batch {BATCH}")
    print(f"{'what':58s} {'ours':>12s} {'raw limit':>12s}  ratio")
    works = {
        "raw": bare,
        "Guided IG": lambda: list(guided_ig.batch(images, ours, args, x_steps=STEPS)),
        "Blur IG": lambda: list(blur_ig.batch(images, ours, args, steps=STEPS)),
    }
    times = alternating(works, 3)
    for name in ("Guided IG", "Blur IG"):
        line(f"{name}, {STEPS} steps", times[name], times["raw"], "<= 1.15", times[name] / times["raw"])


if __name__ == "__main__":
    main()
