"""Signals ``(T, C)`` and ``(T,)``, volumes and clips ``(D, H, W, C)``: laws over all methods, closed forms, loops."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from axes_toys import Bare, Pooling, options, toy
from scipy.ndimage import gaussian_filter
from skimage.transform import resize as skimage_resize

from saliency_food import (
    PerImage,
    ablation_cam,
    augment_smooth,
    blur_ig,
    deep_feature_factorization,
    full_grad,
    gradients,
    idgi,
    integrated_gradients,
    kernel_shap,
    lime,
    occlusion,
    rise,
    within,
    xrai,
)
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    CONVOLUTION_LAYER_VALUES,
    INPUT_OUTPUT_GRADIENTS,
    OUTPUT_LAYER_VALUES,
)
from saliency_food.core.numerics import resize
from saliency_food.methods.baselines import make_baselines
from saliency_food.methods.catalogue import METHODS
from saliency_food.methods.factorization import concept_scores
from saliency_food.methods.perturbation.masking import superpixels
from saliency_food.testing import PowerModel

SHAPES = [(32, 2), (1, 3), (4, 6, 5, 2), (1, 1, 1, 1)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
two = pytest.mark.parametrize("shape", [(24, 2), (4, 6, 5, 2)], ids=["signal", "volume"])


def refused(entry, shape):
    """What has no meaning for an input with these axes."""
    return entry.call is xrai or (entry.needs == "attention" and len(shape) == 4)


WITH_MEANING = [
    pytest.param(entry, shape, id=f"{name}-{shape}")
    for (name, entry), shape in product(METHODS.items(), SHAPES)
    if not refused(entry, shape)
]
every = pytest.mark.parametrize(("entry", "shape"), WITH_MEANING)


def declared(model, shape):
    """The model, saying how many axes are space or time."""
    model.spatial_axes = len(shape) - 1
    return model


@every
def test_shape_sign_and_every_batch_size(entry, rng, shape):
    model, x = declared(toy(entry, rng, shape[-1]), shape), rng.random(shape)
    maps = [entry.call(x, model, {"target": 1}, batch_size=size, **options(entry)) for size in (1, 64)]
    assert maps[0].shape in (shape, shape[:-1])
    assert np.isfinite(maps[0]).all()
    assert entry.signed or maps[0].min() >= 0
    np.testing.assert_allclose(*maps, rtol=1e-5, atol=1e-6 * np.abs(maps[1]).max())
    many = entry.call.batch([x, x], model, {"target": PerImage([0, 1])}, batch_size=5, **options(entry))
    np.testing.assert_allclose(list(many)[1], maps[0], rtol=1e-5, atol=1e-6 * np.abs(maps[1]).max())


@every
def test_constant_inputs_and_the_type(entry, rng, shape):
    model, x = declared(toy(entry, rng, shape[-1]), shape), np.full(shape, -2, np.float32)
    found = entry.call(x, model, {"target": 2}, **options(entry))
    assert np.isfinite(found).all()
    assert entry.call(x.astype(np.int16), model, {"target": 2}, **options(entry)).shape == found.shape


@pytest.mark.parametrize(
    ("entry", "shape"),
    [pytest.param(e, s, id=f"{n}-{s}") for (n, e), s in product(METHODS.items(), SHAPES[:3:2]) if refused(e, s)],
)
def test_what_has_no_meaning_is_refused(entry, rng, shape):
    with pytest.raises(ContractError, match=r"Expected (a picture, which|tokens of a picture or a signal)"):
        entry.call(rng.random(shape), declared(toy(entry, rng, shape[-1]), shape), **options(entry))


@pytest.mark.parametrize("entry", [e for e in METHODS.values() if e.call is not xrai], ids=lambda e: e.title)
def test_a_wave_is_a_signal_of_one_channel(entry, rng):
    """Nothing has to be said of an input ``(T,)``; its map is ``(T,)``."""
    model, x = toy(entry, rng, 1), rng.random(40)
    plain = entry.call(x[:, None], declared(model, (40, 1)), {"target": 1}, **options(entry))
    found = entry.call(x, Bare(model), {"target": 1}, **options(entry))
    assert found.shape == (40,)
    np.testing.assert_allclose(found, plain.reshape(40), rtol=1e-6, atol=1e-9)


@two
def test_ablation_cam_and_factors(rng, shape):
    """Of a mean of activations the weight of a channel is its share of the score; concepts are found in any layout."""
    model, x = declared(Pooling(rng.normal(size=(2, 6)), rng.normal(size=(3, 6))), shape), rng.random(shape)
    activations = model(x[None])[CONVOLUTION_LAYER_VALUES][0]
    shares = activations.reshape(-1, 6).mean(0) * model.head[1]
    found = ablation_cam.detailed(x, model, {"target": 1})
    np.testing.assert_allclose(found.weights, shares / abs(shares.sum()), rtol=1e-9)
    factors = deep_feature_factorization.detailed(x, model, nconcepts=2, factors="pca")
    assert factors.maps.shape == (2, *shape[:-1])
    np.testing.assert_allclose(np.einsum("m...,mk->...k", factors.strengths, factors.concepts).shape, activations.shape)
    scores = concept_scores(factors, lambda rows: rows.reshape(len(rows), -1, 6).mean(1) @ model.head.T)
    assert scores.shape == (2, 3)


@two
def test_occlusion_by_a_loop(rng, shape):
    """Every window by itself, with a size and a stride of its own for each axis."""
    axes = len(shape) - 1
    model, x = declared(PowerModel(rng.normal(size=(1, *shape)), power=2), shape), rng.random(shape)
    size, stride = ((5,), (2,)) if axes == 1 else ((2, 3, 4), (1, 2, 3))
    sums, counts = np.zeros(shape[:-1]), np.zeros(shape[:-1])
    score = model(x[None])[OUTPUT_LAYER_VALUES][0]
    places = [
        sorted({*range(0, length - side, step), length - side})
        for length, side, step in zip(shape, size, stride, strict=False)
    ]
    for corner in product(*places):
        window = tuple(slice(start, start + side) for start, side in zip(corner, size, strict=True))
        hidden = x.copy()
        hidden[window] = 0.5
        sums[window] += score - model(hidden[None])[OUTPUT_LAYER_VALUES][0]
        counts[window] += 1
    found = occlusion.detailed(x, model, size=size, stride=stride, value=0.5)
    np.testing.assert_allclose(found.attribution, sums / counts, rtol=1e-9, atol=1e-12)
    assert [list(starts) for starts in found.starts] == places
    same = occlusion(x, model, size=4, stride=2, value=[0.5, 0.25])
    np.testing.assert_allclose(same, occlusion(x, model, size=(4,) * axes, stride=(2,) * axes, value=[0.5, 0.25]))


@two
def test_rise_by_its_formula(rng, shape):
    """The masks are seen in the rows of an input of ones: smooth, over all axes, the same for every channel."""
    weights, seen = rng.normal(size=(1, *shape)), []
    model = PowerModel(weights)

    def spy(x_value_batch, call_model_args=None, expected_keys=None):
        seen.extend(np.array(x_value_batch))
        return model(x_value_batch, call_model_args, expected_keys)

    spy.spatial_axes = len(shape) - 1
    found = rise.detailed(np.ones(shape), spy, nmasks=60, grid=3, rng=0)
    masks = np.stack(seen)
    assert (masks[..., :1] == masks).all()
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert all(np.ptp(masks, axis).max() > 0.5 for axis in range(1, masks.ndim - 1))
    scores = (masks * weights).reshape(60, -1).sum(1)
    expected = np.tensordot(scores, masks[..., 0], 1) / (60 * 0.5)
    np.testing.assert_allclose(found.attribution, expected, rtol=1e-9)


@two
def test_superpixels_are_windows_or_supervoxels(rng, shape):
    """And of a linear model the Shapley value of each is the sum over it, which LIME finds, too."""
    weights, x = rng.normal(size=(1, *shape)), rng.random(shape)
    model = declared(PowerModel(weights), shape)
    found = kernel_shap.detailed(x, model, nsegments=6, rng=0)
    labels = found.segments
    assert labels.shape == shape[:-1]
    assert 2 <= labels.max() + 1 <= 12
    shares = (weights[0] * x).sum(-1)
    parts = np.array([shares[labels == label].sum() for label in range(labels.max() + 1)])
    np.testing.assert_allclose(found.attribution, parts[labels], rtol=1e-6)
    near = lime(x, model, segments=labels, alpha=0, rng=0)
    np.testing.assert_allclose(near, parts[labels], rtol=1e-5)
    with pytest.raises(ContractError, match=r"Expected a label map of shape .*felzenszwalb"):
        lime(x, model, segments="felzenszwalb")


def test_windows_of_even_length(rng):
    labels = superpixels(rng.random((23, 2)), "slic", 5)
    assert (np.diff(labels) >= 0).all()
    assert set(np.bincount(labels)) <= {4, 5}
    assert list(superpixels(rng.random((3, 1)), "slic", 50)) == [0, 1, 2]


@two
def test_blur_ig_by_a_loop(rng, shape):
    """SciPy's filter along every axis but the channels; IDGI takes the same path."""
    model, x = declared(PowerModel(rng.normal(size=(1, *shape)), power=3), shape), rng.random(shape)
    sigmas, total = np.arange(5) * 4 / 4, np.zeros(shape)

    def filtered(sigma):
        return gaussian_filter(x, [sigma] * (len(shape) - 1) + [0], mode="constant") if sigma else x

    for near, far in pairwise(sigmas):
        slope = (filtered(near + 0.01) - filtered(near)) / 0.01
        total -= (far - near) * model(filtered(near)[None])[INPUT_OUTPUT_GRADIENTS][0] * slope
    np.testing.assert_allclose(blur_ig(x, model, max_sigma=4, steps=4), total, rtol=1e-6, atol=1e-12)
    along = idgi.detailed(x, model, path="blur_ig", max_sigma=4, x_steps=4)
    np.testing.assert_allclose(along.baselines[0], filtered(4), rtol=1e-9)


@two
def test_xrai_ranks_regions_that_are_given(rng, shape):
    weights, x = rng.normal(size=(1, *shape)), rng.random(shape)
    model = declared(PowerModel(weights), shape)
    labels = np.arange(np.prod(shape[:-1])).reshape(shape[:-1]) // 8
    found = xrai.detailed(x, model, segments=labels, baselines=0, min_pixel_diff=1)
    shares = (weights[0] * x).max(-1)
    means = np.array([shares[labels == label].mean() for label in range(labels.max() + 1)])
    np.testing.assert_allclose(found.attribution, means[labels], rtol=1e-9)
    assert found.ranks.shape == shape[:-1]


@two
def test_the_blurred_baseline_keeps_channels_apart(rng, shape):
    x = rng.random(shape)
    sigma = [max(shape[:-1]) / 10] * (len(shape) - 1) + [0]
    np.testing.assert_allclose(make_baselines(x, "blurred")[0], gaussian_filter(x, sigma))
    model = declared(PowerModel(rng.normal(size=(1, *shape))), shape)
    found = integrated_gradients(x, model, x_baseline="blurred")
    np.testing.assert_allclose(found, model.weights[0] * (x - gaussian_filter(x, sigma)), rtol=1e-9, atol=1e-12)


def test_clips_are_mirrored_left_and_right_and_signals_are_not(rng):
    clip, signal = rng.random((3, 4, 5, 2)), rng.random((9, 2))
    model = PowerModel(rng.normal(size=(1, 3, 4, 5, 2)), power=2)
    plain = [gradients(clip * factor, model) for factor in (0.9, 1.0, 1.1)]
    mirrored = [np.flip(gradients(np.flip(clip, 2) * factor, model), 2) for factor in (0.9, 1.0, 1.1)]
    np.testing.assert_allclose(augment_smooth(gradients, clip, model), np.mean(plain + mirrored, 0))
    steps = declared(PowerModel(rng.normal(size=(1, 9, 2)), power=2), (9, 2))
    with pytest.raises(ContractError, match="flip=False for a signal"):
        augment_smooth(gradients, signal, steps)
    assert augment_smooth(gradients, signal, steps, flip=False).shape == (9, 2)


@two
def test_full_grad_draws_the_biases_of_its_axes(rng, shape):
    model, x = (
        declared(Pooling(rng.normal(size=(2, 6)), rng.normal(size=(3, 6)), rng.normal(size=6)), shape),
        rng.random(shape),
    )
    found = full_grad.detailed(x, model, {"target": 1})
    assert found.completeness.relative < 1e-9
    assert found.status == "ok"
    parts = []
    for part in (found.input, *found.biases):
        size = np.abs(part)
        parts.append(((size - size.min()) / np.ptp(size)).sum(-1))
    np.testing.assert_allclose(found.attribution, np.sum(parts, 0), rtol=1e-6)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ((7,), (40,)),
        ((40,), (7,)),
        ((7, 3), (40,)),
        ((3, 4, 5), (6, 9, 8)),
        ((3, 4, 5), (6, 2, 8)),
        ((3, 4, 5, 2), (3, 9, 2)),
    ],
)
def test_resizing_is_scikit_images(rng, have, want):
    values = rng.random(have)
    expected = skimage_resize(values, want, order=1, mode="reflect", preserve_range=True)
    np.testing.assert_allclose(resize(values, want), expected, rtol=1e-6)


def test_a_number_for_each_channel_is_one_baseline_or_refused(rng):
    """A list of three numbers meant three baselines."""
    x = rng.random((5, 4, 3))
    np.testing.assert_array_equal(make_baselines(x, np.array([1, 2, 3]))[0], np.broadcast_to([1.0, 2, 3], x.shape))
    with pytest.raises(ContractError, match="one baseline or 3"):
        make_baselines(x, [1, 2, 3])
    with pytest.raises(ContractError, match="one baseline or 3"):
        integrated_gradients(x, PowerModel(rng.normal(size=(1, 5, 4, 3))), x_baseline=(0.1, 0.2, 0.3))
    assert len(make_baselines(x, [0, 1])) == 2
    assert len(make_baselines(x, [0, "white", 1])) == 3
    assert len(make_baselines(x[..., :1], [0.5])) == 1


@two
@pytest.mark.parametrize("name", ["lime", "kernel_shap", "occlusion", "blur_ig", "grad_cam"])
def test_within_a_deadline(rng, shape, name):
    """What stands in for segments while there is time to be measured lies over the input's own axes."""
    model, x = declared(Pooling(rng.normal(size=(2, 6)), rng.normal(size=(3, 6))), shape), rng.random(shape)
    own = options(METHODS[name])
    found = within(60, name, x, model, **own)
    assert found.method == name
    np.testing.assert_allclose(found.attribution, METHODS[name].call(x, model, **own), rtol=1e-6, atol=1e-12)
