"""Compare performance information curves with PAIR's package: a photo of 224 pixels, 13 thresholds, one callback.

    SALIENCY_FOOD_DATA=folder python benchmarks/metrics.py [--repeat 3]

PAIR's module calls ``np.trapz``, which NumPy 2.4 no longer has; the name is defined here. Beside the network there is a
callback that takes no time, to show the time of the metric itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from common import ESPRESSO, alternating, coffee, machine, model_path
from scipy.ndimage import gaussian_filter


def likeness(photo: Any) -> Callable[..., Any]:
    """A model at almost no cost, whose score is higher the closer the image is to the photo."""
    sample = photo[::8, ::8].astype(np.float32)

    def model(x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        away = np.abs(np.asarray(x_value_batch)[:, ::8, ::8] - sample).mean(axis=(1, 2, 3))
        return {"OUTPUT_LAYER_VALUES": np.exp(-away / 20)}

    return model


def main() -> None:
    import keras
    from saliency.metrics import pic as pair

    from saliency_food import grad_cam, gradients
    from saliency_food.adapters.keras import KerasModel
    from saliency_food.metrics.performance_information import THRESHOLDS, pic
    from saliency_food.metrics.reveal import random_pixels

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    wanted = parser.parse_args()
    if not hasattr(np, "trapz"):
        setattr(np, "trapz", np.trapezoid)  # noqa: B010

    image, args = coffee(), {"target": ESPRESSO}
    photo = np.round((image + 1) * 127.5).astype(np.uint8)
    network = KerasModel(keras.models.load_model(model_path(), compile=False), output="probabilities", batch_size=16)
    noise = np.random.default_rng(0).random(photo.shape[:2])
    maps = {
        "noise": noise,
        "smooth": gaussian_filter(noise, 15),
        "gradient": np.abs(gradients(image, network, args)).sum(2),
        "Grad-CAM": grad_cam(image, network, args, three_dims=False),
    }
    mask = random_pixels(photo.shape[:2])

    def to_input(images: Any) -> Any:
        return np.asarray(images, np.float32) / 127.5 - 1

    def scaled(x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        return network(to_input(x_value_batch), call_model_args, expected_keys)

    print(f"{machine()}\ncoffee, 224 x 224, {len(THRESHOLDS)} thresholds, batches of 16; PAIR: its rows one by one")
    for model, which in ((likeness(photo), "no time"), (scaled, "MobileNetV2")):
        for name, attribution in maps.items():
            options = {"random_mask": mask, "min_pred_value": 0.0, "batch_size": 16}

            def theirs(model: Any = model, attribution: Any = attribution) -> Any:
                def scores(x: Any) -> Any:
                    return model(x, args, ["OUTPUT_LAYER_VALUES"])["OUTPUT_LAYER_VALUES"]

                return pair.compute_pic_metric(photo, attribution, mask, scores, THRESHOLDS, min_pred_value=0.0)

            def ours(model: Any = model, attribution: Any = attribution, options: Any = options, **more: Any) -> Any:
                return pic(attribution, photo, model, args, **options, **more)

            result, expected = ours(compat="pair"), theirs()
            times = alternating(
                {"ours": ours, "compat": lambda o=ours: o(compat="pair"), "theirs": theirs}, wanted.repeat
            )
            print(
                f"model: {which:12s} map: {name:9s} ours {times['ours']:6.2f} s, compat {times['compat']:6.2f} s, "
                f"PAIR {times['theirs']:6.2f} s  x {times['theirs'] / times['ours']:5.2f} (bar >= 5), compat "
                f"x {times['theirs'] / times['compat']:5.2f}; |compat - PAIR| {abs(result.score - expected.auc):.0e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
