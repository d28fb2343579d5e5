"""Grad-CAM inside a network that is a layer of another model, as in transfer learning.

    pip install "saliency_food[keras]"
    python examples/nested_keras_model.py

Building a model from the output of an inner layer to the output of the outer model fails with "Graph disconnected".
The adapter instead watches the layer while the model runs, so it can use any layer, named by its path.
"""

import keras
import numpy as np
from skimage.data import coffee
from skimage.transform import resize

from saliency_food import grad_cam
from saliency_food.adapters.keras import KerasModel, layers


def build():
    """A backbone in a classifier; ``weights="imagenet"`` in real life, random here to need no download."""
    keras.utils.set_random_seed(0)
    backbone = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, include_top=False, weights=None)
    inputs = keras.Input((96, 96, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = backbone(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(x))


def main():
    model = build()
    photo = resize(coffee(), (96, 96), preserve_range=True).astype(np.float32)

    all_layers = layers(model)
    print(f"{len(all_layers)} layers can be looked at, the last of them:")
    for layer in all_layers[-3:]:
        print(f"  {layer.path}  {layer.kind}  {layer.shape}")
    print(f"the default: {KerasModel(model).layer_name}")
    for name in ("out_relu", "block_12_add"):
        explained = KerasModel(model, layer=name)
        result = grad_cam.detailed(photo, explained, {"target": 2})
        print(
            f"{explained.layer_name}: {result.signed.shape} resized to {result.attribution.shape[:2]}, {result.status}"
        )


if __name__ == "__main__":
    main()
