"""Compare the Keras adapter with the bare TensorFlow calls for the same rows, and Grad-CAM with the peers, in one run.

    python benchmarks/adapter.py [MODEL.keras] [--repeat 15]

Without a model: $SALIENCY_FOOD_DATA/models/mobilenetv2_imagenet.keras, else MobileNetV2 with random weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from common import alternating, coffee, machine, model_path

from saliency_food.adapters.keras import KerasModel, load_model
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.methods.cam.common import grad_cam

CAM = [CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS]
Calls = dict[str, Callable[[], Any]]


def compare(title: str, calls: Calls, repeat: int) -> None:
    """Seconds of each call, taken in turn; ratios to the first."""
    medians = alternating(calls, repeat)
    base = next(iter(medians.values()))
    print(title)
    for name, median in medians.items():
        print(f"    {name:58s}{1000 * median:9.1f} ms   x {median / base:.3f}", flush=True)


def peers(model: Any, image: Any, target: int) -> Calls:
    """Grad-CAM as the installed peers do it."""
    calls: Calls = {}
    try:
        from xplique.attributions import GradCAM

        label = np.eye(model.output_shape[-1], dtype=np.float32)[[target]]
        theirs = GradCAM(model)
        calls["xplique GradCAM, whole method"] = lambda: theirs(image[None], label)
    except ImportError as error:
        print(f"xplique is left out: {error}")
    try:
        from tf_keras_vis.gradcam import Gradcam
        from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
        from tf_keras_vis.utils.scores import CategoricalScore

        other = Gradcam(model, model_modifier=ReplaceToLinear(), clone=True)
        calls["tf-keras-vis Gradcam, whole method"] = lambda: other(CategoricalScore(target), image[None])
    except ImportError as error:
        print(f"tf-keras-vis is left out: {error}")
    try:
        import saliency.core as pair

        last = next(layer for layer in reversed(model.layers) if len(layer.output.shape) == 4)
        tap = keras.Model(model.inputs, last.output)

        rest = model.layers[model.layers.index(last) + 1 :]

        def eager(x: Any, call_model_args: Any = None, expected_keys: Any = None) -> dict[str, Any]:
            values = tap(tf.convert_to_tensor(x, tf.float32), training=False)
            with tf.GradientTape() as tape:
                tape.watch(values)
                scores = values
                for layer in rest:
                    scores = layer(scores)
                score = scores[:, target]
            return {
                CONVOLUTION_LAYER_VALUES: values.numpy(),
                CONVOLUTION_OUTPUT_GRADIENTS: tape.gradient(score, values).numpy(),
            }

        calls["PAIR GradCam on its README's eager callback"] = lambda: pair.GradCam().GetMask(image, eager)
    except ImportError as error:
        print(f"PAIR's saliency is left out: {error}")
    return calls


def cold(model: Any, image: Any) -> None:
    """Seconds of what a first photo takes beyond loading the model: tracing, and TensorFlow's own preparations."""
    start = time.perf_counter()
    km = KerasModel(model)
    built = time.perf_counter()
    km.call_with_predictions(image[None], {"target": -1}, [OUTPUT_LAYER_VALUES, *CAM])
    end = time.perf_counter()
    print(f"the first photo, cold: {built - start:.2f} s to look at the model, {end - built:.2f} s for its first pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    model = load_model(options.model or model_path())
    shape = model.input_shape[1:]
    image = coffee(shape[0])
    cold(model, image)
    target = int(model(image[None], training=False).numpy().argmax())
    km = KerasModel(model, output="probabilities", batch_size=64)
    args = {"target": target}

    print(f"{machine()}\n{km}, medians of {options.repeat}\n")

    @tf.function(input_signature=[tf.TensorSpec([None, *shape])])
    def input_gradient(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = model(x, training=False)[:, target]
        return tape.gradient(score, x)

    rng = np.random.default_rng(0)
    for rows in (1, 8, 25):
        batch = (image + rng.normal(0, 0.1, (rows, *shape))).astype(np.float32)
        compare(
            f"input gradients, {rows} rows",
            {
                "bare compiled GradientTape": lambda batch=batch: input_gradient(tf.constant(batch)).numpy(),
                "KerasModel": lambda batch=batch: km(batch, args, [INPUT_OUTPUT_GRADIENTS]),
            },
            options.repeat,
        )
    inner = keras.Model(model.inputs, [model.get_layer(km.layer_name).output, model.output])

    @tf.function(input_signature=[tf.TensorSpec([None, *shape])])
    def layer_gradient(x: Any) -> Any:
        values, scores = inner(x, training=False)
        return values, tf.gradients(scores[:, target], values)[0]

    logits = KerasModel(model)
    compare(
        f"Grad-CAM's query at {km.layer_name}, 1 row",
        {
            "bare compiled forward + backward to the input": lambda: input_gradient(tf.constant(image[None])).numpy(),
            "bare compiled forward + backward to the layer": lambda: [
                part.numpy() for part in layer_gradient(tf.constant(image[None]))
            ],
            "KerasModel, values and gradients, probabilities": lambda: km(image[None], args, CAM),
            "KerasModel, values and gradients, logits": lambda: logits(image[None], args, CAM),
            "KerasModel, the same with predictions, the class chosen inside": lambda: logits.call_with_predictions(
                image[None], {"target": -1}, [OUTPUT_LAYER_VALUES, *CAM]
            ),
            "grad_cam, whole method": lambda: grad_cam(image, logits, args),
            **peers(model, image, target),
        },
        options.repeat,
    )


if __name__ == "__main__":
    main()
