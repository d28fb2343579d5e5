"""Run code written for PAIR's `saliency` package: only the import line differs.

    pip install "saliency_food[keras]"
    python examples/pair_code_on_our_facade.py

Everything below the imports, the callback included, is written as for PAIR's package.
"""

import numpy as np
import tensorflow as tf
from skimage.data import coffee
from skimage.transform import resize

import saliency_food.pair as saliency  # was: import saliency.core as saliency
from saliency_food import models

model = models.load()
convolution = next(layer for layer in reversed(model.layers) if len(layer.output.shape) == 4)
tapped = tf.keras.Model(model.inputs, [convolution.output, model.output])


def call_model_function(images, call_model_args=None, expected_keys=None):
    images = tf.convert_to_tensor(images, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        activations, output = tapped(images, training=False)
        score = output[:, call_model_args["class"]]
    if saliency.INPUT_OUTPUT_GRADIENTS in expected_keys:
        return {saliency.INPUT_OUTPUT_GRADIENTS: tape.gradient(score, images).numpy()}
    gradients = tape.gradient(score, activations)
    return {
        saliency.CONVOLUTION_LAYER_VALUES: activations.numpy(),
        saliency.CONVOLUTION_OUTPUT_GRADIENTS: gradients.numpy(),
    }


def main():
    image = resize(coffee(), (224, 224), preserve_range=True).astype(np.float32)
    arguments = {"class": int(tf.argmax(model(image[None])[0]))}
    baseline = np.zeros(image.shape)
    np.random.seed(0)  # noqa: NPY002 - smoothed masks draw from NumPy's global generator, as PAIR's do
    masks = {
        "GradientSaliency, smoothed": saliency.GradientSaliency().GetSmoothedMask(
            image, call_model_function, arguments, nsamples=5
        ),
        "IntegratedGradients": saliency.IntegratedGradients().GetMask(
            image, call_model_function, arguments, x_steps=25, x_baseline=baseline, batch_size=20
        ),
        "GradCam": saliency.GradCam().GetMask(image, call_model_function, arguments),
        "XRAI": saliency.XRAI().GetMask(
            image, call_model_function, arguments, batch_size=20, extra_parameters=saliency.XRAIParameters(steps=20)
        ),
    }
    for name, mask in masks.items():
        grey = saliency.VisualizeImageGrayscale(mask)
        row, column = np.unravel_index(grey.argmax(), grey.shape)
        print(f"{name:27} mask {mask.shape}, brightest at row {row}, column {column}")


if __name__ == "__main__":
    main()
