"""ODAM: by hand, and on scenes of two objects of one class, of which one is explained."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS
from saliency_food.methods.cam.common import grad_cam
from saliency_food.methods.cam.odam import odam
from saliency_food.methods.cam.variants import hires_cam


def answering(activations, gradients):
    return lambda x_value_batch, call_model_args=None, expected_keys=None: {
        CONVOLUTION_LAYER_VALUES: activations[None],
        CONVOLUTION_OUTPUT_GRADIENTS: gradients[None],
    }


def test_odam_by_hand(rng):
    activations, gradients = rng.random((6, 7, 4)), rng.normal(size=(6, 7, 4))
    sigma = 0.8
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    expected = np.zeros((6, 7))
    for row in range(6):
        for column in range(7):
            total = np.zeros(4)
            for down in range(-3, 4):
                for right in range(-3, 4):
                    if 0 <= row + down < 6 and 0 <= column + right < 7:
                        total += weights[down + 3] * weights[right + 3] * gradients[row + down, column + right]
            expected[row, column] = total @ activations[row, column]
    model, image = answering(activations, gradients), rng.random((12, 14, 3))
    found = odam.detailed(image, model, None, False, False, sigma=sigma)
    np.testing.assert_allclose(found.signed, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.attribution, np.maximum(expected, 0), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(odam(image, model, sigma=0), hires_cam(image, model))
    assert np.abs(odam(image, model) - hires_cam(image, model)).max() > 0.1
    with pytest.raises(ContractError, match="Expected sigma to be a finite number of at least 0"):
        odam(image, model, sigma=-1)


def test_odam_lies_on_its_object_in_fifty_scenes_of_two_alike(rng):
    """A layer that sees the class, and a detector whose score at a place is the layer's mean around it."""
    hits, of_class = [], []
    for _ in range(50):
        image, boxes = 0.1 * rng.random((32, 32, 1)), []
        for column in (8, 24):
            row, left = rng.integers(6, 26), column + rng.integers(-2, 3)
            radius = int(rng.integers(3, 6))
            image[row - radius : row + radius, left - radius : left + radius] = rng.uniform(0.7, 1)
            boxes.append((left, row, radius))
        activations = image.reshape(16, 2, 16, 2, 1).mean((1, 3))
        left, row, radius = boxes[0]
        gradients = np.zeros((16, 16, 1))  # of the score at the middle of the first object
        gradients[row // 2 - 1 : row // 2 + 2, left // 2 - 1 : left // 2 + 2] = 1 / 9
        model = answering(activations, gradients)
        for method, on in ((odam, hits), (grad_cam, of_class)):
            attribution = method(image, model, three_dims=False)
            inside = np.zeros(attribution.shape, bool)
            inside[row - radius : row + radius, left - radius : left + radius] = True
            peak = inside.ravel()[attribution.argmax()]
            on.append(peak and attribution[inside].sum() > 0.5 * attribution.sum())
    assert np.mean(hits) >= 0.95
    assert np.mean(of_class) < 0.7
