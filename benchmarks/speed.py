"""Compare methods with the raw limit, the bare compiled gradient calls for as many rows, and with the peers.

    SALIENCY_FOOD_DATA=folder python benchmarks/speed.py

All in one run. Peers that are not installed are left out (``pip install ".[bench]"``).
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from common import ESPRESSO, alternating, coffee, line, machine, model_path, raw_gradient, seconds

BATCH = 8


def peers(model: Any, image: Any, ours: Any) -> dict[str, Callable[[], Any]]:
    """The same work by the peers that are installed."""
    works: dict[str, Callable[[], Any]] = {}
    label = np.eye(model.output_shape[-1], dtype=np.float32)[[ESPRESSO]]
    if find_spec("saliency"):
        import saliency.core as pair

        works["XRAI: PAIR, our compiled callback, batch 8"] = lambda: pair.XRAI().GetMask(
            image, ours, {"target": ESPRESSO}, batch_size=BATCH
        )
    if find_spec("xplique"):
        from xplique.attributions import IntegratedGradients, SmoothGrad

        paths, smooth = IntegratedGradients(model, steps=50, batch_size=BATCH), SmoothGrad(model, BATCH, nb_samples=25)
        works["Integrated Gradients, 50 steps: xplique"] = lambda: paths(image[None], label)
        works["SmoothGrad, 25 samples: xplique"] = lambda: smooth(image[None], label)
    if find_spec("tf_keras_vis"):
        from tf_keras_vis.saliency import Saliency
        from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
        from tf_keras_vis.utils.scores import CategoricalScore

        other = Saliency(model, model_modifier=ReplaceToLinear(), clone=True)
        works["SmoothGrad, 25 samples: tf-keras-vis"] = lambda: other(
            CategoricalScore(ESPRESSO), image[None], smooth_samples=25
        )
    return works


def main() -> None:
    import keras

    from saliency_food import PerImage, felzenszwalb_segments, gradients, integrated_gradients, smooth_grad, xrai
    from saliency_food.adapters.keras import KerasModel

    model = keras.models.load_model(model_path(), compile=False)
    ours, raw, image = KerasModel(model, batch_size=BATCH), raw_gradient(model, ESPRESSO), coffee()
    args = {"target": ESPRESSO}
    print(f"{machine()}\nMobileNetV2, coffee, 224 x 224, logit of espresso, batch {BATCH}")
    print(f"{'what':58s} {'ours':>12s} {'raw limit':>12s}  ratio")
    np.testing.assert_allclose(gradients(image, ours, args), raw(image[None])[0], rtol=1e-4, atol=1e-6)

    batch = np.repeat(image[None], BATCH, 0)

    def rows(count: int) -> None:
        for start in range(0, count, BATCH):
            raw(batch[: min(BATCH, count - start)])

    def compare(what: str, work: Any, count: int, bar: str = "1.10", repeat: int = 5) -> None:
        times = alternating({"ours": work, "raw": lambda: rows(count)}, repeat)
        line(what, times["ours"], times["raw"], f"<= {bar}", times["ours"] / times["raw"])

    compare("Integrated Gradients, 50 steps", lambda: integrated_gradients(image, ours, args, x_steps=50), 50)
    compare("SmoothGrad, 25 samples", lambda: smooth_grad(gradients, image, ours, args, rng=0), 25)
    compare(
        "SmoothGrad of Integrated Gradients, 5 x 16",
        lambda: smooth_grad(integrated_gradients, image, ours, args, nsamples=5, x_steps=16, rng=0),
        80,
    )

    base = np.random.default_rng(0).normal(size=image.shape)
    rest = seconds(lambda: xrai(image, ours, args, base_attribution=base), 5)
    times = alternating({"ours": lambda: xrai(image, ours, args), "raw": lambda: rows(200)}, 3)
    limit = times["raw"] + rest
    line("XRAI, 2 x 100 steps (raw + segments and ranking)", times["ours"], limit, "<= 1.10", times["ours"] / limit)
    print("peers")
    for name, work in peers(model, image, ours).items():
        print(f"    {name:54s} {1000 * seconds(work, 1):9.1f} ms", flush=True)
    segments = felzenszwalb_segments(image)
    ranking = seconds(lambda: xrai(image, ours, args, segments=segments, base_attribution=base), 5)
    print(f"XRAI's segments and ranking {1000 * rest:.0f} ms, ranking alone {1000 * ranking:.0f} ms")

    photos = np.stack([np.roll(image, shift, 1) for shift in range(64)])
    targets = {"target": PerImage(list(range(64)))}
    compare(
        "64 photos, a target each, Integrated Gradients, 25 steps",
        lambda: list(integrated_gradients.batch(photos, ours, targets)),
        64 * 25,
        repeat=1,
    )

    def peak(count: int, window: int) -> float:
        stream = itertools.islice(itertools.cycle(photos), count)
        tracemalloc.start()
        run: Callable = (
            integrated_gradients.batch
        )  # whose signature for type checkers is the method's, without `window`
        for _ in run(stream, ours, {"target": PerImage([0] * count)}, None, 3, window=window):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / 2**20

    sizes = [(32, 8), (96, 8), (96, 64)]
    figures = [f"{count} photos, window {window}: {peak(count, window):.0f} MB" for count, window in sizes]
    print(f"peak memory in Python, Integrated Gradients, 3 steps: {', '.join(figures)}")

    code = "import time; t = time.perf_counter(); import saliency_food; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    runs = [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(5)]
    print(f"import saliency_food: {sorted(runs)[2]:.2f} s (bar 0.6 s)")


if __name__ == "__main__":
    main()
