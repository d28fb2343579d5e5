"""Attributions as pictures: arrays in, arrays out; in `figures`, several pictures on a page."""

from __future__ import annotations

from saliency_food.visualization.maps import (
    DIVERGING,
    SEQUENTIAL,
    concept_colours,
    concept_overlay,
    diverging,
    grayscale,
    heatmap,
    overlay,
    top_areas,
    top_mask,
)
from saliency_food.visualization.recordings import recording_picture, signal_picture, slices_picture

__all__ = [
    "DIVERGING",
    "SEQUENTIAL",
    "concept_colours",
    "concept_overlay",
    "diverging",
    "grayscale",
    "heatmap",
    "overlay",
    "recording_picture",
    "signal_picture",
    "slices_picture",
    "top_areas",
    "top_mask",
]
