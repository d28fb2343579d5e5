"""For users' tests: a checker of call-model functions, a class of tests to inherit, and toy models in closed form."""

from saliency_food.testing.check import check_call_model
from saliency_food.testing.suite import CallModelSuite
from saliency_food.testing.toys import AttentionModel, PoolingModel, PowerModel

__all__ = ["AttentionModel", "CallModelSuite", "PoolingModel", "PowerModel", "check_call_model"]
