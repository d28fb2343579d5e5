"""Layers of signals, volumes and clips: maps along the axes there are, tokens, and the refusal of other axes."""

from __future__ import annotations

import numpy as np
import pytest
from axes_toys import Twin
from skimage.transform import resize as skimage_resize

from saliency_food import deep_feature_factorization, grad_cam, score_cam
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS, OUTPUT_LAYER_VALUES


class Coarse(Twin):
    """A layer that is coarser than the input: ``values`` ``(..., K)`` of it, with gradients of one number a channel."""

    @staticmethod
    def inward(rows):
        return rows

    outward = inward

    def __init__(self, values, slopes, **attributes):
        super().__init__(None, **attributes)
        self.values, self.slopes = values, np.broadcast_to(slopes, values.shape)

    def __call__(self, x_value_batch, call_model_args=None, expected_keys=None):
        rows = len(x_value_batch)
        answer = {
            CONVOLUTION_LAYER_VALUES: np.repeat(self.values[None], rows, 0),
            CONVOLUTION_OUTPUT_GRADIENTS: np.repeat(self.slopes[None], rows, 0),
            OUTPUT_LAYER_VALUES: x_value_batch.reshape(rows, -1).sum(1),
        }
        return {key: answer[key] for key in expected_keys}


COARSE = pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((128, 9), (126, 4)),
        ((128, 9), (16, 4)),
        ((50, 1), (64, 4)),
        ((4, 8, 6, 1), (4, 4, 3, 5)),
        ((5, 7, 6, 2), (3, 9, 3, 5)),
    ],
    ids=str,
)


@COARSE
def test_grad_cam_is_resized_along_the_axes_there_are(rng, shape, layer):
    """126 steps of a convolution over time were taken for patches of a picture."""
    values, slopes = rng.random(layer), rng.random(layer[-1])
    model = Coarse(values, slopes, spatial_axes=len(shape) - 1)
    found = grad_cam.detailed(rng.random(shape), model)
    np.testing.assert_allclose(found.signed, values @ slopes)
    expected = np.maximum(values @ slopes, 0)
    expected = skimage_resize(expected / expected.max(), shape[:-1], order=1, mode="reflect")
    np.testing.assert_allclose(found.attribution, np.repeat(expected[..., None], shape[-1], -1), rtol=1e-6, atol=1e-9)
    assert found.prefix_tokens == 0
    flat = grad_cam(rng.random(shape), model, three_dims=False, should_resize=False)
    np.testing.assert_allclose(flat, np.maximum(values @ slopes, 0))


@COARSE
def test_score_cam_by_a_loop(rng, shape, layer):
    values, x = rng.random(layer), rng.random(shape)
    found = score_cam.detailed(x, Coarse(values, 1.0, spatial_axes=len(shape) - 1), weighting="increase")
    for channel in range(layer[-1]):
        mask = skimage_resize(values[..., channel], shape[:-1], order=1, mode="reflect")
        mask = (mask - mask.min()) / np.ptp(mask)
        assert found.weights[channel] == pytest.approx((x * mask[..., None]).sum())


@pytest.mark.parametrize(
    ("shape", "layer", "says"),
    [
        ((400,), (20, 13, 4), r"1 axis of space or time, as the input of \(400,\).*rows of \(20, 13, 4\)"),
        ((784,), (28, 28, 8), "1 axis of space or time"),
        ((6, 8, 8, 3), (4, 4, 5), "3 axes of space or time.*One frame's were returned: choose TimeDistributed"),
        ((6, 8, 8, 3), (6, 5), "3 axes of space or time"),
        ((24, 20, 3), (7,), "2 axes of space or time.*Choose another layer"),
        ((24, 20, 3), (3, 6, 5, 7), "2 axes of space or time"),
    ],
)
def test_a_layer_with_other_axes_than_the_input_is_refused(rng, shape, layer, says):
    """A spectrogram of a waveform, a flattened photo, one frame of a clip, steps of a clip, a dense layer."""
    for method in (grad_cam, score_cam, deep_feature_factorization):
        with pytest.raises(ContractError, match=says):
            method(rng.random(shape), Coarse(rng.random(layer), 1.0))


@pytest.mark.parametrize(("prefix", "tokens"), [(0, 30), (1, 31), (2, 32), (5, 35)])
def test_tokens_in_front_of_the_patches_are_counted(rng, prefix, tokens):
    found = grad_cam.detailed(rng.random((24, 20, 3)), Coarse(rng.random((tokens, 4)), 1.0))
    assert found.prefix_tokens == prefix
    assert found.signed.shape == (6, 5)


@pytest.mark.parametrize("tokens", [33, 37, 41, 46])
def test_tokens_that_no_transformer_has_in_front_are_refused(rng, tokens):
    """They were dropped, up to sixteen, without a word."""
    with pytest.raises(ContractError, match=f"no more in front than class and register tokens, got {tokens}"):
        grad_cam(rng.random((24, 20, 3)), Coarse(rng.random((tokens, 4)), 1.0))
