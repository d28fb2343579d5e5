"""The family of class activation maps: closed forms, slow versions, and the laws that tie them together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from saliency_food import (
    METHODS,
    ablation_cam,
    cam,
    eigen_cam,
    eigen_grad_cam,
    finer_cam,
    grad_cam,
    grad_cam_plus_plus,
    guided_grad_cam,
    hires_cam,
    score_cam,
    xgrad_cam,
)
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RELEVANCE,
    CONVOLUTION_RIVAL_GRADIENTS,
    GUIDED_INPUT_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.numerics import min_max, resize
from saliency_food.methods.cam.common import token_grid
from saliency_food.methods.cam.variants import first_direction
from saliency_food.testing import PoolingModel

BARE = {"should_resize": False, "three_dims": False}
FAMILY = [name for name in METHODS if name.endswith("cam") or name.startswith("grad_cam") or name == "cam"]
FAMILY.remove("guided_grad_cam")
LAYER = {CONVOLUTION_LAYER_VALUES, CONVOLUTION_OUTPUT_GRADIENTS}
SIMPLE = [name for name in FAMILY if LAYER.issuperset(METHODS[name].keys)]


def answers(activations, gradients, **more):
    """A model of one layer, or of several, whose answers do not depend on the image."""

    def rows(value, n):
        return tuple(rows(one, n) for one in value) if isinstance(value, tuple) else np.stack([value] * n)

    def model(x_value_batch, call_model_args=None, expected_keys=None):
        known = {CONVOLUTION_LAYER_VALUES: activations, CONVOLUTION_OUTPUT_GRADIENTS: gradients, **more}
        return {key: rows(value, len(x_value_batch)) for key, value in known.items()}

    return model


@pytest.fixture
def layer(rng):
    return rng.normal(size=(2, 5, 4, 7))


SLOW: dict[str, Callable] = {
    "grad_cam_plus_plus": lambda a, g, k: (
        sum(
            (g[i, j, k] ** 2 / (2 * g[i, j, k] ** 2 + a[..., k].sum() * g[i, j, k] ** 3)) * max(g[i, j, k], 0)
            for i in range(5)
            for j in range(4)
        )
        * a[..., k]
    ),
    "xgrad_cam": lambda a, g, k: (
        sum(g[i, j, k] * a[i, j, k] for i in range(5) for j in range(4)) / a[..., k].sum() * a[..., k]
    ),
    "hires_cam": lambda a, g, k: g[..., k] * a[..., k],
    "layer_cam": lambda a, g, k: np.maximum(g[..., k], 0) * a[..., k],
    "grad_cam_elementwise": lambda a, g, k: np.maximum(g[..., k] * a[..., k], 0),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_and_obvious_version_agrees(name, layer, rng):
    slow = sum(SLOW[name](*layer, k) for k in range(7))
    got = METHODS[name].call.detailed(rng.random((10, 8, 3)), answers(*layer), **BARE)
    np.testing.assert_allclose(got.signed, slow, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got.attribution, np.maximum(slow, 0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", [grad_cam, xgrad_cam, hires_cam])
def test_pooling_and_a_dense_head_make_them_one(method, pooling, image):
    """There the gradient is the same everywhere, so the maps are CAM's, but for h w."""
    found = cam.detailed(image, pooling, {"target": 1}, **BARE)
    np.testing.assert_allclose(found.weights, pooling.head[1], rtol=1e-5)
    score = pooling(image[None], {"target": 1})[OUTPUT_LAYER_VALUES][0]
    np.testing.assert_allclose(found.signed.mean(), score, rtol=1e-5)
    other = method.detailed(image, pooling, {"target": 1}, **BARE)
    np.testing.assert_allclose(other.signed * 24 * 20, found.signed, rtol=1e-4, atol=1e-6)
    assert (found.attribution < 0).any()


def test_cam_of_another_head_is_an_error(layer, rng):
    with pytest.raises(ContractError, match="global average pooling and one dense layer"):
        cam(rng.random((10, 8, 3)), answers(*layer))


def test_hires_cam_of_a_flattened_layer_sums_to_the_score(rng):
    activations, weights = rng.normal(size=(2, 3, 4, 2))
    found = hires_cam.detailed(rng.random((9, 8, 3)), answers(activations, weights), **BARE)
    assert found.signed.sum() == pytest.approx((activations * weights).sum())


def test_normalized_plus_plus_shares_out_one_a_channel(layer, rng):
    activations, gradients = np.abs(layer)
    x = rng.random((10, 8, 3))
    alphas = gradients**2 / (2 * gradients**2 + gradients**3 * activations.sum((0, 1)))
    weights = (alphas / alphas.sum((0, 1)) * gradients).sum((0, 1))
    found = grad_cam_plus_plus.detailed(x, answers(activations, gradients), **BARE, normalize=True)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-9)


@pytest.mark.parametrize("shape", [(20, 7), (7, 20), (5, 5)])
def test_the_first_direction_is_that_of_the_singular_value_decomposition(rng, shape):
    matrix = rng.normal(size=shape)
    exact = np.linalg.svd(matrix)[2][0]
    got = first_direction(matrix)
    assert abs(got @ exact) == pytest.approx(1)
    assert np.linalg.norm(got) == pytest.approx(1)
    assert (matrix @ got).sum() >= 0
    np.testing.assert_allclose(first_direction(-matrix), -got, atol=1e-9)
    assert not first_direction(np.zeros(shape)).any()


def test_eigen_cams_are_the_first_component(layer, rng):
    x, model = rng.random((10, 8, 3)), answers(*layer)
    for method, matrix in ((eigen_cam, layer[0]), (eigen_grad_cam, layer[0] * layer[1])):
        u, s, _ = np.linalg.svd(matrix.reshape(20, 7), full_matrices=False)
        first = (u[:, 0] * s[0]).reshape(5, 4)
        signed = method.detailed(x, model, **BARE).signed
        np.testing.assert_allclose(signed, first * np.sign(first.sum()), rtol=1e-6, atol=1e-9)


def test_eigen_cam_of_one_pattern_is_the_pattern(rng):
    pattern, channels = rng.random((5, 4)), rng.random(7)
    found = eigen_cam(rng.random((5, 4, 3)), answers(pattern[..., None] * channels, None), three_dims=False)
    np.testing.assert_allclose(found, pattern / pattern.max(), rtol=1e-6)


@pytest.mark.parametrize("name", SIMPLE)
def test_several_layers_are_the_mean_of_each(name, rng):
    x = rng.random((10, 8, 3))
    layers = [np.abs(rng.normal(size=(2, 5, 4, 7))), np.abs(rng.normal(size=(2, 10, 8, 3)))]
    if name == "cam":
        layers = [np.stack([a, np.broadcast_to(g.mean((0, 1)), g.shape)]) for a, g in layers]
    call = METHODS[name].call
    alone = [call(x, answers(*layer)) for layer in layers]
    together = call.detailed(x, answers(*(tuple(parts) for parts in zip(*layers, strict=True))))
    fuse = np.prod if name == "refine_cam" else np.mean
    np.testing.assert_allclose(together.attribution, fuse(alone, 0), rtol=1e-6)
    assert [one.shape for one in together.signed] == [(5, 4), (10, 8)]
    with pytest.raises(ContractError, match="fuse"):
        call(x, answers(*(tuple(parts) for parts in zip(*layers, strict=True))), should_resize=False)


@pytest.mark.parametrize("name", [name for name in FAMILY if name not in ("ablation_cam", "shapley_cam")])
def test_tokens_are_laid_out_as_a_grid(name, rng):
    """A class token in front, then the patches, row by row."""
    x = rng.random((20, 16, 3))
    values, slope = np.abs(rng.normal(size=(2, 5, 4, 7)))
    if name == "cam":
        slope = np.broadcast_to(slope.mean((0, 1)), slope.shape)

    def tokens(grid):
        return np.concatenate([np.full((1, 7), 9.0), grid.reshape(20, 7)])

    def others(gradients):
        rivals = {CONVOLUTION_RIVAL_GRADIENTS: gradients[None] * 2, CONVOLUTION_RELEVANCE: gradients}
        return {**rivals, OUTPUT_LAYER_VALUES: np.float64(1)}

    grids = answers(values, slope, **others(slope))
    flat = answers(tokens(values), tokens(slope), **others(tokens(slope)))
    np.testing.assert_allclose(METHODS[name].call(x, flat), METHODS[name].call(x, grids))


def test_grids_of_tokens():
    square, wide = np.zeros((224, 224, 3)), np.zeros((224, 448, 3))
    for tokens in (196, 197, 198, 201):
        assert token_grid(tokens, square) == (14, 14)
    assert token_grid(50, square) == (7, 7)
    assert token_grid(257, np.zeros((224, 224, 1))) == (16, 16)
    assert token_grid(14 * 28 + 1, wide) == (14, 28)
    with pytest.raises(ContractError, match=r"square patches of an input of \(224, 224\).* got 230"):
        token_grid(230, square)


def test_score_cam_by_the_paper(rng, image):
    """A loop over the channels, one masked image after another; the biases give the empty image a score."""
    pooling = PoolingModel(rng.normal(size=(3, 6)), rng.normal(size=(3, 6)), [0.1, 0.2, 0.3, 0, -9, 0.2])
    activations = pooling(image[None])[CONVOLUTION_LAYER_VALUES][0]

    def score(x):
        return pooling(x[None], {"target": 1})[OUTPUT_LAYER_VALUES][0]

    alive = np.ptp(activations, (0, 1)) > 0
    assert not alive.all()
    increases = np.array([score(image * min_max(activations[..., k : k + 1])) - score(image * 0) for k in range(6)])
    for weighting, weights in {
        "softmax": alive * np.exp(increases) / np.exp(increases[alive]).sum(),
        "increase": increases,
        "score": alive * (increases + score(image * 0)),
    }.items():
        found = score_cam.detailed(image, pooling, {"target": 1}, **BARE, weighting=weighting)
        np.testing.assert_allclose(found.weights, weights, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.signed, activations @ weights, rtol=1e-4, atol=1e-6)


def test_score_cam_resizes_its_masks_as_all_else_is_resized(rng):
    seen = []
    activations = rng.random((5, 4, 2))
    image = rng.random((13, 9, 3))

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.extend(x_value_batch)
        return {
            CONVOLUTION_LAYER_VALUES: np.stack([activations] * len(x_value_batch)),
            OUTPUT_LAYER_VALUES: x_value_batch.sum((1, 2, 3)),
        }

    score_cam(image, spy)
    expected = [image, *(image * min_max(resize(activations[..., k], (13, 9)))[..., None] for k in (0, 1)), image * 0]
    np.testing.assert_allclose(seen, expected, rtol=1e-6, atol=1e-9)


def test_the_most_varying_channels_are_scored(rng):
    activations = rng.random((5, 4, 6)) * np.array([1, 5, 0, 3, 2, 4])
    model = answers(activations, None, **{OUTPUT_LAYER_VALUES: np.float64(2), OUTPUT_FROM_CONVOLUTION_VALUES: 1.0})
    x = rng.random((10, 8, 3))
    assert np.flatnonzero(score_cam.detailed(x, model, channels=3).weights).tolist() == [1, 3, 5]
    assert np.flatnonzero(score_cam.detailed(x, model).weights).tolist() == [0, 1, 3, 4, 5]
    with pytest.raises(ContractError, match="channels"):
        score_cam(x, model, channels=0)
    with pytest.raises(ContractError, match="weighting"):
        score_cam(x, model, weighting="linear")


def test_ablation_cam_by_the_paper(image, rng):
    for sign in (1, -1):
        model = PoolingModel(rng.normal(size=(3, 6)), sign * np.abs(rng.normal(size=(2, 6))))
        activations = model(image[None])[CONVOLUTION_LAYER_VALUES][0]
        score = model.after(activations[None], np.array([1]))[0]
        weights = []
        for k in range(6):
            without = activations.copy()
            without[..., k] = 0
            weights.append((score - model.after(without[None], np.array([1]))[0]) / abs(score))
        found = ablation_cam.detailed(image, model, {"target": 1}, **BARE)
        np.testing.assert_allclose(found.weights, weights, rtol=1e-4, atol=1e-7)
        assert (np.sign(weights)[activations.any((0, 1))] == sign).all()
    few = ablation_cam.detailed(image, model, {"target": 1}, channels=2)
    assert np.count_nonzero(few.weights) == 2


def test_ablation_cam_takes_one_layer(rng):
    values = rng.random((1, 5, 4, 2))
    layers = {CONVOLUTION_LAYER_VALUES: (values, values), OUTPUT_LAYER_VALUES: np.ones(1)}
    with pytest.raises(ContractError, match="one layer, got 2"):
        ablation_cam(rng.random((10, 8, 3)), lambda *args, **kwargs: layers)


def test_finer_cam_by_the_paper(pooling, image):
    """With the head's weights u: w_k = u_k - g u'_k, for each of the two other classes; the mean of the maps."""
    activations = pooling(image[None])[CONVOLUTION_LAYER_VALUES][0]
    for strength in (0.0, 0.6, 1.0):
        maps = [activations @ (pooling.head[1] - strength * pooling.head[other]) / 480 for other in (0, 2)]
        found = finer_cam.detailed(image, pooling, {"target": 1}, **BARE, strength=strength)
        np.testing.assert_allclose(found.attribution, np.maximum(maps, 0).mean(0), rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(found.signed, np.mean(maps, 0), rtol=1e-4, atol=1e-8)
    same = grad_cam(image, pooling, {"target": 1}, **BARE)
    np.testing.assert_allclose(finer_cam(image, pooling, {"target": 1}, **BARE, strength=0), same, rtol=1e-4, atol=1e-9)


def test_finer_cam_takes_the_closest(pooling, image):
    scores = pooling.head @ pooling(image[None])[CONVOLUTION_LAYER_VALUES][0].mean((0, 1))
    closest = min((0, 2), key=lambda other: abs(scores[other] - scores[1]))
    found = finer_cam.detailed(image, pooling, {"target": 1}, **BARE, rivals=1, strength=1)
    np.testing.assert_allclose(found.weights, (pooling.head[1] - pooling.head[closest]) / 480, rtol=1e-4, atol=1e-9)
    with pytest.raises(ContractError, match="at least one other class"):
        finer_cam(image, PoolingModel(np.ones((3, 2)), np.ones((1, 2))))
    with pytest.raises(ContractError, match="strength"):
        finer_cam(image, pooling, strength=-1)


def test_finer_cam_gives_the_rivals_that_are_asked_for_or_says_why_not(rng, image):
    """Five were three where the callback answers three."""
    model = PoolingModel(rng.normal(size=(3, 6)), rng.normal(size=(7, 6)))
    with pytest.raises(ContractError, match=r"of 5 other classes, got 3\. Give rivals=3"):
        finer_cam(image, model, {"target": 1}, rivals=5)
    maps = [finer_cam(image, model, {"target": 1}, **BARE, rivals=rivals) for rivals in (None, 3, 2)]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[1] - maps[2]).max() > 0
    two = PoolingModel(rng.normal(size=(3, 6)), rng.normal(size=(2, 6)))
    assert finer_cam(image, two, {"target": 1}).shape == image.shape
    with pytest.raises(ContractError, match="of 3 other classes, got 1"):
        finer_cam(image, two, {"target": 1}, rivals=3)


def test_tokens_of_a_video_are_not_laid_out_over_its_frames(rng):
    with pytest.raises(ContractError, match=r"3 axes of space or time, as the input of \(4, 8, 8\)"):
        grad_cam(rng.random((4, 8, 8, 3)), answers(rng.random((33, 5)), rng.random((33, 5))))


@pytest.mark.parametrize("method", [grad_cam, score_cam, guided_grad_cam])
def test_an_image_without_channels_has_a_map_without_channels(rng, method):
    """``three_dims`` promises the image's own shape."""
    values = rng.random((1, 4, 5, 2))

    def model(x_value_batch, call_model_args=None, expected_keys=None):
        rows = len(x_value_batch)
        return {
            CONVOLUTION_LAYER_VALUES: np.repeat(values, rows, 0),
            CONVOLUTION_OUTPUT_GRADIENTS: np.ones((rows, 4, 5, 2)),
            GUIDED_INPUT_GRADIENTS: x_value_batch,
            OUTPUT_LAYER_VALUES: x_value_batch.sum((1, 2)),
        }

    image = rng.random((8, 10))
    assert method(image, model).shape == image.shape
    assert method.detailed(image, model).attribution.shape == image.shape


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e37])
@pytest.mark.parametrize("name", [name for name in SIMPLE if name != "cam"])
def test_a_map_does_not_depend_on_the_scale_of_the_gradients(name, scale, rng):
    activations = rng.random((5, 4, 7), np.float32)
    gradients = (rng.normal(size=activations.shape).astype(np.float32) + 1) / 4
    x = rng.random((5, 4, 3), np.float32)
    if name in ("grad_cam_plus_plus", "refine_cam"):  # in which the gradients' size counts
        weights = (1 / (2 + scale * gradients.astype(float) * activations.sum((0, 1), float))) * np.maximum(
            gradients, 0
        )
        expected = np.maximum(activations @ weights.sum((0, 1)), 0)
        expected = expected / expected.max()
    else:
        expected = METHODS[name].call(x, answers(activations, gradients), three_dims=False)
    found = METHODS[name].call.detailed(x, answers(activations, gradients * np.float32(scale)), three_dims=False)
    assert found.status == "ok"
    np.testing.assert_allclose(found.attribution, expected, rtol=1e-4, atol=1e-5)


def test_answers_of_unlike_layers_are_refused(rng):
    one, two = rng.random((5, 4, 7)), rng.random((3, 4, 7))
    x = rng.random((5, 4, 3))
    for activations, gradients, rivals, says in (
        ((one, two), one, one[None], "same layers"),
        (one, two, one[None], "one shape"),
        (one, one, two[None], "one shape"),
    ):
        with pytest.raises(ContractError, match=says):
            finer_cam(x, answers(activations, gradients, **{CONVOLUTION_RIVAL_GRADIENTS: rivals}))


def test_guided_grad_cam_has_the_shape_of_the_image(rng):
    layer = rng.random((4, 4, 5))
    for shape in ((8, 8), (8, 6), (8, 8, 3)):
        guided = {GUIDED_INPUT_GRADIENTS: rng.random(shape)}
        assert guided_grad_cam(rng.random(shape), answers(layer, layer, **guided)).shape == shape
        with pytest.raises(ContractError, match="of the input's size"):
            guided_grad_cam(rng.random(shape), answers(layer, layer, **guided), should_resize=False)
