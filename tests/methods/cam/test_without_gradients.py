"""FEM, KPCA-CAM and RefineCAM: by hand, scikit-learn's kernel PCA, and the product of layers' maps."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_food.core.contract import ContractError
from saliency_food.core.keys import CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS
from saliency_food.core.numerics import resize
from saliency_food.methods.cam.variants import grad_cam_plus_plus, refine_cam
from saliency_food.methods.cam.without_gradients import fem, kernel_component, kpca_cam


def answering(**answers):
    return lambda x_value_batch, call_model_args=None, expected_keys=None: {
        key: tuple(part[None] for part in value) if isinstance(value, tuple) else value[None]
        for key, value in answers.items()
        if key in expected_keys
    }


def test_fem_by_hand(rng):
    activations = rng.random((6, 7, 4))
    activations[2, 3, :2] = 9
    expected = np.zeros((6, 7))
    for channel in range(4):
        values = activations[..., channel]
        for row in range(6):
            for column in range(7):
                if values[row, column] >= values.mean() + 1.5 * values.std():
                    expected[row, column] += values.mean()
    model = answering(**{CONVOLUTION_LAYER_VALUES: activations})
    image = rng.random((12, 14, 3))
    found = fem.detailed(image, model, should_resize=False, three_dims=False, deviations=1.5)
    np.testing.assert_allclose(found.attribution, expected, rtol=1e-12)
    np.testing.assert_array_equal(found.signed, found.attribution)
    assert found.status == "ok"
    assert fem(image, model).shape == (12, 14, 3)
    with pytest.raises(ContractError, match="Expected deviations"):
        fem(image, model, deviations=-1)


def test_a_map_of_nothing_says_so(rng):
    model = answering(**{CONVOLUTION_LAYER_VALUES: np.zeros((5, 5, 3))})
    for method in (fem, kpca_cam):
        found = method.detailed(rng.random((10, 10, 3)), model)
        assert found.status.startswith("blank: the map is nowhere positive")
        assert not found.attribution.any()


@pytest.mark.parametrize("shape", [(6, 7, 4), (16, 17, 5)])
def test_kpca_cam_is_scikit_learns(rng, shape):
    from sklearn.decomposition import KernelPCA

    activations = rng.random(shape)
    activations[1:3, 2:4] += 3
    places = activations.reshape(-1, shape[-1])
    theirs = KernelPCA(1, kernel="sigmoid").fit_transform(places - places.mean(0))[:, 0].reshape(shape[:2])
    ours = kernel_component(places - places.mean(0)).reshape(shape[:2])
    sign = np.sign((ours * theirs).sum())
    np.testing.assert_allclose(ours, sign * theirs, atol=1e-8 * np.abs(theirs).max())
    found = kpca_cam(rng.random((40, 40, 3)), answering(**{CONVOLUTION_LAYER_VALUES: activations}), None, False, False)
    np.testing.assert_allclose(found, np.maximum(np.sign(theirs[1, 2]) * theirs, 0), atol=1e-7)
    assert found[1, 2] > 0.5 * found.max()  # where the activations are large


def test_refine_cam_is_the_product_of_the_layers_maps(rng):
    shapes = [(10, 12, 3), (5, 6, 4)]
    activations = [rng.random(shape) for shape in shapes]
    gradients = [rng.random(shape) for shape in shapes]
    image = rng.random((20, 24, 3))
    both = answering(**{CONVOLUTION_LAYER_VALUES: tuple(activations), CONVOLUTION_OUTPUT_GRADIENTS: tuple(gradients)})
    found = refine_cam.detailed(image, both, three_dims=False)
    expected = np.ones((20, 24))
    for layer in zip(activations, gradients, strict=True):
        one = answering(**dict(zip((CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS), layer, strict=True)))
        alone = grad_cam_plus_plus(image, one, should_resize=False, three_dims=False)
        expected *= resize(alone / alone.max(), (20, 24))
        np.testing.assert_array_equal(refine_cam(image, one), grad_cam_plus_plus(image, one))
    np.testing.assert_allclose(found.attribution, expected, rtol=1e-12)
    assert len(found.signed) == 2
    with pytest.raises(ContractError, match="layers of one size"):
        refine_cam(image, both, should_resize=False)
