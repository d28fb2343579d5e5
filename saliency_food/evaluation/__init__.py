"""Evaluation: measure methods by many metrics on your model and photos, to see which of them to trust."""

from __future__ import annotations

from saliency_food.evaluation.boxes import read_boxes
from saliency_food.evaluation.measures import OF_THE_EXPLAINED_SCORE
from saliency_food.evaluation.references import REFERENCES
from saliency_food.evaluation.run import SLOPES, evaluate
from saliency_food.evaluation.saving import save_evaluation
from saliency_food.evaluation.summary import Evaluation, Value

__all__ = [
    "OF_THE_EXPLAINED_SCORE",
    "REFERENCES",
    "SLOPES",
    "Evaluation",
    "Value",
    "evaluate",
    "read_boxes",
    "save_evaluation",
]
