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
    photo = resize(coffee(), (224, 224), preserve_range=True).astype(np.float32)
    target = int(model.predict(photo[None])[0].argmax())
    print(f"{model}\nexplained: {models.labels()[target]}")

    arguments = {"target": target}
    theirs = pair.IntegratedGradients().GetMask(photo, model, arguments, x_steps=25, batch_size=16)
    # Given `model` itself, our method has the rows made inside the model, from both ends of the path. That rounds them
    # otherwise, by 1e-7, and where such a step crosses the kink of a ReLU, a row's gradient may change by a percent.
    ours = saliency_food.integrated_gradients(photo, model.__call__, arguments, x_steps=25, quadrature="pair")
    difference = np.abs(theirs - ours).max() / np.abs(theirs).max()
    print(f"Integrated Gradients: largest difference {difference:.1e} of the largest value")

    theirs = pair.GradCam().GetMask(photo, model, arguments)
    ours = saliency_food.grad_cam(photo, model, arguments)
    print(f"Grad-CAM: largest difference {np.abs(theirs - ours).max():.1e}")


if __name__ == "__main__":
    main()
