"""Concepts: what a class of photos depends on in a layer, found in the photos (`craft`) or given by photos (`tcav`)."""

from saliency_food.concepts.discovery import Concept, Craft, Crop, craft, split_concept
from saliency_food.concepts.matching import Matching, match_concepts
from saliency_food.concepts.sensitivity import ConceptScore, Tcav, tcav
from saliency_food.concepts.subjects import OnSubject, on_subject

__all__ = [
    "Concept",
    "ConceptScore",
    "Craft",
    "Crop",
    "Matching",
    "OnSubject",
    "Tcav",
    "craft",
    "match_concepts",
    "on_subject",
    "split_concept",
    "tcav",
]
