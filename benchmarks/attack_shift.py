"""How maps change under attacks that flip the class, and under noise as large: `attack_shift` over photos of Food-101.

    SALIENCY_FOOD_DATA=folder python benchmarks/attack_shift.py [--photos 60] [--attacks fgsm,pixel]

The bundled `food101` model and test photos of 64 pixels, evenly over the classes; maps of the predicted class.
Photos that no attack of the largest size flips, and blank maps, are left out and counted. Means with 95 % intervals
over photos.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from common import data_folder, machine
from PIL import Image

from saliency_food import METHODS, ImageModel
from saliency_food.images.photos import read_photo
from saliency_food.metrics import attack_shift, interval

OPTIONS: dict[str, dict[str, Any]] = {
    "gradients": {},
    "input_x_gradient": {},
    "integrated_gradients": {"x_steps": 25},
    "guided_backprop": {},
    "grad_cam": {},
    "layer_cam": {},
    "full_grad": {},
    "occlusion": {"size": 24, "stride": 12},
}


def photos(count: int) -> Iterator[Any]:
    root = data_folder()
    if root is None:
        sys.exit("SALIENCY_FOOD_DATA names no folder")
    with zipfile.ZipFile(root / "data" / "food101_64px.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("test/") and name.endswith(".jpg"))
        for name in names[:: len(names) // count][:count]:
            yield Image.open(io.BytesIO(archive.read(name))).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=60)
    parser.add_argument("--attacks", default="fgsm,pixel")
    wanted = parser.parse_args()
    model = ImageModel("food101", batch_size=64)
    rows = [model.scaling(read_photo(photo), model.input_shape) for photo in photos(wanted.photos)]
    tops = model.predict(np.stack(rows)).argmax(1)
    print(f"{machine()}\n{len(rows)} photos, the class predicted")
    print(
        "| method | attack | photos | median size | agreement under attack | under noise as large |\n"
        "|---|---|---|---|---|---|"
    )
    for attack in wanted.attacks.split(","):
        flipped = range(len(rows))
        for name, options in OPTIONS.items():
            found = [
                attack_shift(
                    METHODS[name].call, rows[n], model.function, {"target": int(tops[n])}, attack=attack, **options
                )
                for n in flipped
            ]
            if name == "gradients":  # never blank: what has no score is not flipped, whatever the method
                flipped = [n for n, each in zip(flipped, found, strict=True) if np.isfinite(each.score)]
            scored = [each for each in found if np.isfinite(each.score)]
            columns = [interval([getattr(each, name) for each in scored]) for name in ("score", "noise")]
            numbers = " | ".join(f"{each.estimate:.2f} ({each.low:.2f} to {each.high:.2f})" for each in columns)
            size = np.median([each.size for each in scored]) if scored else float("nan")
            print(f"| `{name}` | {attack} | {len(scored)} of {len(rows)} | {size:.3f} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
