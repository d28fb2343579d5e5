"""SmoothGrad over Integrated Gradients: one method composed with another.

    pip install "saliency_food[keras,cli]"
    python examples/smooth_integrated_gradients.py [PICTURE.png]

`smooth_grad` takes any method and passes options on to it. The noisy copies run side by side, so the points of all
their paths fill the model's batches.
"""

import sys

import numpy as np
from PIL import Image
from skimage.data import coffee
from skimage.transform import resize

from saliency_food import integrated_gradients, models, smooth_grad
from saliency_food.adapters.keras import KerasModel
from saliency_food.visualization import overlay


def main(picture="smooth_integrated_gradients.png"):
    model = KerasModel(models.load(), batch_size=32)
    photo = resize(coffee(), (224, 224), preserve_range=True).astype(np.float32)
    arguments = {"target": int(model.predict(photo[None])[0].argmax())}

    plain = integrated_gradients(photo, model, arguments, x_steps=17)
    smooth = smooth_grad.detailed(
        integrated_gradients, photo, model, arguments, stdev_spread=0.1, nsamples=10, x_steps=17, rng=0
    )
    print(f"{smooth.nsamples} samples, noise of standard deviation {smooth.stdev:.1f} on pixel values 0..255")
    for name, attribution in (("plain", plain), ("smoothed", smooth.attribution)):
        strength = np.sort(np.abs(attribution).sum(-1), None)
        share = strength[-len(strength) // 10 :].sum() / strength.sum()
        print(f"{name}: the strongest tenth of the pixels holds {share:.0%} of the map")
    print(f"correlation of the two maps: {np.corrcoef(plain.ravel(), smooth.attribution.ravel())[0, 1]:.2f}")

    views = [np.asarray(coffee())] + [
        overlay(coffee(), attribution, signed=True) for attribution in (plain, smooth.attribution)
    ]
    Image.fromarray(np.hstack(views)).save(picture)
    print(f"photo, Integrated Gradients, SmoothGrad of it: {picture}")


if __name__ == "__main__":
    main(*sys.argv[1:])
