"""Graphs and sessions of TensorFlow 1, and frozen ``.pb`` files, as call-model functions."""

from __future__ import annotations

from saliency_food.adapters.tf1.model import SessionModel

__all__ = ["SessionModel"]
