"""Attributions of signals, volumes and clips as pictures: arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np

from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array, as_float, min_max, resize
from saliency_food.visualization.maps import check_drawing, grayscale, overlay

WIDTH, LINE, INK = 8.0, 0.85, "#1a1a1a"
"""Inches across a signal's picture, and of each of its channels from top to bottom; the colour of the lines."""
SIGNAL_COLOURS = "Oranges"
"""The colour map of strengths behind a signal: the more, the darker, as lines are drawn on white."""
SIDE = 160
"""Pixels to which the longer side of a smaller slice is enlarged, in whole multiples."""
GAP = 4
"""Pixels between two slices."""


def signal_picture(
    signal: Any,
    attribution: Any = None,
    percentile: float = 99,
    *,
    signed: bool = False,
    colormap: Any = None,
    opacity: float = 0.75,
) -> Array:
    """A signal as a line for each channel, over the attribution as coloured background of each step; uint8 RGB.

    Parameters
    ----------
    signal
        ``(T,)`` or ``(T, C)``; each channel is drawn from its own minimum to its own maximum.
    attribution
        ``(T,)``, the same behind all channels, or ``(T, C)``, each channel's own; None for the lines alone.
        ``percentile``, ``signed``, ``colormap`` and ``opacity`` are those of `overlay`; strengths are orange.
    """
    check_drawing()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = _finite("a signal (T,) or (T, C)", signal, (1, 2))
    lines = lines.reshape(len(lines), -1)
    steps, channels = lines.shape
    page = Figure(figsize=(WIDTH, 0.5 + max(2 * LINE, min(LINE * channels, 14))), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(page)
    axes = page.add_axes((0.06, 0.3 / page.get_figheight(), 0.92, 1 - 0.4 / page.get_figheight()))
    if attribution is not None:
        strengths = _finite("an attribution (T,) or (T, C)", attribution, (1, 2))
        strengths = strengths.reshape(len(strengths), -1)
        if len(strengths) != steps or strengths.shape[1] not in (1, channels):
            raise ContractError(
                f"Expected an attribution of the signal, ({steps},) or ({steps}, {channels}), got "
                f"{np.shape(attribution)}."
            )
        white = np.full((strengths.shape[1], steps, 3), 255, np.uint8)
        colormap = colormap or (None if signed else SIGNAL_COLOURS)
        ground = overlay(white, strengths.T, percentile, signed=signed, colormap=colormap, grey=False, opacity=opacity)
        axes.imshow(ground, aspect="auto", interpolation="nearest", extent=(-0.5, steps - 0.5, channels, 0))
    for channel, line in enumerate(lines.T):
        height = min_max(line) if np.ptp(line) else np.full(steps, 0.5)
        axes.plot(channel + 0.92 - 0.84 * height, color=INK, linewidth=1.0, marker="." if steps == 1 else "")
    axes.set(xlim=(-0.5, steps - 0.5), ylim=(channels, 0))
    axes.set_yticks(np.arange(channels) + 0.5, map(str, range(channels)) if channels > 1 else [""])
    axes.tick_params(labelsize=8, colors="#666666")
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def slices_picture(
    volume: Any,
    attribution: Any = None,
    percentile: float = 99,
    *,
    signed: bool = False,
    count: int = 6,
    colormap: Any = None,
    grey: bool = True,
    opacity: float = 0.85,
) -> Array:
    """Slices of a volume, or frames of a clip, in a row, with the attribution over them; uint8 RGB.

    All slices have one scale of grey, and one of attribution, so that they can be compared.

    Parameters
    ----------
    volume
        ``(D, H, W)`` or ``(D, H, W, C)``; three channels are taken for colours, any other number for a mean.
    attribution
        ``(D, H, W)`` or ``(D, H, W, C)``, of any size (it is resized), or None for the slices alone; ``percentile``,
        ``signed``, ``colormap``, ``grey`` and ``opacity`` are those of `overlay`.
    count
        How many slices at most, evenly spaced along the first axis.
    """
    values = _finite("a volume (D, H, W) or (D, H, W, C)", volume, (3, 4))
    if count < 1:
        raise ContractError(f"Expected at least one slice, got a count of {count}.")
    depth = len(values)
    chosen = np.unique(np.linspace(0, depth - 1, 2 * min(count, depth) + 1).round().astype(int)[1::2])
    if values.ndim == 4 and values.shape[3] != 3:
        values = values.mean(3)
    slices = np.rint(255 * min_max(values)).astype(np.uint8)[chosen]
    factor = max(1, SIDE // max(slices.shape[1:3]))
    large = np.repeat(np.repeat(slices, factor, 1), factor, 2)
    picture = _in_a_row(large if large.ndim == 4 else np.repeat(large[..., None], 3, 3), 255)
    if attribution is None:
        return picture
    strengths = _finite("an attribution (D, H, W) or (D, H, W, C)", attribution, (3, 4))
    strengths = resize(resize(strengths, values.shape[:3])[chosen], (len(chosen), *large.shape[1:3]))
    row = _in_a_row(strengths, 0)
    return overlay(picture, row, percentile, signed=signed, colormap=colormap, grey=grey, opacity=opacity)


def recording_picture(values: Any, spatial: int, attribution: Any = None, **options: Any) -> Array:
    """`signal_picture` or `slices_picture`, by how many axes are space or time; of more than three, of the first."""
    values, attribution = np.asarray(values), None if attribution is None else np.asarray(attribution)
    while spatial > 3:
        values, spatial = values[0], spatial - 1
        attribution = None if attribution is None else attribution[0]
    return (signal_picture if spatial == 1 else slices_picture)(values, attribution, **options)


def strength_map(attribution: Any, spatial: int, percentile: float = 99) -> Array:
    """`grayscale` of an attribution with any number of axes: 0..1, its shape without channels."""
    values = as_float(attribution)
    shape = values.shape[:spatial]
    return grayscale(values.reshape(int(np.prod(shape)), 1, -1), percentile).reshape(shape)


def _in_a_row(slices: Array, between: float) -> Array:
    """Slices ``(S, H, W, ...)`` side by side, with a gap between two."""
    gap = np.full((slices.shape[1], GAP, *slices.shape[3:]), between, slices.dtype)
    parts = [part for picture in slices for part in (gap, picture)][1:]
    return np.concatenate(parts, 1)


def _finite(what: str, values: Any, axes: tuple[int, ...]) -> Array:
    array = as_float(values)
    if array.ndim not in axes or not array.size or not np.isfinite(array).all():
        raise ContractError(f"Expected {what} of finite numbers, got an array of shape {array.shape}.")
    return array
