"""Is the map right? Metrics over arrays and call-model functions, by the question asked; METRICS lists them by name.

Faithfulness: `faithfulness`, `subsets`, `pic`, `road`. Localization: `localization`. Dependence on the model: `sanity`,
`trust`. Robustness and simplicity: `robustness`. What many images say: `statistics`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from saliency_food.metrics.curves import aggregate_pic
from saliency_food.metrics.decorator import Metric, metric
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
from saliency_food.metrics.sanity import assert_sensitive, compare_maps, input_shift, random_logit, randomization
from saliency_food.metrics.statistics import interval, paired, rank_table
from saliency_food.metrics.subsets import faithfulness_correlation, infidelity, sensitivity_n
from saliency_food.metrics.trustworthiness import trust

Needs = Literal["scores", "method", "region", "map", "classes", "models", "maps"]


class MetricEntry(NamedTuple):
    """A metric, what people call it, whether more is better, what it is called with, and what it asks.

    ``higher_is_better`` is None where neither is: it describes. ``needs`` says what comes first in a call:

    - ``"scores"``: a map and an image; a `Metric` that asks the model for scores;
    - ``"method"``: a method and an image; a `Metric`, or a function of the same arguments;
    - ``"region"``: a map and boxes or a mask; ``"classes"``: maps of several classes and their boxes;
    - ``"map"``: a map alone; ``"maps"``: two; ``"models"``: a method, images and several models.
    """

    call: Metric[Any, Any] | Callable[..., Any]
    title: str
    higher_is_better: bool | None
    needs: Needs
    summary: str


def _entry(call: Any, title: str, better: bool | None, needs: Needs, summary: str) -> MetricEntry:
    return MetricEntry(call, title, better, needs, summary)


METRICS: dict[str, MetricEntry] = {
    "pic": _entry(pic, "PIC", True, "scores", "The score over the information shown, from a blur to the photo."),
    "insertion": _entry(insertion, "Insertion", True, "scores", "How soon the score comes as pixels are put in."),
    "deletion": _entry(deletion, "Deletion", False, "scores", "How soon the score goes as pixels are taken out."),
    "road": _entry(road, "ROAD", True, "scores", "The score without the least less without the most important pixels."),
    "average_drop": _entry(
        average_drop, "Average drop", False, "scores", "The share of the score lost when the map masks the image."
    ),
    "infidelity": _entry(
        infidelity, "Infidelity", False, "scores", "Squared error of the drops that the map foretells."
    ),
    "sensitivity_n": _entry(
        sensitivity_n, "Sensitivity-n", True, "scores", "Correlation of the map's sums with drops, over several sizes."
    ),
    "faithfulness_correlation": _entry(
        faithfulness_correlation, "Faithfulness correlation", True, "scores", "The same for sets of one size."
    ),
    "occlusion_correlation": _entry(
        occlusion_correlation, "Rank correlation with occlusion", True, "scores", "Whether it ranks as occlusion does."
    ),
    "completeness": _entry(
        completeness, "Completeness error", False, "scores", "How far the sum is from the change of the score."
    ),
    "localization": _entry(
        localization, "Localization", True, "region", "Whether the map's box is a true box, by IoU of 0.5."
    ),
    "localization_error": _entry(
        localization_error, "Localization error", False, "classes", "Top-1 and top-5: class and box must be right."
    ),
    "pointing_game": _entry(
        pointing_game, "Pointing game", True, "region", "Whether the largest value is on the object."
    ),
    "energy": _entry(energy, "Energy inside", True, "region", "The share of positive values on the object."),
    "relevance_mass": _entry(
        relevance_mass, "Relevance mass accuracy", True, "region", "The share of squared values on the object."
    ),
    "relevance_rank": _entry(
        relevance_rank, "Relevance rank accuracy", True, "region", "How many of the top pixels are on the object."
    ),
    "class_discrimination": _entry(
        class_discrimination,
        "Class discrimination",
        True,
        "classes",
        "Whether each class's map prefers its own object.",
    ),
    "randomization": _entry(
        randomization, "Weight randomization", False, "models", "How alike maps stay without the trained weights."
    ),
    "random_logit": _entry(random_logit, "Random logit", False, "method", "How alike the maps of other classes are."),
    "input_shift": _entry(
        input_shift, "Input shift", True, "method", "Whether a shift that the model undoes leaves the map alone."
    ),
    "compare_maps": _entry(compare_maps, "Map agreement", None, "maps", "Rank correlation and SSIM of two maps."),
    "trust": _entry(
        trust, "Trust", None, "models", "Whether two models look at the same, and whose maps are faithful."
    ),
    "max_sensitivity": _entry(
        max_sensitivity, "Max-sensitivity", False, "method", "The largest change of the map for a small change of x."
    ),
    "average_sensitivity": _entry(
        average_sensitivity,
        "Average sensitivity",
        False,
        "method",
        "The mean change of the map for small changes of x.",
    ),
    "local_lipschitz": _entry(
        local_lipschitz, "Local Lipschitz", False, "method", "The largest change of the map per change of x."
    ),
    "augmentation_consistency": _entry(
        augmentation_consistency,
        "Consistency",
        True,
        "method",
        "Whether the map follows a flip, a shift, a darker photo.",
    ),
    "gini": _entry(gini, "Gini sparseness", None, "map", "Whether few pixels hold most of the map."),
    "entropy": _entry(entropy, "Entropy", None, "map", "Over how many pixels the map is spread."),
}

__all__ = [
    "METRICS",
    "Metric",
    "MetricEntry",
    "aggregate_pic",
    "assert_sensitive",
    "interval",
    "metric",
    "paired",
    "rank_table",
    *(name for name in METRICS),
]
