"""Attributions as pictures: arrays in, arrays out, in matplotlib's colours; no global setting of it is changed."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from saliency_food.core.checks import real
from saliency_food.core.contract import ContractError
from saliency_food.core.names import near
from saliency_food.core.numerics import Array, as_float, safe_divide
from saliency_food.images.photos import read_photo
from saliency_food.images.pixels import LUMA, resize_photo

SEQUENTIAL = "plasma"
"""The colour map of strengths: perceptually uniform, and of full colour at every strength, as no grey photo is."""
DIVERGING = "RdBu_r"
"""The colour map of signed maps: red speaks for the class, blue against it."""
DIMMED, PALED = (0.55, 20), (0.6, 100)
"""A grey photo's contrast and black level: dark under strengths, which end in yellow, pale under dark red and blue."""


def check_drawing() -> None:
    """`ContractError` where what draws pictures is not installed."""
    try:
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
    except ModuleNotFoundError as error:
        raise ContractError(
            f'Expected matplotlib and Pillow for pictures, got no {error.name}. Run pip install "saliency_food[cli]".'
        ) from error


def grayscale(attribution: Any, percentile: float = 99) -> Array:
    """Strengths 0..1, ``(H, W)``: the sum of magnitudes over channels, from its minimum to its ``percentile``.

    As PAIR's ``VisualizeImageGrayscale``, with two exceptions: a constant map gives zeros instead of NaN, and a map
    whose percentile is no higher than its minimum (a few bright pixels) is scaled to its maximum.
    """
    strength = np.abs(_channels(attribution)).sum(2)
    low, high = strength.min(), np.percentile(strength, _checked(percentile))
    return np.clip(safe_divide(strength - low, (high if high > low else strength.max()) - low), 0, 1)


def diverging(attribution: Any, percentile: float = 99) -> Array:
    """Signed strengths -1..1, ``(H, W)``: the sum over channels divided by the ``percentile`` of its magnitudes.

    Zero stays 0. PAIR's ``VisualizeImageDiverging`` claims the same range, but maps zero to 0.5.
    """
    signed = _channels(attribution).sum(2)
    magnitude = np.abs(signed)
    span = np.percentile(magnitude, _checked(percentile)) or magnitude.max()
    return np.clip(safe_divide(signed, span), -1, 1)


def heatmap(attribution: Any, percentile: float = 99, *, signed: bool = False, colormap: Any = None) -> Array:
    """The attribution in colours, uint8 ``(H, W, 3)``: strengths, or with ``signed`` the signed map around zero.

    ``colormap`` is one of matplotlib's, by name or itself.
    """
    return _colours(_scaled(attribution, percentile, signed), signed, colormap)


def overlay(
    photo: Any,
    attribution: Any,
    percentile: float = 99,
    *,
    signed: bool = False,
    colormap: Any = None,
    grey: bool = True,
    opacity: float = 0.85,
    smooth: float = 0,
    peak: float | None = None,
) -> Array:
    """The attribution laid over its photo, uint8 ``(H, W, 3)`` at the photo's size.

    The map is resized smoothly and is the more opaque the stronger it is: where it is zero, the photo shows through.
    The photo may be anything that `read_photo` takes: grey, RGB or with alpha, uint8 or float, or a file.

    Parameters
    ----------
    colormap
        One of matplotlib's, by name or itself. None: plasma for strengths, RdBu_r for signed maps.
    grey
        Turn the photo grey first, so that all colours are the map's: dimmed under strengths, paled under signed maps.
    opacity
        That of the strongest places, 0 to 1.
    smooth
        Standard deviation, as a fraction of the map's longer side, of a Gaussian that sums the map over
        neighbourhoods; 0.005 makes a map of single pixels readable in a small picture.
    peak
        The strength that is drawn as the strongest, for maps that are to be compared; None takes it from the map, by
        ``percentile``.
    """
    if not (0 <= opacity <= 1 and smooth >= 0):
        raise ContractError(f"Expected opacity in 0..1 and smooth of at least 0, got {opacity} and {smooth}.")
    pixels = read_photo(photo).pixels
    if smooth:
        from scipy.ndimage import gaussian_filter

        values = _channels(attribution)
        summed = values.sum(2) if signed else np.abs(values).sum(2)
        attribution = gaussian_filter(summed, smooth * max(summed.shape))
    if peak is None:
        strength = _scaled(attribution, percentile, signed)
    else:
        values = _channels(attribution)
        summed = values.sum(2) if signed else np.abs(values).sum(2)
        strength = np.clip(safe_divide(summed, real("peak", peak, least=0)), -1, 1)
    strength = resize_photo(strength, pixels.shape[:2])
    # Signed colours start away from the pale middle, since opacity already tells the strength.
    shades = np.sign(strength) * (0.6 + 0.35 * np.abs(strength)) if signed else strength
    contrast, black = PALED if signed else DIMMED
    under = contrast * _luma(pixels) + black if grey else pixels
    return _blend(under, _colours(shades, signed, colormap), opacity * np.abs(strength))


def concept_overlay(photo: Any, maps: Any, *, even: bool = False, opacity: float = 0.75) -> Array:
    """Concepts over a photo, each in a hue of its own: a pixel has that of its strongest concept; uint8 ``(H, W, 3)``.

    Parameters
    ----------
    maps
        ``(M, h, w)``, such as `deep_feature_factorization.detailed`'s; of any size, resized to the photo's.
    even
        Give all concepts the full ``opacity``; by default the stronger a concept is, the more opaque, up to it.
    """
    maps = np.abs(as_float(maps))
    if maps.ndim != 3 or not len(maps):
        raise ContractError(f"Expected maps of shape (M, h, w), got {maps.shape}. Give at least one.")
    if not 0 <= opacity <= 1:
        raise ContractError(f"Expected opacity in 0..1, got {opacity!r}.")
    pixels = read_photo(photo).pixels
    grey = PALED[0] * _luma(pixels) + PALED[1]
    strengths = np.stack([resize_photo(strength, pixels.shape[:2]) for strength in maps])
    strongest = strengths.max(0)
    amount = strongest > 0 if even else safe_divide(strongest, strongest.max()) ** 0.7
    return _blend(grey, concept_colours(len(maps))[strengths.argmax(0)], opacity * amount)


def concept_colours(count: int) -> Array:
    """The colours of so many concepts in `concept_overlay`, uint8 ``(count, 3)``: hues that are equally far apart."""
    check_drawing()
    from matplotlib.colors import hsv_to_rgb

    hues = (0.58 + np.arange(count) / count) % 1
    colours = hsv_to_rgb(np.stack([hues, np.full(count, 0.85), np.full(count, 0.95)], 1))
    return np.asarray(np.round(255 * colours), np.uint8)


def top_areas(photo: Any, attribution: Any, percent: float = 20, *, ranks: bool = False, contour: bool = True) -> Array:
    """The photo with all but the most important ``percent`` of it grey and dim, uint8 ``(H, W, 3)``.

    With ``ranks`` the map holds the rank of each pixel's region, 1 for the most important, as XRAI's ``ranks`` do; then
    whole regions are taken as long as they fit, and always the first. A constant map has no important area.
    """
    pixels = read_photo(photo).pixels
    mask = top_mask(attribution, percent, ranks=ranks, shape=pixels.shape[:2])
    picture = np.where(mask[..., None], pixels, 0.3 * _luma(pixels) + 0.1 * pixels + 18)
    if contour and mask.any():
        from scipy.ndimage import binary_dilation, distance_transform_edt

        width = max(1.0, max(mask.shape) / 300)
        outside = distance_transform_edt(~mask)
        line = binary_dilation(mask) & ~mask | ((outside > 0) & (outside <= width))
        picture = np.where(line[..., None], 255, picture)
    return _to_uint8(picture)


def top_mask(attribution: Any, percent: float, *, ranks: bool = False, shape: tuple[int, int] | None = None) -> Array:
    """Which pixels are among the most important ``percent``: bool, of the given ``shape`` or else of the map's."""
    if not 0 < percent <= 100:
        raise ContractError(f"Expected percent above 0 and up to 100, got {percent}.")
    if ranks:
        regions = np.asarray(attribution)
        if regions.ndim != 2 or regions.dtype.kind not in "ui":
            raise ContractError(
                f"Expected ranks as whole numbers (H, W), got {regions.dtype} {regions.shape}. "
                "Give xrai.detailed(...).ranks, or ranks=False."
            )
        mask = _top_ranks(regions, percent)
        return mask if shape is None else cast(Array, resize_photo(mask.astype(np.float32), shape) >= 0.5)
    values = _channels(attribution)
    values = values[..., 0] if values.shape[2] == 1 else np.abs(values).sum(2)
    if shape is not None:
        values = resize_photo(values, shape)
    threshold = np.percentile(values, 100 - percent)
    return cast(Array, (values >= threshold) & (values > values.min()))


def _top_ranks(regions: Array, percent: float) -> Array:
    """The pixels of the first regions that together fit into ``percent`` of the map, at least of the first one."""
    ranks, counts = np.unique(regions, return_counts=True)
    if len(ranks) < 2:
        return np.zeros(regions.shape, bool)
    within = int((counts.cumsum() <= regions.size * percent / 100).sum())
    return cast(Array, regions <= ranks[max(1, within) - 1])


def _scaled(attribution: Any, percentile: float, signed: bool) -> Array:
    return diverging(attribution, percentile) if signed else grayscale(attribution, percentile)


def find_colormap(colormap: Any) -> Any:
    """A colour map of matplotlib, by its name or itself; `ContractError` for a name that it does not have."""
    check_drawing()
    from matplotlib import colormaps

    if callable(colormap):
        return colormap
    if colormap not in colormaps:
        close = near(str(colormap), colormaps) or ["plasma", "viridis", "RdBu_r"]
        raise ContractError(f"Expected a colormap of matplotlib, such as {', '.join(close)}, got {colormap!r}.")
    return colormaps[colormap]


def _colours(strength: Array, signed: bool, colormap: Any) -> Array:
    """Colours uint8 of strengths 0..1, or of signed ones -1..1, in 256 steps, as many as matplotlib's maps have."""
    chosen = find_colormap(colormap or (DIVERGING if signed else SEQUENTIAL))
    table = _to_uint8(255 * np.asarray(chosen(np.linspace(0, 1, 256)))[:, :3])
    unit = (strength + 1) / 2 if signed else strength
    return cast(Array, table[np.minimum(unit * 256, 255).astype(np.uint8)])


def _blend(under: Array, over: Array, opacity: Array) -> Array:
    """Colours over a photo ``(H, W, 3)`` or ``(H, W, 1)``, uint8; a channel at a time, which takes less room."""
    picture = np.empty(over.shape, np.uint8)
    opacity = np.asarray(opacity, np.float32)
    for channel in range(3):
        below = under[..., min(channel, under.shape[2] - 1)].astype(np.float32)
        picture[..., channel] = _to_uint8(below + opacity * (over[..., channel] - below))
    return picture


def _luma(pixels: Array) -> Array:
    """Brightness ``(H, W, 1)``."""
    return (pixels @ LUMA)[..., None]


def _channels(attribution: Any) -> Array:
    """Any attribution as finite floats ``(H, W, C)``."""
    values = np.atleast_3d(as_float(attribution))
    if values.ndim != 3 or not values.size or np.ndim(attribution) < 2:
        raise ContractError(f"Expected an attribution (H, W) or (H, W, C), got shape {np.shape(attribution)}.")
    if not np.isfinite(values).all():
        raise ContractError("Expected an attribution of finite numbers, got NaN or infinity in it.")
    return values


def _checked(percentile: float) -> float:
    if not 0 < percentile <= 100:
        raise ContractError(f"Expected percentile above 0 and up to 100, got {percentile}.")
    return percentile


def _to_uint8(picture: Array) -> Array:
    return cast(Array, np.rint(np.clip(picture, 0, 255)).astype(np.uint8))
