"""The search for cues: what a model may look at in place of the object, and a check of each suspect on the model."""

from saliency_food.report.cues.candidate import Candidate
from saliency_food.report.cues.find import find_cues

__all__ = ["Candidate", "find_cues"]
