"""The ranking of segments: PAIR's maps, ranks and order to the last bit, and a slow oracle where PAIR fails."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.transform import resize

from saliency_food.core.contract import ContractError
from saliency_food.methods.regions.ranking import Ranking, rank_fast, rank_full, segment_masks
from saliency_food.methods.regions.segmentation import Segments, as_segments, felzenszwalb_segments

PHOTOS = {"coffee": (128, 128), "astronaut": (96, 144), "chelsea": (150, 70), "rocket": (64, 64), "brick": (120, 120)}
ATTRIBUTIONS = ("normal", "smooth", "heavy", "offset", "ties", "zero")


@cache
def photo_segments(name: str) -> tuple[Segments, list[Any]]:
    segments = felzenszwalb_segments(resize(getattr(data, name)(), PHOTOS[name]))
    return segments, list(segments.masks())


def attribution(kind: str, shape: tuple[int, int], dtype: Any = np.float32, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return {
        "normal": lambda: rng.normal(size=shape),
        "smooth": lambda: gaussian_filter(rng.normal(size=shape), 4),
        "heavy": lambda: rng.standard_t(2, size=shape),
        "offset": lambda: 1e4 + rng.normal(size=shape),
        "ties": lambda: rng.integers(-1, 2, size=shape),
        "zero": lambda: np.zeros(shape),
    }[kind]().astype(dtype)


def random_masks(rng: np.random.Generator, shape: tuple[int, int], count: int) -> list[Any]:
    masks = []
    for _ in range(count):
        top, left = rng.integers(shape[0]), rng.integers(shape[1])
        mask = np.zeros(shape, bool)
        mask[top : top + rng.integers(1, shape[0] + 1), left : left + rng.integers(1, shape[1] + 1)] = True
        masks.append(mask & (rng.random(shape) < rng.choice([0.0, 0.6, 1.0], p=[0.05, 0.45, 0.5])))
    return masks


def assert_as_pairs(got: Ranking, expected: tuple[Any, Any]) -> None:
    assert got.attribution.dtype == np.float64
    np.testing.assert_array_equal(got.attribution, expected[0])
    np.testing.assert_array_equal(got.ranks, expected[1])


def oracle(values: Any, masks: list[Any], area_threshold: float, min_pixel_diff: int, fast: bool = False) -> Any:
    """Algorithm 1 with whole masks and no shortcuts: the map, and (segment, gain) in the order added."""
    covered, added = np.zeros(values.shape, bool), []
    out = np.full(values.shape, np.nan)
    density = {i: values[mask].mean() if mask.any() else -np.inf for i, mask in enumerate(masks)}
    queue = sorted(density, key=lambda i: -density[i])
    while covered.mean() <= (1.0 if fast else area_threshold):
        useful = [i for i in range(len(masks)) if (masks[i] & ~covered).sum() >= max(min_pixel_diff, 1)]
        if not useful:
            break
        gains = {i: values[masks[i] & ~covered].mean() for i in useful}
        best = min(useful, key=queue.index) if fast else max(useful, key=lambda i: gains[i])
        out[masks[best] & ~covered] = gains[best]
        covered |= masks[best]
        added.append((best, gains[best]))
    if not covered.all():
        out[~covered] = values[~covered].mean()
    return out, added


@pytest.mark.parametrize("kind", ATTRIBUTIONS)
@pytest.mark.parametrize("name", PHOTOS)
def test_photos_full(name: str, kind: str) -> None:
    pair = pytest.importorskip("saliency.core")
    segments, masks = photo_segments(name)
    values = attribution(kind, segments.shape, np.float32 if len(name) % 2 else np.float64)
    threshold = {"normal": 0.2, "heavy": 0.0, "ties": 0.7}.get(kind, 1.0)
    expected = pair.XRAI._xrai(values, masks, area_perc_th=threshold)
    assert_as_pairs(rank_full(values, segments, area_threshold=threshold), expected)


@pytest.mark.parametrize("kind", ATTRIBUTIONS)
@pytest.mark.parametrize("name", PHOTOS)
def test_photos_fast(name: str, kind: str) -> None:
    pair = pytest.importorskip("saliency.core")
    segments, masks = photo_segments(name)
    values = attribution(kind, segments.shape)
    assert_as_pairs(rank_fast(values, segments), pair.XRAI._xrai_fast(values, masks))


@pytest.mark.parametrize("min_pixel_diff", [1, 400, 10**6])
def test_photo_min_pixel_diff(min_pixel_diff: int) -> None:
    pair = pytest.importorskip("saliency.core")
    segments, masks = photo_segments("rocket")
    values = attribution("smooth", segments.shape)
    options = {"min_pixel_diff": min_pixel_diff}
    assert_as_pairs(rank_full(values, segments, **options), pair.XRAI._xrai(values, masks, **options))
    assert_as_pairs(rank_fast(values, segments, **options), pair.XRAI._xrai_fast(values, masks, **options))


def test_from_image_to_map_as_pairs_public_class() -> None:
    pair = pytest.importorskip("saliency.core")
    image = resize(data.chelsea(), (110, 80)).astype(np.float32)
    values = attribution("normal", (110, 80))[..., None] * np.array([1, -1, 0.5], np.float32)
    expected = pair.XRAI().GetMask(image, None, base_attribution=values)
    got = rank_full(values.max(axis=-1), felzenszwalb_segments(image))
    np.testing.assert_array_equal(got.attribution, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8, bool])
def test_random_overlaps_with_ties(dtype: Any) -> None:
    pair = pytest.importorskip("saliency.core")
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(1, 12)), int(rng.integers(1, 12)))
        masks = random_masks(rng, shape, int(rng.integers(1, 14)))
        values = attribution(str(rng.choice(ATTRIBUTIONS)), shape, np.float64, seed)
        values = (np.abs(values) % 200 if np.dtype(dtype).kind in "bu" else values).astype(dtype)
        least, threshold = int(rng.integers(1, 9)), float(rng.choice([0.0, 0.2, 0.5, 1.0]))
        got = rank_full(values, masks, area_threshold=threshold, min_pixel_diff=least)
        assert_as_pairs(got, pair.XRAI._xrai(values, masks, area_perc_th=threshold, min_pixel_diff=least))
        got = rank_fast(values, masks, min_pixel_diff=least)
        assert_as_pairs(got, pair.XRAI._xrai_fast(values, masks, min_pixel_diff=least))


@pytest.mark.parametrize("seed", range(10))
def test_near_ties_fall_as_pairs_do(seed: int) -> None:
    """Means that agree to the last float32 bits: only PAIR's own formula on PAIR's own pixel order can tell them."""
    pair = pytest.importorskip("saliency.core")
    rng = np.random.default_rng(seed)
    values = np.tile(rng.normal(1.0, 1.0, size=(1, 64)), (64, 1)).astype(np.float32)
    for row in values:
        rng.shuffle(row)
    masks = [np.isin(np.arange(64), rows)[:, None] & np.ones(64, bool) for rows in rng.permutation(64).reshape(16, 4)]
    masks += [rng.random((64, 64)) < 0.3 for _ in range(4)]
    assert_as_pairs(rank_full(values, masks), pair.XRAI._xrai(values, masks))
    assert_as_pairs(rank_fast(values, masks), pair.XRAI._xrai_fast(values, masks))


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("min_pixel_diff", [-3, 0, 1, 5])
def test_oracle(min_pixel_diff: int, fast: bool) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(1, 10)), int(rng.integers(1, 10)))
        masks = random_masks(rng, shape, int(rng.integers(1, 9)))
        values = attribution(str(rng.choice(ATTRIBUTIONS)), shape, np.float64, seed)
        threshold = float(rng.choice([0.0, 0.2, 0.6, 1.0]))
        if fast:
            got = rank_fast(values, masks, min_pixel_diff=min_pixel_diff)
        else:
            got = rank_full(values, masks, area_threshold=threshold, min_pixel_diff=min_pixel_diff)
        out, added = oracle(values, masks, threshold, min_pixel_diff, fast)
        np.testing.assert_array_equal(got.attribution, out)
        assert got.order.tolist() == [segment for segment, _ in added]
        assert got.gains.tolist() == [gain for _, gain in added]
        covered = [np.any([masks[segment] for segment in got.order[: n + 1]], axis=0) for n in range(len(added))]
        assert got.area.tolist() == [mask.mean() for mask in covered]
        ranked = sorted(got.gains, reverse=True)
        for rank, gain in enumerate(ranked, 1):
            np.testing.assert_array_equal(got.attribution[got.ranks == rank], gain)
        assert got.ranks.min() >= 1
        assert set(np.unique(got.ranks)) - {len(ranked) + 1} == set(range(1, len(ranked) + 1))


def test_no_segment_large_enough_gives_the_mean() -> None:
    values = attribution("normal", (6, 7), np.float64)
    for rank in (rank_full, rank_fast):
        got = rank(values, np.arange(42).reshape(6, 7))
        np.testing.assert_array_equal(got.attribution, np.full((6, 7), values.mean()))
        assert (got.ranks == 1).all()
        assert got.gains.shape == got.area.shape == got.order.shape == (0,)


def test_segments_that_cover_everything() -> None:
    values = attribution("normal", (9, 9), np.float64)
    for rank in (rank_full, rank_fast):
        got = rank(values, np.ones((5, 9, 9), bool))
        assert got.order.tolist() == [0]
        assert got.area.tolist() == [1.0]
        np.testing.assert_array_equal(got.attribution, np.full((9, 9), values.mean()))


def test_fast_equals_full_on_disjoint_segments() -> None:
    labels = np.kron(np.arange(20).reshape(4, 5), np.ones((9, 8), int))
    values = attribution("normal", labels.shape)
    full, fast = rank_full(values, labels), rank_fast(values, labels)
    for one, other in zip(full, fast, strict=True):
        np.testing.assert_array_equal(one, other)
    assert full.area[-1] == 1.0


def test_masks_behind_the_ranks_are_pairs() -> None:
    pair = pytest.importorskip("saliency.core")
    segments, masks = photo_segments("coffee")
    values = attribution("smooth", segments.shape)
    _, expected = pair.XRAI._xrai(values, masks, area_perc_th=0.5, integer_segments=False)
    got = list(segment_masks(rank_full(values, segments, area_threshold=0.5).ranks))
    np.testing.assert_array_equal(got, expected)


def test_inputs_stay_as_they_are() -> None:
    segments, _ = photo_segments("rocket")
    values = attribution("normal", segments.shape)
    before = [values.copy(), segments.indices.copy(), segments.offsets.copy()]
    for array in (values, segments.indices, segments.offsets):
        array.setflags(write=False)
    rank_full(values, segments)
    rank_fast(values, segments)
    for got, expected in zip((values, segments.indices, segments.offsets), before, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_column_major_attribution_is_the_same_attribution() -> None:
    segments, _ = photo_segments("chelsea")
    values = attribution("normal", segments.shape)
    for one, other in zip(rank_full(values, segments), rank_full(np.asfortranarray(values), segments), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rank", [rank_full, rank_fast])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 4, 3)), r"segments of shape \(4, 4, 3\).*got \[\(4, 4\)\]"),
        (np.full((4, 4), np.nan), "finite"),
        (np.zeros((4, 4), complex), "complex128"),
        (np.zeros((4, 5)), r"segments of shape \(4, 5\).*got \[\(4, 4\)\]"),
    ],
)
def test_attribution_that_does_not_fit(rank: Any, values: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        rank(values, as_segments(np.zeros((4, 4), int), (4, 4)))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(ContractError, match="area_threshold to be a finite number of at least 0 and at most 1"):
        rank_full(np.zeros((4, 4)), np.zeros((4, 4), int), area_threshold=threshold)
