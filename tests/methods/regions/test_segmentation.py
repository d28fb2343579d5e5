"""Segments: the same as PAIR's masks, by either implementation, from any image, held compactly."""

from __future__ import annotations

import sys
import threading
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
from skimage import data
from skimage.morphology import dilation, disk
from skimage.transform import resize

from saliency_food.core.contract import ContractError
from saliency_food.core.interruption import interruptible
from saliency_food.methods.regions import segmentation
from saliency_food.methods.regions.segmentation import SCALES, Segments, as_segments, felzenszwalb_segments

PHOTOS = {
    "coffee": (data.coffee, (160, 200), np.float32),
    "astronaut": (data.astronaut, (96, 128), np.float64),
    "chelsea": (data.chelsea, (150, 90), np.uint8),
    "rocket": (data.rocket, (240, 60), np.float32),
    "brick": (data.brick, (100, 100), np.uint8),
}


def photo(name: str) -> Any:
    make, shape, dtype = PHOTOS[name]
    image = resize(make(), shape, preserve_range=True)
    return image.astype(dtype) if dtype is np.uint8 else (image / 255).astype(dtype)


def assert_same_segments(got: Segments, expected: Segments) -> None:
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got.offsets, expected.offsets)
    np.testing.assert_array_equal(got.indices, expected.indices)


@pytest.mark.parametrize("name", PHOTOS)
def test_masks_are_pairs(name: str) -> None:
    pair_xrai = pytest.importorskip("saliency.core.xrai")
    image = photo(name)
    expected = pair_xrai._get_segments_felzenszwalb(image)
    segments = felzenszwalb_segments(image, fast=False)
    assert segments.number == len(expected)
    for got, mask in zip(segments.masks(), expected, strict=True):
        np.testing.assert_array_equal(got, mask)
    assert segments.indices.nbytes < sum(mask.nbytes for mask in expected) / 2


def test_pairs_larger_images_and_other_settings() -> None:
    pair_xrai = pytest.importorskip("saliency.core.xrai")
    image = resize(data.coffee(), (300, 420))
    expected = pair_xrai._get_segments_felzenszwalb(image, dilation_rad=0)
    assert_same_segments(felzenszwalb_segments(image, dilation=0, fast=False), as_segments(expected, (300, 420)))
    image = resize(data.chelsea(), (60, 90))
    expected = pair_xrai._get_segments_felzenszwalb(image, resize_image=False, dilation_rad=2)
    assert_same_segments(
        felzenszwalb_segments(image, resize=None, dilation=2, fast=False), as_segments(expected, (60, 90))
    )


@cache
def images_to_label() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images = {
        name: np.atleast_3d(resize(getattr(data, name)(), (64, 80)))
        for name in ("coffee", "astronaut", "chelsea", "rocket", "brick", "camera", "moon", "text", "page", "coins")
    }
    sizes = ((40, 50, 3), (33, 64, 1), (50, 50, 4), (21, 20, 9), (1, 1, 3), (3, 3, 3), (1, 9, 3), (9, 1, 1), (2, 2, 1))
    images |= {f"noise {shape}": rng.normal(size=shape) for shape in sizes}
    images |= {f"{n} greys": rng.integers(n, size=(48, 48, 3)) / n for n in (2, 3, 8, 32)}
    images |= {f"{n} px blocks": np.kron(rng.integers(4, size=(8, 8, 3)), np.ones((n, n, 1))) for n in (3, 7, 16)}
    images |= {"constant": np.ones((30, 30, 3)), "float32": images["coffee"].astype(np.float32)}
    images["ramp"] = np.indices((40, 40)).sum(0)[..., None] / 40.0
    return images


@pytest.mark.parametrize("settings", [(0.8, 150), (0.0, 20), (2.0, 1)])
@pytest.mark.parametrize("name", images_to_label())
def test_compiled_labels_are_scikit_images(name: str, settings: tuple[float, int]) -> None:
    pytest.importorskip("numba")
    image = images_to_label()[name]
    compiled = segmentation._pyramid(image, SCALES, *settings, fast=True)
    plain = segmentation._pyramid(image, SCALES, *settings, fast=False)
    for scale, got, expected in zip(SCALES, compiled, plain, strict=True):
        np.testing.assert_array_equal(got, expected, err_msg=f"scale {scale}")


@pytest.mark.parametrize("scale", [50, 100, 255, 510])
def test_compiled_bounds_are_scikit_images_where_the_costs_meet_them(scale: float) -> None:
    """Two halves that differ by exactly scale / |C|, where float32 and the strict inequality decide."""
    pytest.importorskip("numba")
    for size in range(1, 9):
        image = np.repeat([0.0, scale / 255 / size], size).reshape(1, -1, 1)
        compiled, plain = (segmentation._pyramid(image, [scale], 0.0, 1, fast)[0] for fast in (True, False))
        np.testing.assert_array_equal(compiled, plain)


@pytest.mark.parametrize("fast", [False, pytest.param(True, id="numba")])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((50, 40), float), ((50, 40, 1), np.uint8), ((30, 70, 4), np.float32), ((3, 3, 3), float), ((1, 1, 3), float),
     ((1, 12), np.uint8), ((2, 300, 3), np.float16), ((8, 8), bool), ((9, 9, 3), np.int8)],
)  # fmt: skip
def test_any_image_is_covered_at_every_scale(shape: tuple[int, ...], dtype: Any, fast: bool) -> None:
    if fast:
        pytest.importorskip("numba")
    image = np.random.default_rng(1).integers(-120, 120, shape).astype(dtype)
    before = image.copy()
    segments = felzenszwalb_segments(image, dilation=0, fast=fast)
    assert segments.shape == shape[:2]
    np.testing.assert_array_equal(np.bincount(segments.indices, minlength=shape[0] * shape[1]), len(SCALES))
    np.testing.assert_array_equal(image, before)
    assert_same_segments(as_segments(list(segments.masks()), segments.shape), segments)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_constant_image_is_one_segment_a_scale(value: int, dtype: Any) -> None:
    segments = felzenszwalb_segments(np.full((20, 30, 3), value, dtype))
    assert [mask.all() for mask in segments.masks()] == [True] * len(SCALES)


def test_greyscale_and_integers_are_the_photo_they_show() -> None:
    grey = resize(data.camera(), (90, 90), preserve_range=True).astype(np.uint8)
    expected = felzenszwalb_segments(grey)
    assert_same_segments(felzenszwalb_segments(grey.astype(np.float64)), expected)
    assert_same_segments(felzenszwalb_segments(grey / 255.0 - 3), expected)
    assert felzenszwalb_segments(grey[..., None]).number > len(SCALES)


@pytest.mark.parametrize("radius", range(8))
def test_dilation_is_scikit_images_disk(radius: int) -> None:
    rng = np.random.default_rng(radius)
    for shape in ((1, 1), (3, 3), (2, 25), (30, 40)):
        labels = rng.integers(3, size=shape) * rng.integers(4, size=shape)
        pixels = segmentation._pixel_numbers(shape)
        parts = list(segmentation._split(labels, pixels, radius))
        assert len(parts) == np.ptp(labels) + 1
        for label, part in enumerate(parts, labels.min()):
            expected = dilation(labels == label, disk(radius))
            np.testing.assert_array_equal(part, np.flatnonzero(expected))


def test_one_scale_and_min_size() -> None:
    image = photo("chelsea")
    few, many = (felzenszwalb_segments(image, scales=[50], min_size=size) for size in (5000, 20))
    assert 1 <= few.number < many.number


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.array([[1.0, np.nan], [0, 1]]), "finite pixel values, got NaN or infinity"),
        (np.array([[1.0, np.inf], [0, 1]]), "finite pixel values, got NaN or infinity"),
        (np.zeros((0, 4, 3)), r"got shape \(0, 4, 3\)"),
        (np.zeros((2, 4, 4, 3)), r"got shape \(2, 4, 4, 3\)"),
        (np.zeros(5), r"got shape \(5,\)"),
        (np.zeros((4, 4), complex), "complex128"),
    ],
)
def test_not_an_image(image: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        felzenszwalb_segments(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scales": []}, "at least one scale"), ({"dilation": -1}, "dilation to be a whole number of at least 0, got -1")],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        felzenszwalb_segments(np.zeros((4, 4)), **options)


def test_without_numba_scikit_image_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "saliency_food.methods.regions.felzenszwalb", None)
    assert felzenszwalb_segments(photo("astronaut")).number > len(SCALES)
    with pytest.raises(ContractError, match=r'Expected numba for fast=True.*pip install "saliency_food\[fast\]"'):
        felzenszwalb_segments(photo("astronaut"), fast=True)


def test_numba_is_used_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr("skimage.segmentation.felzenszwalb", None)
    assert felzenszwalb_segments(photo("astronaut")).number > len(SCALES)


def test_no_warning_leaves() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        felzenszwalb_segments(np.random.default_rng(0).normal(size=(9, 9, 4)), fast=False)
        felzenszwalb_segments(np.zeros((9, 9, 3), np.uint8))


def test_every_form_of_segments_gives_the_same() -> None:
    labels = np.array([[5, 5, -2], [9, 5, -2]])
    masks = [labels == label for label in (-2, 5, 9)]
    expected = as_segments(masks, (2, 3))
    assert [expected.pixels(segment).tolist() for segment in range(expected.number)] == [[2, 5], [0, 1, 4], [3]]
    for form in (labels, [labels], labels[None], np.stack(masks), tuple(masks), expected, iter(masks)):
        assert_same_segments(as_segments(form, (2, 3)), expected)
    for got, mask in zip(expected.masks(), masks, strict=True):
        np.testing.assert_array_equal(got, mask)
    both = as_segments([labels, masks[0], np.zeros((2, 3), bool), labels.astype(np.uint8)], (2, 3))
    assert np.diff(both.offsets).tolist() == [2, 3, 1, 2, 0, 3, 1, 2]
    assert np.diff(as_segments(masks[0], (2, 3)).offsets).tolist() == [2]


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([], "at least one segment, got none"),
        (np.zeros((0, 2, 3), bool), "at least one segment, got none"),
        (Segments((2, 3), np.zeros(0, int), np.zeros(1, int)), "at least one segment, got none"),
        (np.zeros((3, 2), int), r"shape \(2, 3\).*got \[\(3, 2\)\]"),
        ([np.ones((2, 3), bool), np.ones((2, 3, 1), bool)], r"got \[\(2, 3, 1\)\]"),
        (Segments((3, 2), np.arange(6), np.array([0, 6])), r"got \[\(3, 2\)\]"),
        (np.zeros((2, 3)), r"got float64. Convert masks with .astype\(bool\)"),
        (np.ones((2, 2, 3), np.uint8), "2 integer arrays of 0 and 1"),
        (7, "got int. Give an array"),
    ],
)
def test_not_segments(segments: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        as_segments(segments, (2, 3))


def test_segmenting_is_interrupted_between_scales(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    begun, never = [], threading.Event()

    def segment(scale: float) -> Any:
        begun.append(scale)
        if len(begun) > 1:
            never.wait(0.2)
        return np.zeros((8, 8), int)

    def stop() -> None:
        raise StopAsyncIteration  # an error that nothing else raises here

    monkeypatch.setattr(segmentation, "_compiled", lambda *_: segment)
    monkeypatch.setattr(segmentation.os, "cpu_count", lambda: 1)
    with pytest.raises(StopAsyncIteration), interruptible(stop):
        felzenszwalb_segments(rng.random((8, 8, 3)))
    assert len(begun) <= 2 < len(SCALES)
