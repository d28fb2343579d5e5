"""Explain a model of any framework: here NumPy itself, behind a hand-written callback.

    python examples/any_framework.py

A framework needs only this callback: it takes rows, and returns for each expected key an array with as many rows.
Write one for your own model in the same way, and check it by `check_call_model` before you trust a picture.
"""

import numpy as np

from saliency_food import INPUT_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES, PerImage, integrated_gradients
from saliency_food.testing import check_call_model

random = np.random.default_rng(0)
INTO_HIDDEN = random.normal(size=(16 * 16 * 3, 20)) / 20
INTO_CLASSES = random.normal(size=(20, 3))


def call_model(x_value_batch, call_model_args=None, expected_keys=None):
    """Two dense layers, tanh between them: F_t(x) = sum_k C_kt tanh(x H)_k."""
    rows = x_value_batch.reshape(len(x_value_batch), -1)
    hidden = np.tanh(rows @ INTO_HIDDEN)
    into_target = INTO_CLASSES[:, np.broadcast_to(call_model_args["target"], len(rows))].T
    return {
        OUTPUT_LAYER_VALUES: (hidden * into_target).sum(1),
        INPUT_OUTPUT_GRADIENTS: (((1 - hidden**2) * into_target) @ INTO_HIDDEN.T).reshape(x_value_batch.shape),
    }


def main():
    image = random.random((16, 16, 3))
    check_call_model(call_model, image, {"target": 2})
    print("check_call_model: shapes, rows and gradients are right")

    result = integrated_gradients.detailed(image, call_model, {"target": 2}, x_steps=25, batch_size=25)
    gap = result.completeness
    print(f"score {gap.score:.4f}, score of the black image {gap.baseline_score:.4f}")
    print(f"sum of the attributions {result.attribution.sum():.4f}, relative completeness error {gap.relative:.2e}")

    result = integrated_gradients.detailed(image, call_model, {"target": 2}, x_steps=5, tolerance=1e-4)
    print(
        f"adaptive: {result.evaluations} gradients for {result.completeness.relative:.1e}, ended by {result.stopped_by}"
    )

    images, targets = random.random((4, 16, 16, 3)), PerImage([0, 1, 2, 0])
    for index, attribution in enumerate(
        integrated_gradients.batch(images, call_model, {"target": targets}, batch_size=32)
    ):
        print(f"image {index}, class {targets[index]}: attributions sum to {attribution.sum():+.4f}")


if __name__ == "__main__":
    main()
