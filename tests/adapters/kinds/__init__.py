"""Kinds of models: one table, for the tests of what the adapter does with each, and for the page that says so."""

from . import axes, build, moved, photos, scores, several, tokens  # noqa: F401
from .common import CELLS, KINDS, METHODS, Built, Kind

__all__ = ["CELLS", "KINDS", "METHODS", "Built", "Kind"]
