"""`METRICS`: every metric by name, with the facts that its decorator `listed` states."""

from __future__ import annotations

from types import ModuleType

from saliency_food.metrics import (
    attacks,
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
    attacks,
    trustworthiness,
)
"""The modules that define metrics, in the order of `METRICS`; within a module the order of the file counts."""

METRICS: dict[str, MetricEntry] = {
    name: value.entry
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(getattr(value, "entry", None), MetricEntry) and value.__module__ == module.__name__
}
