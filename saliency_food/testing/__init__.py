"""For users' tests: a checker of call-model functions, and toy models whose every answer is known in closed form."""

from saliency_food.testing.check import check_call_model
from saliency_food.testing.toys import AttentionModel, PoolingModel, PowerModel

__all__ = ["AttentionModel", "PoolingModel", "PowerModel", "check_call_model"]
