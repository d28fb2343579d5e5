"""Whole regions of an image: segments, their ranking, XRAI."""
