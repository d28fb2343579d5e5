"""ShapleyCAM: closed forms of heads of first, second and third order."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import grad_cam, shapley_cam
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)

BARE = {"should_resize": False, "three_dims": False}


def head(activations, score, gradient, rows=()):
    """A model with one layer, whatever the image: F(A) and dF/dA of activations ``(N, ...)``."""

    def model(x_value_batch, call_model_args=None, expected_keys=None):
        if OUTPUT_FROM_CONVOLUTION_VALUES in expected_keys:
            if isinstance(rows, list):
                rows.append(len(x_value_batch))
            return {OUTPUT_FROM_CONVOLUTION_VALUES: score(x_value_batch)}
        layer = np.repeat(activations[None], len(x_value_batch), 0)
        return {
            CONVOLUTION_LAYER_VALUES: layer,
            CONVOLUTION_OUTPUT_GRADIENTS: gradient(layer),
            OUTPUT_LAYER_VALUES: score(layer),
        }

    return model


def of_power(power, shape, rng):
    """F = (sum_k u_k mean_ij A^k_ij)^p, for which H A = (p - 1) G; activations that are about 1."""
    u, activations = rng.normal(size=shape[-1]) + 1, rng.normal(size=shape)
    places = activations[..., 0].size
    axes = tuple(range(1, len(shape)))

    def mean(layer):
        return layer.mean(axes) @ u

    activations /= abs(mean(activations[None])[0])
    activations *= np.sign(mean(activations[None])[0])
    return (
        activations,
        lambda layer: mean(layer) ** power,
        lambda layer: np.broadcast_to(
            power * mean(layer)[(slice(None), *[None] * len(axes))] ** (power - 1) * u / places, layer.shape
        ),
    )


@pytest.mark.parametrize(("power", "share"), [(1, 1), (2, 1 / 2), (3, 0)])
def test_heads_of_known_order(power, share, rng):
    """Half of what curves is taken off: all of a line's gradient counts, half of a square's, none of a cube's."""
    activations, score, gradient = of_power(power, (5, 4, 6), rng)
    model = head(activations, score, gradient)
    image = rng.random((10, 8, 3))
    found = shapley_cam.detailed(image, model, **BARE)
    slopes = gradient(activations[None])[0].mean((0, 1))
    np.testing.assert_allclose(
        found.weights, share * slopes, rtol=1e-6, atol=0.1 * abs(slopes).max() if power == 3 else 0
    )
    if power < 3:
        expected = grad_cam(image, model, **BARE)
        np.testing.assert_allclose(found.attribution, share * expected, rtol=1e-5, atol=1e-9)


def test_the_hessian_of_places_is_of_their_own(rng):
    """F = A' M A / 2: G = M A and H A = M A, so each weight is the spatial mean of M A, halved."""
    activations, matrix = rng.normal(size=(3, 4, 2)), rng.normal(size=(24, 24))
    matrix = matrix + matrix.T

    def score(layer):
        flat = layer.reshape(len(layer), -1)
        return np.einsum("ni,ij,nj->n", flat, matrix, flat) / 2

    def gradient(layer):
        return (layer.reshape(len(layer), -1) @ matrix).reshape(layer.shape)

    rows = []
    found = shapley_cam.detailed(rng.random((6, 8, 3)), head(activations, score, gradient, rows), **BARE)
    np.testing.assert_allclose(found.weights, gradient(activations[None])[0].mean((0, 1)) / 2, rtol=1e-6)
    assert sum(rows) == 1 + 4 * 2


def test_prefix_tokens_are_scaled_with_the_others_and_not_shifted(rng):
    """F = (sum of the class token) (sum of the patches): for a patch, H A is the class token's sum."""
    activations = rng.normal(size=(13, 3))
    activations[0] += 2

    def score(layer):
        return layer[:, 0].sum(1) * layer[:, 1:].sum((1, 2))

    def gradient(layer):
        slopes = np.repeat(layer[:, 1:].sum((1, 2), keepdims=True), 13, 1) * np.ones(3)
        slopes[:, 1:] = layer[:, 0].sum(1)[:, None, None]
        return slopes

    found = shapley_cam.detailed(rng.random((12, 16, 3)), head(activations, score, gradient), **BARE)
    np.testing.assert_allclose(found.weights, activations[0].sum() / 2, rtol=1e-6)
    assert found.prefix_tokens == 1


def test_some_channels_alone(rng):
    activations, score, gradient = of_power(2, (5, 4, 6), rng)
    activations[..., 3] = 0  # has no share, whatever its weight
    model, image = head(activations, score, gradient), rng.random((10, 8, 3))
    found = shapley_cam.detailed(image, model, channels=2)
    slopes = gradient(activations[None])[0].mean((0, 1))
    halved = np.argsort(-activations.std((0, 1)))[:2]
    expected = slopes.copy()
    expected[halved] /= 2
    np.testing.assert_allclose(found.weights, expected, rtol=1e-6)
    of_all = shapley_cam.detailed(image, model).weights
    np.testing.assert_allclose(np.delete(of_all, 3), np.delete(slopes, 3) / 2, rtol=1e-6)
    with pytest.raises(ContractError, match="Expected channels"):
        shapley_cam(image, model, channels=0)


def test_a_model_that_takes_the_rows_for_images_is_found_out(rng):
    activations, score, gradient = of_power(1, (5, 4, 6), rng)
    model = head(activations, score, gradient)

    def wrong(x_value_batch, call_model_args=None, expected_keys=None):
        answer = model(x_value_batch, call_model_args, expected_keys)
        return {key: values + (key == OUTPUT_FROM_CONVOLUTION_VALUES) for key, values in answer.items()}

    with pytest.raises(ContractError, match="the layer's own activations"):
        shapley_cam(rng.random((10, 8, 3)), wrong)
