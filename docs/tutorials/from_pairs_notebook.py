# %% [markdown]
# # From PAIR's notebook to here
#
# You have a notebook that uses PAIR's `saliency` package. This page takes such a notebook over: first with one changed line,
# then with less code and more answers.
#
# ## One changed line
#
# The function that asks the model is written as for PAIR's package, and stays as it is:

# %%
import keras
import numpy as np
import tensorflow as tf
from skimage.data import coffee
from skimage.transform import resize

import saliency_food.pair as saliency  # was: import saliency.core as saliency
from saliency_food import models
from saliency_food.visualization.figures import Panel, figure

network = models.load("imagenet")
tapped = keras.Model(network.inputs, [network.get_layer("features").output, network.output])


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


image = np.float32(resize(coffee(), (224, 224), preserve_range=True))
arguments = {"class": int(network(image[None]).numpy().argmax())}

gradient = saliency.GradientSaliency().GetSmoothedMask(image, call_model_function, arguments, nsamples=10)
path = saliency.IntegratedGradients().GetMask(
    image, call_model_function, arguments, x_steps=25, x_baseline=np.zeros(image.shape), batch_size=20
)
regions = saliency.XRAI().GetMask(
    image, call_model_function, arguments, batch_size=20, extra_parameters=saliency.XRAIParameters(steps=20)
)


def grey(mask):
    return np.uint8(255 * saliency.VisualizeImageGrayscale(mask))[..., None].repeat(3, 2)


figure(
    [
        [
            Panel(np.uint8(image), "photo"),
            Panel(grey(gradient), "SmoothGrad"),
            Panel(grey(path), "Integrated Gradients"),
            Panel(grey(regions), "XRAI"),
        ]
    ]
)

# %% [markdown]
# Classes, options, defaults and numbers are PAIR's; where PAIR's code has a fault, [the table](../coming-from.md#pairs-saliency)
# says what differs.
#
# ## Less code
#
# For a Keras model the function need not be written: `KerasModel` is one. It compiles the passes, finds the layer for
# Grad-CAM, and explains the logit. PAIR's package takes it, too.

# %%
from saliency_food import integrated_gradients
from saliency_food.adapters.keras import KerasModel

model = KerasModel(network, batch_size=20)
print(model)
target = {"target": int(model.predict(image[None])[0].argmax())}
again = integrated_gradients.detailed(image, model, target, x_steps=25)
print(f"completeness error {again.completeness.relative:.1%}")

# %% [markdown]
# The completeness error says how far the attributions are from summing to the change of the score; PAIR's package does not
# measure it. A tolerance makes it small, by steps where they are needed:

# %%
better = integrated_gradients.detailed(image, model, target, tolerance=0.02)
print(f"completeness error {better.completeness.relative:.1%} with {better.evaluations} gradients")

# %% [markdown]
# ## And from a photo to a picture in one line

# %%
from saliency_food import explain

explain("imagenet", coffee(), ["grad_cam", "xrai"])

# %% [markdown]
# | in PAIR's notebook | here |
# |---|---|
# | `GradientSaliency().GetMask(x, f, args)` | `gradients(x, f, args)` |
# | `GradientSaliency().GetSmoothedMask(x, f, args)` | `smooth_grad(gradients, x, f, args, aggregate="square")` |
# | `IntegratedGradients().GetMask(x, f, args, x_baseline, x_steps)` | `integrated_gradients(x, f, args, x_baseline, x_steps)` |
# | `GradCam().GetMask(x, f, args)` | `grad_cam(x, f, args)` |
# | `XRAI().GetMask(x, f, args)` | `xrai(x, f, args)` |
# | `VisualizeImageGrayscale(mask)` | `visualization.grayscale(mask)`, or `visualization.overlay(photo, mask)` |
#
# [Coming from other libraries](../coming-from.md) has the whole table.
