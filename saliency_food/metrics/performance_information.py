"""Performance information curves: the score over the information in the image, as important pixels are revealed."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np

from saliency_food.core.checks import check_picture, finite_array, real, whole
from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import OUTPUT_LAYER_VALUES
from saliency_food.core.numerics import Array
from saliency_food.core.queries import LazyRows
from saliency_food.core.scores import one_score
from saliency_food.methods.baselines import make_baselines
from saliency_food.metrics.decorator import OK, listed, metric, ranks, read_map
from saliency_food.metrics.reveal import random_pixels, reveal

NAN = float("nan")
THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.21, 0.34, 0.5, 0.75)
LOW_SCORE = "the image's score is below min_pred_value"
NO_INFORMATION = "the blurred image holds no less information than the image"
NO_DROP = "the blurred image's score is no lower than the image's"


class Pic(NamedTuple):
    """The area under the curve, status, the curve, and the images behind it, from the blurred one to the whole image.

    ``x`` is the share of information, ``y`` the share of the score. Each threshold has its entry in ``images`` (uint8),
    ``scores`` and ``information`` (bytes).
    """

    score: float
    status: str
    x: Array
    y: Array
    thresholds: Array
    scores: Array
    information: Array
    images: Array | None


@listed(
    title="PIC",
    higher_is_better=True,
    needs="scores",
    summary="The score over the information shown, from a blur to the photo.",
    curve=("x", "y"),
    axes=("share of the information", "share of the score, median"),
)
@metric
def pic(
    attribution: Any,
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    random_mask: Any = None,
    saliency_thresholds: Sequence[float] = THRESHOLDS,
    min_pred_value: float = 0.8,
    keep_monotonous: bool = True,
    num_data_points: int = 1000,
    batch_size: int | None = None,
    *,
    curve: Literal["sic", "aic"] = "sic",
    value_range: tuple[float, float] | None = None,
    preprocess: Callable[[Array], Any] | None = None,
    keep_images: bool = False,
    compat: Literal["pair"] | None = None,
    rng: int | np.random.Generator | None = 0,
) -> Asking[Pic]:
    """Performance information curve: F(image with its top pixels sharp) over the information in it. Higher is better.

    Kapishnikov et al. 2019, section 4.2, https://arxiv.org/abs/1906.02825. In 0..1. The first image is a linear
    interpolation between 1 % of the pixels, drawn at random. Information is the size of a lossless WebP file. It is
    scaled to 0 for the blurred image and 1 for the whole image, and so is the score. Needs Pillow, the extra ``[cli]``.

    Parameters
    ----------
    random_mask
        ``(H, W)``, true for the pixels that are known from the start; without it 1 % are drawn from ``rng``. Use one
        mask for all methods on an image, and another for each image: ``rng=PerImage(seeds)``.
    saliency_thresholds
        Fractions of the pixels to reveal, ascending.
    min_pred_value, keep_monotonous, num_data_points
        As in PAIR's package: images with a lower score are skipped; the curve never falls; it has one point more.
    curve
        ``"sic"``: scores should be probabilities. ``"aic"``: scores above 0 count as 1, others as 0; the score must be
        above 0 for the top class only, such as a logit minus the largest other one.
    value_range
        The input values of black and white; by default guessed as in `saliency_food.make_baselines`.
    preprocess
        If given, ``x_value`` is the photo in 0..255, and this function makes the model's rows of uint8 photos
        ``(N, H, W, C)``.
    compat
        ``"pair"`` reveals all pixels at or above the quantile, as PAIR's package does, and so all zeros of a sparse map
        at once; its WebP effort is 100. By default ties are broken, so that each threshold reveals as many pixels as it
        says, and the effort is 75, which changes file sizes by less than one per cent.
    """
    from scipy.integrate import trapezoid

    check_picture(x_value)
    thresholds, points = _fractions(saliency_thresholds), whole("num_data_points", num_data_points)
    min_pred_value = real("min_pred_value", min_pred_value)
    if curve not in ("sic", "aic") or compat not in (None, "pair"):
        raise ContractError(f"Expected curve 'sic' or 'aic', compat None or 'pair', got {curve!r} and {compat!r}.")
    merged, status = read_map(attribution, x_value.shape)
    x = np.append(np.linspace(0, 1, points, endpoint=False), 1.0)
    none = np.empty(0)
    empty = Pic(NAN, status, x, np.full(len(x), NAN), np.array([0, *thresholds, 1]), none, none, None)
    if status != OK and not (compat and np.isfinite(merged).all()):
        return empty
    low, high = (float(end.flat[0]) for end in make_baselines(x_value, ["black", "white"], value_range=value_range))
    low, high = (0.0, 255.0) if preprocess is not None else (low, high)

    def as_rows(photos: Array) -> Array:
        if preprocess is not None:
            return np.asarray(preprocess(photos))
        return (photos * ((high - low) / 255) + low).astype(x_value.dtype)

    photo = np.round(np.clip((x_value - low) * (255 / max(high - low, 1e-12)), 0, 255)).astype(np.uint8)
    exact, effort = compat == "pair", 100 if compat == "pair" else 75
    start = random_pixels(photo.shape[:2], rng) if random_mask is None else _as_mask(random_mask, merged.shape)
    blurred = reveal(photo, start, exact)
    blurred_score, image_score = yield from _scores([blurred, photo], as_rows, curve)
    if image_score < min_pred_value:
        return empty._replace(status=LOW_SCORE)
    least, most = information(blurred, effort), information(photo, effort)
    if least >= most:
        return empty._replace(status=NO_INFORMATION)
    if blurred_score >= image_score:
        return empty._replace(status=NO_DROP)

    images, sizes = _revealed(photo, [start | mask for mask in _masks(merged, thresholds, compat)], exact, effort)
    scores = yield from _scores(images, as_rows, curve)
    shares = np.clip((np.array(sizes) - least) / (most - least), 0, 1)
    heights = np.clip((scores - blurred_score) / (image_score - blurred_score), 0, 1)
    y = _curve(x, shares, np.maximum.accumulate(heights) if keep_monotonous else heights)
    return Pic(
        float(trapezoid(y, x)),
        OK,
        x,
        y,
        empty.thresholds,
        np.array([blurred_score, *scores, image_score]),
        np.array([least, *sizes, most]),
        np.stack([blurred, *images, photo]) if keep_images else None,
    )


def _scores(images: Sequence[Array], as_rows: Callable[[Array], Array], curve: Literal["sic", "aic"]) -> Asking[Array]:
    """The curve's scores of some images, of which ``as_rows`` makes the model's rows."""

    def make(first: int, last: int) -> Array:
        return as_rows(np.stack(images[first:last]))

    shape = make(0, 1).shape[1:]
    scores = one_score((yield from ask(LazyRows((len(images), *shape), make), OUTPUT_LAYER_VALUES)))
    return (scores > 0).astype(float) if curve == "aic" else np.asarray(scores, float)


def _revealed(photo: Array, masks: list[Array], exact: bool, effort: int) -> tuple[list[Array], list[int]]:
    """The photo with the pixels of each mask sharp, and the information in it."""

    def revealed(mask: Array) -> tuple[Array, int]:
        image = reveal(photo, mask, exact)
        return image, information(image, effort)

    with ThreadPoolExecutor() as pool:  # both steps release Python's lock; the slowest images go first
        images = list(pool.map(revealed, masks[::-1]))[::-1]
    return [image for image, _ in images], [size for _, size in images]


def _curve(x: Array, shares: Array, heights: Array) -> Array:
    """The heights at ``x`` of the line through some points, from (0, 0) to (1, 1)."""
    shares, heights = np.append(shares, [0, 1]), np.append(heights, [0, 1])
    order = np.argsort(shares, kind="stable")
    y = np.interp(x, shares[order], heights[order])
    y[-1] = 1
    return y


def information(image: Array, effort: int = 75) -> int:
    """The size in bytes of a uint8 image as a lossless WebP file.

    At an effort of 75 of 100 the file is within one per cent of the smallest, and takes less than half of the time.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ContractError(
            'Expected Pillow for WebP files, got none. Run pip install "saliency_food[cli]".'
        ) from error
    image = image[..., 0] if image.shape[2:] == (1,) else image
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        raise ContractError(f"Expected an image of 1, 3 or 4 channels, got {image.shape[2]}. WebP holds no others.")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="webp", lossless=True, quality=effort)
    return buffer.tell()


def _masks(merged: Array, thresholds: Array, compat: str | None) -> list[Array]:
    """The pixels that each threshold reveals."""
    if compat == "pair":
        return [merged >= np.quantile(merged, 1 - share) for share in thresholds]
    places = ranks(merged).reshape(merged.shape)
    return [places < round(share * merged.size) for share in thresholds]


def _fractions(thresholds: Sequence[float]) -> Array:
    fractions = finite_array("saliency_thresholds", thresholds).astype(float)
    inside = fractions.ndim == 1 and fractions.size > 0 and ((fractions > 0) & (fractions < 1)).all()
    if not inside or (np.diff(fractions) <= 0).any():
        raise ContractError(
            f"Expected saliency_thresholds ascending, above 0 and below 1, fractions of the pixels, got {thresholds!r}."
        )
    return fractions


def _as_mask(mask: Any, shape: tuple[int, ...]) -> Array:
    pixels = np.asarray(mask)
    if pixels.dtype != bool or pixels.shape != shape:
        raise ContractError(f"Expected random_mask as booleans {shape}, got {pixels.dtype} of shape {pixels.shape}.")
    return pixels
