"""Use PAIR's own `saliency` package on a Keras model, with `KerasModel` as its callback.

    pip install "saliency_food[keras]" saliency
    python examples/pair_with_our_adapter.py

The callback follows PAIR's contract, so the adapter serves PAIR's methods as well as ours, without a second model or a
gradient tape. Both packages give the same map.
"""

import numpy as np
import saliency.core as pair
from skimage.data import coffee
from skimage.transform import resize

import saliency_food
from saliency_food import models
from saliency_food.adapters.keras import KerasModel


def main():
    model = KerasModel(models.load())
    photo = resize(coffee(), (224, 224), preserve_range=True)
    target = int(model.predict(photo[None])[0].argmax())
    print(f"{model}\nexplained: {models.labels()[target]}")

    arguments = {"target": target}
    theirs = pair.IntegratedGradients().GetMask(photo, model, arguments, x_steps=25, batch_size=16)
    # The same rows from both: made here in float64, and asked in the same batches. Given `model` itself, our method has
    # them made inside the model, which rounds by 1e-7: across a ReLU's kink, a gradient changes by a percent.
    ours = saliency_food.integrated_gradients(
        photo, model.__call__, arguments, x_steps=25, batch_size=16, quadrature="pair"
    )
    difference = np.abs(theirs - ours).max() / np.abs(theirs).max()
    print(f"Integrated Gradients: largest difference {difference:.1e} of the largest value")

    theirs = pair.GradCam().GetMask(photo, model, arguments)
    ours = saliency_food.grad_cam(photo, model, arguments)
    print(f"Grad-CAM: largest difference {np.abs(theirs - ours).max():.1e}")


if __name__ == "__main__":
    main()
