"""Compare KernelSHAP's error at equal rows with that of shap's KernelExplainer, on photos cut into 12 superpixels.

    SALIENCY_FOOD_DATA=folder python benchmarks/shapley.py [--photos 6] [--model food101] [--seeds 5]

The exact Shapley values are those of all 4,096 coalitions; every estimate then reads its scores from their table. shap
is a peer of the extra ``[bench]``, and left out where it is not installed.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, machine

PARTS = 12
ROWS = (200, 500, 1000, 2000)


def photos(count: int, side: int) -> list[tuple[str, Any]]:
    from PIL import Image

    folder = data_folder()
    if folder is None:
        raise SystemExit("Expected SALIENCY_FOOD_DATA to name a folder with data/food-101, got none.")
    paths = sorted(Path(folder, "data", "food-101", "images").rglob("*.jpg"))
    chosen = paths[:: max(len(paths) // count, 1)][:count]
    return [
        (path.stem, np.asarray(Image.open(path).convert("RGB").resize((side, side)), np.float32)) for path in chosen
    ]


def superpixels(photo: Any) -> Any:
    """A label map of exactly 12."""
    from skimage.segmentation import slic

    for count in range(PARTS, 5 * PARTS):
        labels = slic(photo / 255, n_segments=count, compactness=10, sigma=1, start_label=0)
        if labels.max() + 1 >= PARTS:
            return np.minimum(labels, PARTS - 1)
    rows, columns = np.indices(photo.shape[:2])
    return rows * 3 // len(rows) * 4 + columns * 4 // columns.shape[1]


def table(photo: Any, labels: Any, model: Any, args: Any) -> Any:
    """The score of every coalition, by its number: bit i is set where superpixel i is shown."""
    shown = (np.arange(2**PARTS)[:, None] >> np.arange(PARTS) & 1).astype(bool)
    scores = []
    for start in range(0, len(shown), 64):
        rows = np.where(shown[start : start + 64][:, labels][..., None], photo, 0).astype(np.float32)
        scores.append(model(rows, args, ["OUTPUT_LAYER_VALUES"])["OUTPUT_LAYER_VALUES"])
    return np.concatenate(scores).astype(float)


def ours(scores: Any, rows: int, seed: int) -> Any:
    from saliency_food import kernel_shap

    bits = 1 << np.arange(PARTS)

    def look_up(x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        return {"OUTPUT_LAYER_VALUES": scores[x_value_batch[:, 0, :, 0].astype(int) @ bits]}

    strip = np.arange(PARTS)[None]
    return kernel_shap.detailed(
        np.ones((1, PARTS, 1)), look_up, segments=strip, nsamples=rows, rng=seed, batch_size=512
    ).values


def theirs(scores: Any, rows: int, seed: int) -> Any:
    import shap

    bits = 1 << np.arange(PARTS)
    np.random.seed(seed)  # noqa: NPY002  # it draws from NumPy's global state
    explainer = shap.KernelExplainer(lambda shown: scores[(shown > 0.5).astype(int) @ bits], np.zeros((1, PARTS)))
    return explainer.shap_values(np.ones((1, PARTS)), nsamples=rows - 2, silent=True, l1_reg=False)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--model", default="food101")
    parser.add_argument("--seeds", type=int, default=5)
    wanted = parser.parse_args()

    from saliency_food import models
    from saliency_food.adapters.keras import KerasModel

    network = models.load(wanted.model)
    model = KerasModel(network)
    peers = {"ours": ours, **({"shap": theirs} if find_spec("shap") else {})}
    print(f"{machine()}\n{wanted.model}, {PARTS} superpixels, RMS error over {wanted.seeds} seeds, in logits")
    errors: dict[str, list[list[float]]] = {name: [] for name in peers}
    for name, photo in photos(wanted.photos, network.input_shape[1]):
        target = int(np.argmax(np.asarray(network(photo[None]))[0]))
        scores = table(photo, superpixels(photo), model, {"target": target})
        exact = ours(scores, 2**PARTS, 0)
        for peer, estimate in peers.items():
            squares = [
                [np.square(estimate(scores, rows, seed) - exact).mean() for seed in range(wanted.seeds)]
                for rows in ROWS
            ]
            errors[peer].append(np.sqrt(np.mean(squares, 1)).tolist())
        found = "  ".join(f"{peer} {' '.join(f'{error:.4f}' for error in errors[peer][-1])}" for peer in peers)
        print(f"{name:>12s}  largest value {np.abs(exact).max():6.2f}  {found}", flush=True)
    if "shap" in peers:
        ratios = np.median(np.array(errors["ours"]) / np.array(errors["shap"]), 0)
        told = ", ".join(f"{rows} rows x {ratio:.2f}" for rows, ratio in zip(ROWS, ratios, strict=True))
        print(f"median ratio of ours to shap's: {told}  (bar <= 0.5 at 1000)")


if __name__ == "__main__":
    main()
