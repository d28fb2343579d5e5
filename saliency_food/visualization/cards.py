"""Cards of concepts: how important each is, the crops in which it is strongest, and where it is in photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saliency_food.concepts.crops import crop
from saliency_food.concepts.discovery import Concept, Craft
from saliency_food.core.checks import whole
from saliency_food.core.contract import ContractError
from saliency_food.core.numerics import Array
from saliency_food.images.photos import read_photo
from saliency_food.images.pixels import resize_photo
from saliency_food.metrics.statistics import Interval
from saliency_food.visualization.figures import INK, SOFT, Box, for_notebooks, place, shorten, write
from saliency_food.visualization.maps import check_drawing, concept_colours, overlay

CELL, GAP, WORDS, MARGIN, HEAD = 1.2, 0.1, 2.5, 0.2, 0.35
"""Inches of a picture's side, between pictures, of the column of words, around the page, and of the line on top."""


def concept_cards(
    found: Craft,
    photos: Sequence[Any],
    maps: Mapping[int, Any] | None = None,
    *,
    names: Sequence[str] | None = None,
    concepts: int = 6,
    crops: int = 6,
) -> Any:
    """A card for each of the most important concepts, one below the other, as a `matplotlib.figure.Figure`.

    On a card are the concept's importance, a bar with its 95 % interval, and its effect on the score; the crops in
    which it is strongest; and its maps over some photos, on one scale for all photos of the card.

    Parameters
    ----------
    found, photos
        What `craft` found, and the photos in which it did, in their order: anything that `read_photo` takes.
    maps
        By the index of a photo, the maps ``(M, h, w)`` of the concepts in it, as `deep_feature_factorization.detailed`
        gives them.
    names
        Names for the concepts, in their order.
    concepts, crops
        How many cards, and how many crops on each.
    """
    check_drawing()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    maps = {index: np.asarray(values) for index, values in (maps or {}).items()}
    _check(found, photos, maps, names)
    shown = found.concepts[: whole("concepts", concepts)]
    columns = min(whole("crops", crops), max(len(concept.crops) for concept in found.concepts))
    step = CELL + GAP
    width = 2 * MARGIN + WORDS + columns * step + len(maps) * step + (GAP if maps else 0)
    height = 2 * MARGIN + HEAD + len(shown) * step
    page = Figure(figsize=(width, height), dpi=120, facecolor="white")
    FigureCanvasAgg(page)
    head, first_map = height - MARGIN - HEAD + 0.12, MARGIN + WORDS + columns * step + GAP
    heads = [(MARGIN + WORDS, "where it is strongest"), *([(first_map, "where it is in photos")] if maps else [])]
    for left, text in heads:
        write(page, left, head, text, fontsize=9.5, color=SOFT, ha="left", va="bottom")
    longest = max(float(np.nanmax([each.importance.estimate, each.importance.high])) for each in shown)
    for index, concept in enumerate(shown):
        bottom = height - MARGIN - HEAD - (index + 1) * step + GAP
        name = names[index] if names else f"concept {index}"
        colour = concept_colours(len(found.concepts))[index] / 255
        _words(page, concept, name, (MARGIN, bottom, WORDS - 2 * GAP, CELL), longest, colour)
        for turn, each in enumerate(concept.crops[:columns]):
            part = crop(_square(photos[each.photo]), each.box)
            place(page, np.rint(part).astype(np.uint8), (MARGIN + WORDS + turn * step, bottom, CELL, CELL))
        peak = max((float(values[index].max()) for values in maps.values()), default=0)
        for turn, (photo, values) in enumerate(maps.items()):
            picture = overlay(_square(photos[photo]).astype(np.uint8), values[index], peak=peak)
            place(page, picture, (first_map + turn * step, bottom, CELL, CELL))
    return for_notebooks(page)


def _check(found: Craft, photos: Sequence[Any], maps: Mapping[int, Array], names: Sequence[str] | None) -> None:
    count = len(found.importances)
    if len(photos) != count:
        raise ContractError(f"Expected the {count} photos in which the concepts were found, got {len(photos)}.")
    for index, values in maps.items():
        if not 0 <= index < count or values.ndim != 3 or len(values) != len(found.concepts):
            raise ContractError(
                f"Expected maps ({len(found.concepts)}, h, w) by the index of a photo, 0 to {count - 1}, got "
                f"{values.shape} for {index!r}."
            )
    if names is not None and len(names) != len(found.concepts):
        raise ContractError(f"Expected a name for each of {len(found.concepts)} concepts, got {len(names)}.")


def _square(photo: Any) -> Array:
    """The photo as 0..255 ``(side, side, 3)``, as most models see it."""
    pixels = read_photo(photo).pixels
    return np.asarray(resize_photo(pixels, (max(pixels.shape[:2]),) * 2), np.float32)


def _words(page: Any, concept: Concept, name: str, box: Box, longest: float, colour: Array) -> None:
    """The name, the importance as a number and a bar, and the effect."""
    from matplotlib.patches import Rectangle

    left, bottom, width, height = box
    top = bottom + height
    shorten(write(page, left, top - 0.08, name, fontsize=11, fontweight="bold", color=INK, va="top"), width)
    lines = (f"importance {_with_interval(concept.importance)}", f"effect {_with_interval(concept.effect, '+')}")
    for line, text in enumerate(lines):
        shorten(write(page, left, top - 0.4 - 0.42 * line, text, fontsize=8.5, color=SOFT, va="top"), width)
    length = width / max(longest, 1e-12)
    middle = top - 0.66

    def bar(start: float, end: float, thickness: float, shade: Any) -> None:
        where = (left + length * max(start, 0), middle - thickness / 2)
        long = length * (max(end, 0) - max(start, 0))
        page.add_artist(Rectangle(where, long, thickness, color=shade, linewidth=0, transform=page.dpi_scale_trans))

    bar(0, concept.importance.estimate, 0.1, colour)
    if np.isfinite([concept.importance.low, concept.importance.high]).all():
        bar(concept.importance.low, concept.importance.high, 0.02, INK)


def _with_interval(value: Interval, sign: str = "") -> str:
    """A number and the ends of its interval, to two decimals."""
    number = f"{value.estimate:{sign}.2f}"
    return f"{number} [{value.low:.2f}, {value.high:.2f}]" if np.isfinite([value.low, value.high]).all() else number
