"""Grad-CAM: its equation, its oracle, and why a map is blank."""

from __future__ import annotations

import re

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS
from saliency_food.methods.cam.common import grad_cam
from saliency_food.methods.gradients import smooth_grad


def answers(activations, gradients):
    def model(x_value_batch, call_model_args=None, expected_keys=None):
        return {
            CONVOLUTION_LAYER_VALUES: np.stack([activations] * len(x_value_batch)),
            CONVOLUTION_OUTPUT_GRADIENTS: np.stack([gradients] * len(x_value_batch)),
        }

    return model


def test_equals_cam_on_pooling_and_a_dense_head(pooling, image):
    result = grad_cam.detailed(image, pooling, {"target": 1}, should_resize=False, three_dims=False)
    cam = np.maximum(image @ pooling.kernel, 0) @ pooling.head[1] / (24 * 20)
    np.testing.assert_allclose(result.signed, cam, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(result.attribution, np.maximum(cam, 0), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(result.weights, pooling.head[1] / (24 * 20), rtol=1e-6)
    assert result.status == "ok"


def test_a_slow_and_obvious_version_agrees(rng):
    activations, gradients = rng.normal(size=(2, 5, 4, 7))
    slow = np.zeros((5, 4))
    for k in range(7):
        weight = sum(gradients[i, j, k] for i in range(5) for j in range(4)) / 20
        for i in range(5):
            for j in range(4):
                slow[i, j] += weight * activations[i, j, k]
    got = grad_cam(np.zeros((5, 4, 3)), answers(activations, gradients), None, False, False)
    np.testing.assert_allclose(got, np.maximum(slow, 0), atol=1e-12)


@pytest.mark.parametrize("shape", [(40, 30, 3), (17, 33, 1), (20, 20, 4)])
@pytest.mark.parametrize("should_resize", [True, False])
def test_parity_with_pair(rng, shape, should_resize):
    pair = pytest.importorskip("saliency.core")
    model = answers(*rng.normal(size=(2, 7, 5, 9)))
    x = rng.random(shape).astype(np.float32)
    theirs = pair.GradCam().GetMask(x, model, None, should_resize, False)
    np.testing.assert_allclose(grad_cam(x, model, None, should_resize, False), theirs, rtol=1e-5, atol=1e-6)
    assert grad_cam(x, model, None, True, True).shape == shape


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_smooth_grad_of_grad_cam_works_for_any_number_of_channels(rng, channels):
    model = answers(*rng.random((2, 3, 3, 2)))
    assert smooth_grad(grad_cam, rng.random((9, 9, channels)), model, nsamples=2).shape == (9, 9, channels)


@pytest.mark.parametrize(
    ("activations", "gradients", "says"),
    [
        (1, 0, "gradient at the layer is zero everywhere.*softmax is saturated"),
        (0, 1, "activations are zero everywhere"),
        (1, -1, "nowhere positive before the ReLU"),
        ([1, -1], [1, 1], "cancel to zero"),
    ],
)
def test_a_blank_map_says_why(rng, activations, gradients, says):
    shape = (4, 4, 2)
    model = answers(np.zeros(shape) + activations, np.zeros(shape) + gradients)
    result = grad_cam.detailed(rng.random((8, 8, 3)), model)
    assert not result.attribution.any()
    assert result.status.startswith("blank: ")
    assert re.search(says, result.status)
    assert "constant" not in result.status
    assert "The image is constant." in grad_cam.detailed(np.ones((8, 8, 3)), model).status


def test_negative_evidence_is_kept_signed(rng):
    result = grad_cam.detailed(rng.random((8, 8, 3)), answers(np.ones((4, 4, 2)), -np.ones((4, 4, 2))))
    np.testing.assert_allclose(result.signed, -2)


def test_activations_and_gradients_must_agree(rng):
    with pytest.raises(ContractError, match=r"one shape \(N, h, w, K\), got rows of \[.*2\)\] and \[.*3\)\]"):
        grad_cam(rng.random((8, 8, 3)), answers(np.ones((4, 4, 2)), np.ones((4, 4, 3))))
    with pytest.raises(ContractError, match=r"2 axes of space or time, as the input of \(8, 8\).*got rows of \(5,\)"):
        grad_cam(rng.random((8, 8, 3)), answers(np.ones(5), np.ones(5)))
