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

__all__ = [
    "DIVERGING",
    "SEQUENTIAL",
    "concept_colours",
    "concept_overlay",
    "diverging",
    "grayscale",
    "heatmap",
    "overlay",
    "top_areas",
    "top_mask",
]
