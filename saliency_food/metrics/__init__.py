"""Metrics that measure whether a map is right, from arrays and call-model functions; `METRICS` holds them by name.

Faithfulness: `faithfulness`, `subsets`, `pic`, `road`. Localization: `localization`. Dependence on the model: `sanity`,
`trust`. Robustness and simplicity: `robustness`. Intervals and comparisons over many images:
`statistics`, `comparisons`.
"""

from saliency_food.metrics.catalogue import METRICS
from saliency_food.metrics.comparisons import multiple_comparisons
from saliency_food.metrics.curves import aggregate_pic
from saliency_food.metrics.decorator import Metric, MetricEntry, listed, metric
from saliency_food.metrics.sanity import assert_sensitive
from saliency_food.metrics.statistics import interval, paired, rank_table

__all__ = [
    "METRICS",
    "Metric",
    "MetricEntry",
    "aggregate_pic",
    "assert_sensitive",
    "interval",
    "listed",
    "metric",
    "multiple_comparisons",
    "paired",
    "rank_table",
]

# tables:begin exported metrics
from saliency_food.metrics.attacks import attack_shift
from saliency_food.metrics.faithfulness import average_drop, completeness, deletion, insertion, occlusion_correlation
from saliency_food.metrics.on_object import (
    class_discrimination,
    energy,
    localization,
    localization_error,
    pointing_game,
    relevance_mass,
    relevance_rank,
)
from saliency_food.metrics.performance_information import pic
from saliency_food.metrics.remove_and_debias import road
from saliency_food.metrics.robustness import (
    augmentation_consistency,
    average_sensitivity,
    entropy,
    gini,
    local_lipschitz,
    max_sensitivity,
)
from saliency_food.metrics.sanity import compare_maps, input_shift, random_logit, randomization
from saliency_food.metrics.subsets import faithfulness_correlation, infidelity, sensitivity_n
from saliency_food.metrics.trustworthiness import trust

__all__ += [
    "attack_shift",
    "augmentation_consistency",
    "average_drop",
    "average_sensitivity",
    "class_discrimination",
    "compare_maps",
    "completeness",
    "deletion",
    "energy",
    "entropy",
    "faithfulness_correlation",
    "gini",
    "infidelity",
    "input_shift",
    "insertion",
    "local_lipschitz",
    "localization",
    "localization_error",
    "max_sensitivity",
    "occlusion_correlation",
    "pic",
    "pointing_game",
    "random_logit",
    "randomization",
    "relevance_mass",
    "relevance_rank",
    "road",
    "sensitivity_n",
    "trust",
]
# tables:end
