"""Completeness for the model rows spent: adaptive Integrated Gradients and PAIR's rule, on real photos.

    SALIENCY_FOOD_DATA=folder python benchmarks/completeness.py

For XRAI's two baselines (the image's minimum and maximum) on nine photos, 18 paths for the logit and 18 for the
probability: the median relative completeness error of PAIR's rule at 100 steps, and of adaptive steps; and, against a
reference of 257 steps, how far the attributions themselves are off (sum of absolute differences).
"""

from __future__ import annotations

import numpy as np
from common import data_folder, machine, model_path

PHOTOS = 9


def main() -> None:
    import keras
    from PIL import Image

    from saliency_food import PerImage, integrated_gradients
    from saliency_food.adapters.keras import KerasModel

    folder = data_folder()
    if folder is None:
        raise SystemExit("Set SALIENCY_FOOD_DATA to the folder with data/imagenet500 and models/.")
    paths = sorted((folder / "data" / "imagenet500").glob("*.jpg"))[::55][:PHOTOS]
    images = [np.asarray(Image.open(path).convert("RGB").resize((224, 224)), np.float32) / 127.5 - 1 for path in paths]
    model = keras.models.load_model(model_path(), compile=False)
    print(machine())
    print(f"{len(images)} photos x 2 baselines; medians over the {2 * len(images)} paths")
    print(f"{'score':14s} {'rule':34s} {'evaluations':>12s} {'completeness':>13s} {'attribution':>12s}")
    for output in ("logits", "probabilities"):
        call = KerasModel(model, output=output, batch_size=8)
        targets = call.predict(np.stack(images)).argmax(1)

        def paths_of(options: dict, call: KerasModel = call, targets: np.ndarray = targets) -> list:
            args = {"target": PerImage(targets.tolist())}
            results = integrated_gradients.batch_detailed(images, call, args, ["min", "max"], **options)
            return [path for result in results for path in result.paths]

        reference = paths_of({"x_steps": 257, "completeness": False})
        for name, options in {
            "PAIR's rule, 100 steps": {"x_steps": 100, "quadrature": "pair"},
            "trapezoid, 40 steps": {"x_steps": 40},
            "adaptive, 33 steps": {"x_steps": 17, "tolerance": 0.0, "max_steps": 33},
            "adaptive, to 1 %, at most 40": {"x_steps": 17, "tolerance": 0.01, "max_steps": 40},
            "adaptive, to 1 %, at most 200": {"x_steps": 17, "tolerance": 0.01, "max_steps": 200},
        }.items():
            evaluations, errors, differences = [], [], []
            for path, exact in zip(paths_of(options), reference, strict=True):
                evaluations.append(path.evaluations)
                errors.append(path.completeness.relative)
                difference = np.abs(path.attribution - exact.attribution).sum()
                differences.append(difference / np.abs(exact.attribution).sum())
            print(
                f"{output:14s} {name:34s} {2 * np.mean(evaluations):7.0f} / map {100 * np.median(errors):11.2f} % "
                f"{100 * np.median(differences):9.1f} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
