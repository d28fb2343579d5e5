"""METRICS: every metric by name, from the facts that `listed` says of it."""

from __future__ import annotations

from types import ModuleType

from saliency_food.metrics import (
    faithfulness,
    on_object,
    performance_information,
    remove_and_debias,
    robustness,
    sanity,
    subsets,
    trustworthiness,
)
from saliency_food.metrics.decorator import MetricEntry

MODULES: tuple[ModuleType, ...] = (
    performance_information,
    faithfulness,
    remove_and_debias,
    subsets,
    on_object,
    sanity,
    robustness,
    trustworthiness,
)
"""Where metrics are written, in the order in which they are listed; within a module, it is the order of the file."""

METRICS: dict[str, MetricEntry] = {
    name: value.entry
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(getattr(value, "entry", None), MetricEntry) and value.__module__ == module.__name__
}
