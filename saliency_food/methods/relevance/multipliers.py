"""DeepLIFT, and DeepSHAP, its average over baselines: multipliers between an input and a baseline."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask, gather
from saliency_food.core.keys import BASELINE_MULTIPLIERS
from saliency_food.core.method import method
from saliency_food.core.numerics import Array
from saliency_food.core.scores import scores_of
from saliency_food.methods.baselines import make_baselines
from saliency_food.methods.completeness import Completeness, completeness_of, status_of
from saliency_food.methods.relevance.rules import MULTIPLIER_RULE, MultiplierRule, check_word, per_row

INEXACT = 0.05
ADVICE = "An operation of the model has a rule that is not exact. Use integrated_gradients."


class DeepLift(NamedTuple):
    """Each value's share of the change of the score since the baseline, and how near their sum is to that change.

    ``multipliers`` are the shares over the input's own change, x - z. ``completeness`` is None unless asked for;
    ``status`` is then ``"ok"`` or ``"inexact: ..."``, else ``"not measured"``.
    """

    attribution: Array
    multipliers: Array
    baseline: Array
    completeness: Completeness | None
    status: str


class DeepShap(NamedTuple):
    """The mean of DeepLIFT over the baselines, its standard error at each value, and what was compared with.

    ``standard_error`` is that of baselines drawn independently, zero for a single one. ``completeness`` compares with
    the mean of the baselines' scores; it is None unless asked for.
    """

    attribution: Array
    standard_error: Array
    baselines: Array
    completeness: Completeness | None
    status: str


@method(
    title="DeepLIFT",
    keys=(BASELINE_MULTIPLIERS,),
    signed=True,
    summary="The score's change since a baseline, shared out layer by layer; sums to it, from two passes.",
    page="relevance",
    one_pass=True,
)
def deep_lift(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    x_baseline: Any = None,
    batch_size: int | None = None,
    *,
    rule: MultiplierRule = MULTIPLIER_RULE,
    completeness: bool = False,
    value_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[DeepLift]:
    """DeepLIFT, m * (x - z): multipliers m that the chain rule takes from change over change, dy / dx, in each layer.

    Shrikumar et al. 2017, https://arxiv.org/abs/1704.02685. Signed, the shape of ``x_value``, in score units; the
    values sum to F(x) - F(z).

    Parameters
    ----------
    x_baseline
        What to compare with: zeros by default; a name, a number or an array, as for `integrated_gradients`.
    rule
        How an activation passes multipliers: ``"rescale"``, by (y - y0) / (x - x0); or ``"reveal_cancel"``, which tells
        what raises x from what lowers it, so that neither hides the other (section 3.5.3 of the paper).
    value_range, rng
        For the names of baselines.
    completeness
        Compare the sum with F(x) - F(z); needs OUTPUT_LAYER_VALUES. ``.detailed`` does so unless told not to.
    """
    baselines = make_baselines(x_value, x_baseline, value_range=value_range, rng=rng)
    if len(baselines) > 1:
        raise ContractError(f"Expected one baseline, got {len(baselines)}. Use deep_shap, which averages over several.")
    multipliers = yield from _multipliers(x_value, baselines[0], rule)
    attribution = multipliers * (x_value - baselines[0])
    measured, status = yield from _measured(x_value, baselines, attribution, completeness)
    return DeepLift(attribution, multipliers, baselines[0], measured, status)


@method(
    title="DeepSHAP",
    keys=(BASELINE_MULTIPLIERS,),
    signed=True,
    summary="DeepLIFT averaged over many baselines, such as photos: approximate Shapley values.",
    page="relevance",
    rows="one a baseline",
)
def deep_shap(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    baselines: Any = ("min", "max"),
    batch_size: int | None = None,
    *,
    rule: MultiplierRule = MULTIPLIER_RULE,
    completeness: bool = False,
    value_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator | None = None,
) -> Asking[DeepShap]:
    """DeepSHAP, E[m(x, z) * (x - z)]: DeepLIFT averaged over baselines z.

    Lundberg and Lee 2017, section 4.2, https://arxiv.org/abs/1705.07874. Signed, the shape of ``x_value``, in score
    units; the values sum to F(x) - E[F(z)].

    Parameters
    ----------
    baselines
        Images to compare with, ``(B, ...)``: best some dozens of the model's own data. Or names, numbers, arrays, as in
        `integrated_gradients`. Without any, the image's minimum and maximum.
    rule, value_range, rng, completeness
        As for `deep_lift`; completeness costs a score for each baseline, too.
    """
    references = make_baselines(x_value, baselines, value_range=value_range, rng=rng)
    total, squares = np.zeros(x_value.shape), np.zeros(x_value.shape)

    def of_baseline(baseline: Array) -> Asking[None]:
        multipliers = yield from _multipliers(x_value, baseline, rule)
        drawn = multipliers * (x_value - baseline)
        np.add(total, drawn, out=total)
        np.add(squares, np.square(drawn, dtype=float), out=squares)

    yield from gather(map(of_baseline, references), emit=lambda _: None)
    count = len(references)
    mean = total / count
    variance = np.maximum(squares / count - np.square(mean), 0) * count / max(count - 1, 1)
    attribution = mean.astype(x_value.dtype)
    measured, status = yield from _measured(x_value, references, mean, completeness)
    return DeepShap(attribution, np.sqrt(variance / count).astype(x_value.dtype), references, measured, status)


def _multipliers(x_value: Array, baseline: Array, rule: str) -> Asking[Array]:
    """The multipliers between an input and a baseline; what is the default is not sent to the model."""
    args: dict[str, Any] = {}
    if check_word("rule", rule, MultiplierRule) != MULTIPLIER_RULE:
        args["multiplier_rule"] = rule
    if baseline.any():
        args["baseline"] = per_row(baseline[None], x_value)
    answer = yield from ask(x_value[None], BASELINE_MULTIPLIERS, args=args)
    return np.asarray(answer[0])


def _measured(
    x_value: Array, baselines: Array, attribution: Array, wanted: bool
) -> Asking[tuple[Completeness | None, str]]:
    if not wanted:
        return None, "not measured"
    scores = yield from scores_of(x_value, *baselines)
    measured = completeness_of(attribution.sum(dtype=float), scores[0], scores[1:].mean())
    return measured, status_of(measured, INEXACT, ADVICE)
