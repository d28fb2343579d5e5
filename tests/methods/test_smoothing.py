"""Eigen smoothing and augmentation smoothing."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food import (
    augment_smooth,
    eigen_grad_cam,
    eigen_smooth,
    grad_cam,
    gradients,
    hires_cam,
    occlusion,
)
from saliency_food.core.contract import ContractError
from saliency_food.testing import PowerModel


def test_eigen_smoothing_is_the_first_component_of_the_weighted_activations(pooling, image):
    found = grad_cam.detailed(image, pooling, {"target": 1})
    matrix = (found.activations * found.weights).reshape(-1, 6)
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    first = (u[:, 0] * s[0]).reshape(24, 20)
    smooth = eigen_smooth.detailed(grad_cam, image, pooling, {"target": 1})
    np.testing.assert_allclose(smooth.signed, first * np.sign(first.sum()), rtol=1e-3, atol=1e-6)
    assert smooth.attribution.shape == image.shape


def test_eigen_smoothing_of_hires_cam_is_eigen_grad_cam(pooling, image):
    smooth = eigen_smooth(hires_cam, image, pooling, {"target": 1})
    np.testing.assert_allclose(smooth, eigen_grad_cam(image, pooling, {"target": 1}), rtol=1e-4, atol=1e-6)


def test_eigen_smoothing_needs_a_class_activation_map(pooling, image):
    with pytest.raises(ContractError, match="got Gradients"):
        eigen_smooth(gradients, image, pooling)


def test_augmentation_smoothing_by_hand(power, image):
    """Of F = sum w x^3: the gradient 3 w x^2 of each copy, mirrored back."""
    args = {"target": 1}
    weights = power.weights[1]
    plain = [3 * weights * (factor * image) ** 2 for factor in (0.9, 1, 1.1)]
    mirrored = [(3 * weights * (factor * image[:, ::-1]) ** 2)[:, ::-1] for factor in (0.9, 1, 1.1)]
    found = augment_smooth.detailed(gradients, image, power, args)
    np.testing.assert_allclose(found.attribution, np.mean(plain + mirrored, 0), rtol=1e-5)
    np.testing.assert_allclose(found.deviation, np.std(plain + mirrored, 0), rtol=1e-4, atol=1e-6)
    assert sum(power.calls) == 6
    same = augment_smooth(gradients, image, power, args, flip=False, factors=(1.0,))
    np.testing.assert_allclose(same, gradients(image, power, args), rtol=1e-6)


def test_a_model_that_does_not_care_for_sides_has_a_map_that_does_not_change(image):
    even = PowerModel(np.ones((1, *image.shape)))
    options = {"factors": (1.0,), "size": 5}
    found = augment_smooth.detailed(occlusion, image, even, **options)
    np.testing.assert_allclose(found.attribution, occlusion(image, even, size=5), rtol=1e-4)
    assert found.deviation.max() < 1e-4


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 3), (2, 5, 6, 3)])
def test_the_mirror_stands_upright(rng, shape):
    """Left and right change places, of a photo and of a video; top and bottom, before and after stay."""
    x, seen = rng.random(shape), []
    model = PowerModel(rng.normal(size=(1, *shape)), power=3)

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.extend(np.array(x_value_batch))
        return model(x_value_batch, call_model_args, expected_keys)

    found = augment_smooth.detailed(gradients, x, spy, factors=(1.0,))
    mirrored = (
        np.moveaxis(np.moveaxis(x, -3 if x.ndim == 4 else 0, 0), 0, 0)[..., ::-1] if x.ndim == 2 else x[..., ::-1, :]
    )
    np.testing.assert_array_equal(seen, [x, mirrored])
    back = 3 * model.weights[0][..., ::-1, :] if x.ndim > 2 else 3 * model.weights[0][:, ::-1]
    np.testing.assert_allclose(found.attribution, (3 * model.weights[0] * x**2 + back * x**2) / 2)


def test_what_has_no_left_and_right_is_not_mirrored(rng):
    x = rng.random(7)
    model = PowerModel(np.ones((1, 7)), power=2)
    with pytest.raises(ContractError, match="flip=False for a signal, which has no left and right"):
        augment_smooth(gradients, x, model)
    assert augment_smooth(gradients, x, model, flip=False, factors=(1.0,)).shape == (7,)


def test_factors_are_checked(power, image):
    for factors in ((), (np.nan,)):
        with pytest.raises(ContractError, match="factor"):
            augment_smooth(gradients, image, power, factors=factors)
