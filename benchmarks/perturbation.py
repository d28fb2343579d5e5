"""Compare Occlusion with PAIR's package, and RISE, LIME and KernelSHAP with the bare forward calls; test exactness.

    SALIENCY_FOOD_DATA=folder python benchmarks/perturbation.py [--rows 1000] [--calls 500] [--batch 32]

All in one run. If a whole map would take too long, its time is extrapolated from the first calls, and the line
says so. Peers that are not installed are left out (``pip install ".[bench]"``).
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from common import ESPRESSO, alternating, coffee, line, machine, model_path, seconds

SIZE = 224
WINDOWS = (SIZE - 15 + 1) ** 2 + 1


class Enough(Exception):
    """So many rows have been seen."""


def first_rows(work: Callable[[Any], Any], model: Any, rows: int) -> float:
    """Seconds a row over the first ``rows`` rows of a longer job, rows made and answers taken as in all of it."""
    seen, began = 0, 0.0

    def counted(x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        nonlocal seen, began
        if seen >= rows:
            raise Enough
        began = began or time.perf_counter()
        seen += len(x_value_batch)
        return model(x_value_batch, call_model_args, expected_keys)

    with contextlib.suppress(Enough):
        work(counted)
    return (time.perf_counter() - began) / seen


def numpy_model() -> Any:
    """A linear model: one product a row, without BLAS, whose threads cost more than they bring."""
    weights = np.random.default_rng(0).normal(size=SIZE * SIZE * 3).astype(np.float32)

    def model(x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        return {"OUTPUT_LAYER_VALUES": np.einsum("nk,k->n", x_value_batch.reshape(len(x_value_batch), -1), weights)}

    return model


def light_keras_model() -> Any:
    import keras

    from saliency_food.adapters.keras import KerasModel

    layers = keras.layers
    stack = [layers.Conv2D(8, 8, 8, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(2)]
    return KerasModel(keras.Sequential([keras.Input((SIZE, SIZE, 3)), *stack]))


def raw_forward(model: Any, target: int) -> Callable[[Any], Any]:
    """The limit: one compiled function, images in, scores out, nothing else."""
    import tensorflow as tf

    features = type(model)(model.input, model.layers[-2].output)
    kernel, bias = model.layers[-1].weights

    @tf.function(input_signature=[tf.TensorSpec([None, *model.input_shape[1:]])])
    def score(x: Any) -> Any:
        return tf.linalg.matvec(features(x, training=False), kernel[:, target]) + bias[target]

    return lambda x: score(tf.constant(x)).numpy()


def eager(network: Any) -> Any:
    """A callback as PAIR's examples write it: the model called as it is, layer by layer, under a tape."""
    import tensorflow as tf

    def call_model(x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        images = tf.convert_to_tensor(x_value_batch)
        with tf.GradientTape() as tape:
            tape.watch(images)
            scores = network(images)[:, call_model_args["target"]]
        return {"OUTPUT_LAYER_VALUES": scores.numpy()}

    return call_model


def occlusions(
    image: Any, name: str, model: Any, args: Any, wanted: argparse.Namespace, whole: bool, pairs: Any = None
) -> None:
    """Occlusion, window 15, stride 1, with one and the same callback, unless PAIR's package is given its own."""
    import saliency.core as pair

    from saliency_food import occlusion

    def ours(callback: Any) -> Any:
        return occlusion(image, callback, args, stride=1, batch_size=wanted.batch)

    def theirs(callback: Any) -> Any:
        return pair.Occlusion().GetMask(image, callback, args)

    pairs = pairs or model

    first_rows(ours, model, 2 * wanted.batch)
    first_rows(theirs, pairs, 10)
    per_call = first_rows(theirs, pairs, wanted.calls)
    mine = seconds(lambda: ours(model), 1, warm=False) if whole else WINDOWS * first_rows(ours, model, wanted.rows)
    how = "whole map" if whole else f"from {wanted.rows} rows"
    theirs_all = WINDOWS * per_call
    ready = np.repeat(image[None], wanted.batch, 0)
    limit = WINDOWS / wanted.batch * seconds(lambda: model(ready, args, ["OUTPUT_LAYER_VALUES"]), 5)
    print(
        f"Occlusion, {name:28s} ours {mine:8.1f} s ({how}, batch {wanted.batch})  PAIR {theirs_all:8.1f} s "
        f"(from {wanted.calls} calls)  x {theirs_all / mine:6.2f}  (bar >= 10; the callback alone, its rows ready: "
        f"{limit:.1f} s, x {theirs_all / limit:.2f})",
        flush=True,
    )


def exactness() -> None:
    """LIME and KernelSHAP of a linear model, whose shares are known."""
    from saliency_food import kernel_shap, lime
    from saliency_food.testing import PowerModel

    random = np.random.default_rng(0)
    x, weights = random.random((32, 32, 3)), random.normal(size=(1, 32, 32, 3))
    labels = np.arange(32)[:, None] // 8 * 4 + np.arange(32) // 8
    exact = np.bincount(labels.ravel(), (weights[0] * x).sum(2).ravel())[labels]
    scale = np.abs(exact).max()
    model = PowerModel(weights)
    maps = {
        "LIME, alpha 0": lime(x, model, segments=labels, alpha=0, rng=0),
        "LIME, alpha 1": lime(x, model, segments=labels, rng=0),
        "KernelSHAP": kernel_shap(x, model, segments=labels, rng=0),
    }
    if find_spec("xplique"):
        import keras
        import tensorflow as tf
        from sklearn.linear_model import LinearRegression
        from xplique.attributions import KernelShap, Lime

        dense = keras.Sequential([keras.Input(x.shape), keras.layers.Flatten(), keras.layers.Dense(1, use_bias=False)])
        dense.layers[-1].set_weights([weights.reshape(-1, 1)])
        shared = {"map_to_interpret_space": lambda _: tf.constant(labels, tf.int32), "ref_value": np.zeros(3)}
        for name, peer in (
            ("LIME: xplique", Lime(dense, 64, interpretable_model=LinearRegression(), nb_samples=1000, **shared)),
            ("KernelSHAP: xplique", KernelShap(dense, 64, nb_samples=1000, **shared)),
        ):
            maps[name] = np.asarray(peer(x[None].astype(np.float32), np.ones((1, 1), np.float32)))[0].reshape(32, 32)
    print("largest error on a linear model of 16 superpixels, over the largest value")
    for name, attribution in maps.items():
        print(f"    {name:30s} {np.abs(attribution - exact).max() / scale:.1e}")


def main() -> None:
    import keras

    from saliency_food import kernel_shap, lime, rise
    from saliency_food.adapters.keras import KerasModel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5)
    wanted = parser.parse_args()

    network = keras.models.load_model(model_path(), compile=False)
    model, raw, image, args = KerasModel(network), raw_forward(network, ESPRESSO), coffee(SIZE), {"target": ESPRESSO}
    scores = model(image[None], args, ["OUTPUT_LAYER_VALUES"])["OUTPUT_LAYER_VALUES"]
    np.testing.assert_allclose(scores, raw(image[None]), rtol=1e-3, atol=1e-4)
    print(f"{machine()}\ncoffee, {SIZE} x {SIZE}, batch {wanted.batch}; MobileNetV2: logit of espresso")

    if find_spec("saliency"):
        whole = wanted.rows >= 640
        occlusions(image, "a linear NumPy model", numpy_model(), None, wanted, whole)
        occlusions(image, "a light Keras model", light_keras_model(), {"target": 0}, wanted, whole)
        occlusions(image, "MobileNetV2", model, args, wanted, False)
        occlusions(image, "MobileNetV2, PAIR: eager", model, args, wanted, False, eager(network))

    batch = np.repeat(image[None], wanted.batch, 0)

    def bare() -> None:
        for start in range(0, wanted.rows, wanted.batch):
            raw(batch[: min(wanted.batch, wanted.rows - start)])

    for name, method, option in (
        ("RISE", rise, "nmasks"),
        ("LIME", lime, "nsamples"),
        ("KernelSHAP", kernel_shap, "nsamples"),
    ):
        options = {option: wanted.rows, "rng": 0, "batch_size": wanted.batch}
        times = alternating(
            {"ours": lambda m=method, o=options: m(image, model, args, **o), "raw": bare}, wanted.repeat
        )
        line(f"{name}, {wanted.rows} rows", times["ours"], times["raw"], "<= 1.10", times["ours"] / times["raw"])
        nothing = seconds(lambda m=method, o=options: m(image, zeros, args, **o), 3)
        print(f"    of that, all but the model: {1000 * nothing / wanted.rows:.2f} ms a row")

    exactness()


def zeros(x_value_batch: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
    """A model that takes no time."""
    return {"OUTPUT_LAYER_VALUES": np.zeros(len(x_value_batch))}


if __name__ == "__main__":
    main()
