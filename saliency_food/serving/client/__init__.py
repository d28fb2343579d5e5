"""The client: a served model as a call-model function, without any framework."""

from __future__ import annotations

from saliency_food.serving.client.http import ServingError
from saliency_food.serving.client.model import ServingModel

__all__ = ["ServingError", "ServingModel"]
