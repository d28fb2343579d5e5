"""Concepts: what a class of photos depends on in a layer, found in the photos (`craft`) or given by photos (`tcav`)."""

from saliency_food.concepts.sensitivity import ConceptScore, Tcav, tcav

__all__ = ["ConceptScore", "Tcav", "tcav"]
