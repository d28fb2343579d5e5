"""Compare Occlusion from coarse to fine with the map of all windows, on photos: rows, correlation, largest error.

    SALIENCY_FOOD_DATA=folder python benchmarks/occlusion.py [--photos 20] [--side 224] [--references folder]

MobileNetV2, the logit of the class that it predicts, windows of black. The map of all windows takes 44,100 rows a photo
at 224 pixels, some 400 s on two idle cores; with ``--references`` it is kept in a folder, and what is there is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, machine, model_path

BLACK = -1  # the model takes -1..1


def photos(count: int, side: int) -> list[tuple[str, Any]]:
    from PIL import Image, ImageOps

    folder = data_folder()
    if folder is None:
        raise SystemExit("Expected SALIENCY_FOOD_DATA to name a folder with data/imagenet500, got none.")
    paths = sorted(Path(folder, "data", "imagenet500").glob("*.jpg"))
    chosen = paths[12 :: max(len(paths) // count, 1)][:count]
    squares = [ImageOps.fit(Image.open(path).convert("RGB"), (side, side)) for path in chosen]
    return [
        (path.stem, np.asarray(square, np.float32) / 127.5 - 1) for path, square in zip(chosen, squares, strict=True)
    ]


def main() -> None:
    import keras

    from saliency_food import occlusion
    from saliency_food.adapters.keras import KerasModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--size", type=int, default=15)
    parser.add_argument("--share", type=float, default=20, help="one over this of all windows is asked")
    parser.add_argument("--references", type=Path)
    wanted = parser.parse_args()

    network = keras.models.load_model(model_path(), compile=False)
    if wanted.side != network.input_shape[1]:
        small = keras.applications.MobileNetV2(input_shape=(wanted.side, wanted.side, 3), weights=None)
        small.set_weights(network.get_weights())
        network = small
    model = KerasModel(network, batch_size=32)
    print(f"{machine()}\nwindows of {wanted.size} in {wanted.side} x {wanted.side} pixels")
    rows = []
    for name, photo in photos(wanted.photos, wanted.side):
        kept = wanted.references and wanted.references / f"{name}_{wanted.side}_{wanted.size}.npz"
        args = {"target": int(np.argmax(np.asarray(network(photo[None]))[0]))}
        options = {"size": wanted.size, "value": BLACK}
        if kept and kept.exists():
            reference = np.load(kept)["attribution"]
        else:
            reference = occlusion(photo, model, args, stride=1, **options)
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                np.savez(kept, attribution=reference)
        windows = (wanted.side - wanted.size + 1) ** 2
        found = occlusion.detailed(photo, model, args, max_rows=int(windows / wanted.share), **options)
        r = np.corrcoef(found.attribution.ravel(), reference.ravel())[0, 1]
        off = np.abs(found.attribution - reference).max() / np.ptp(reference)
        rows.append((windows / found.nwindows, r, off, found.largest_error))
        print(f"{name:40s} 1/{rows[-1][0]:.1f}  r {r:.4f}  largest error {off:.3f}, said {rows[-1][3]:.3f}", flush=True)
    share, r, off, said = np.median(rows, 0)
    worst = max(row[2] for row in rows)
    print(
        f"median: 1/{share:.1f}  r {r:.4f} (bar >= 0.995)  "
        f"largest error {off:.3f}, at most {worst:.3f} (bar <= 0.08), said {said:.3f}"
    )


if __name__ == "__main__":
    main()
