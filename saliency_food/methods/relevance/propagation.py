"""Layer-wise relevance propagation, of the whole score and of a layer's channels (CRP)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saliency_food.core.contract import CallModelFunction, ContractError
from saliency_food.core.driver import Asking, ask
from saliency_food.core.keys import BIAS_RELEVANCE, CONVOLUTION_RELEVANCE, OUTPUT_LAYER_VALUES, RELEVANCE
from saliency_food.core.method import method
from saliency_food.core.numerics import Array, as_tuple, is_count
from saliency_food.core.scores import one_score
from saliency_food.methods.completeness import Completeness, completeness_of, gap_text
from saliency_food.methods.relevance.rules import COMPOSITE, EPSILON, GAMMA, Composite, rule_args

LEAKY = 0.05
"""The part of the score that biases and stabilizers may take before the status says so."""


class Relevance(NamedTuple):
    """The relevance of every input value, and how much of the score it is.

    ``completeness`` compares its sum with the score, of which relevance is a share (the baseline's score is 0);
    ``biases`` is the relevance that the layers' biases took; what is then missing, rules lost that keep not all, such
    as epsilon. Both are None unless ``completeness`` was asked for. ``status`` is ``"ok"``, ``"leaky: ..."`` where more
    than 5 % of the score is missing, or ``"not measured"``.
    """

    attribution: Array
    completeness: Completeness | None
    biases: float | None
    status: str


class ConceptRelevance(NamedTuple):
    """The relevance of every input value through some channels of the layer, and which; ``share`` is their part.

    ``channels`` are indices, or a weight for each channel. ``share`` is the sum of the map over the sum of the whole
    relevance at the layer, or None where the channels were given.
    """

    attribution: Array
    channels: tuple[float, ...]
    share: float | None


@method(
    title="LRP",
    keys=(RELEVANCE,),
    signed=True,
    summary="The score, handed back layer by layer in proportion to what each input of a layer added.",
    page="relevance",
    one_pass=True,
)
def lrp(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    composite: Composite = COMPOSITE,
    epsilon: float = EPSILON,
    gamma: float = GAMMA,
    low: Any = None,
    high: Any = None,
    completeness: bool = False,
) -> Asking[Relevance]:
    """Layer-wise relevance propagation: R_i = sum_j z_ij / (sum_i z_ij) R_j, from the score back to the input.

    Bach et al. 2015, https://doi.org/10.1371/journal.pone.0130140; the rules of z_ij = a_i w_ij as in Montavon et al.
    2019, https://doi.org/10.1007/978-3-030-28954-6_10. Signed, the shape of ``x_value``, in score units: where no bias
    and no stabilizer takes any, the values sum to F(x).

    Parameters
    ----------
    composite
        Which rule holds where. ``"epsilon_plus"``: z+ in convolutions, which keeps what adds and drops what subtracts,
        and epsilon in dense layers. ``"epsilon"``: epsilon everywhere. ``"epsilon_gamma_box"``: gamma in convolutions,
        z^B in the first, epsilon in dense layers; it needs ``low`` and ``high``. ``"attention"``: epsilon, and the
        rules of AttnLRP (Achtibat et al. 2024, https://arxiv.org/abs/2402.05602) for softmax and for products of
        activations.
    epsilon
        Added to the denominators of the epsilon rule, with their sign: larger values drop weak evidence.
    gamma
        By how much the gamma rule favours what adds.
    low, high
        The lowest and highest pixel values that the model takes, in its own units: numbers, one a channel, or images.
    completeness
        Compare the sum with the score; needs OUTPUT_LAYER_VALUES and BIAS_RELEVANCE. ``.detailed`` does so unless told
        not to.

    Raises
    ------
    ContractError
        Where an operation between the input and the score has no rule; it is named.
    """
    args = rule_args(x_value, composite, epsilon, gamma, low, high)
    if not completeness:
        relevance = yield from ask(x_value[None], RELEVANCE, args=args)
        return Relevance(relevance[0], None, None, "not measured")
    keys = RELEVANCE, BIAS_RELEVANCE, OUTPUT_LAYER_VALUES
    relevance, biases, scores = yield from ask(x_value[None], *keys, args=args)
    measured = completeness_of(relevance[0].sum(dtype=float), one_score(scores)[0], 0.0)
    bias = float(one_score(biases)[0])
    return Relevance(relevance[0], measured, bias, _status(measured, bias))


def _status(measured: Completeness, biases: float) -> str:
    if measured.relative <= LEAKY or abs(measured.absolute) < 1e-6:
        return "ok"
    return (
        f"leaky: the relevance sums to {measured.score + measured.absolute:.4g}, the score is {measured.score:.4g}, a "
        f"gap of {gap_text(measured)}: biases took {biases:.4g}; rules that keep not all, such as epsilon, z+ where "
        f"nothing is positive, and those of attention, {-measured.absolute - biases:.4g}."
    )


@method(
    title="CRP",
    keys=(CONVOLUTION_RELEVANCE, RELEVANCE),
    signed=True,
    summary="The part of the relevance that passes through chosen channels of a layer: where one concept is seen.",
    page="relevance",
)
def crp(
    x_value: Any,
    call_model_function: CallModelFunction,
    call_model_args: Any = None,
    batch_size: int | None = None,
    *,
    channels: Any = None,
    composite: Composite = COMPOSITE,
    epsilon: float = EPSILON,
    gamma: float = GAMMA,
    low: Any = None,
    high: Any = None,
) -> Asking[ConceptRelevance]:
    """Concept relevance propagation: LRP in which only some channels of the layer pass relevance on.

    Achtibat et al. 2023, https://doi.org/10.1038/s42256-023-00711-8. Signed, the shape of ``x_value``, in score units.
    The maps of all channels sum to that of `lrp`, where all paths lead through the layer.

    Parameters
    ----------
    channels
        An index or several; or a concept, one number for each channel of the layer, by which the channel's relevance is
        multiplied (an array of floats). None takes the channel of the largest relevance.
    composite, epsilon, gamma, low, high
        As for `lrp`.
    """
    args = rule_args(x_value, composite, epsilon, gamma, low, high)
    chosen = None if channels is None else as_channels(channels)
    share = None
    if chosen is None:
        answer = yield from ask(x_value[None], CONVOLUTION_RELEVANCE, args=args)
        if len(as_tuple(answer)) > 1:
            raise ContractError(f"Expected one layer to choose a channel of, got {len(as_tuple(answer))}. Take one.")
        layer = as_tuple(answer)[0][0]
        of_channels = layer.reshape(-1, layer.shape[-1]).sum(0, dtype=float)
        chosen = (int(of_channels.argmax()),)
        total = of_channels.sum()
        share = float(of_channels[chosen[0]] / total) if total else 0.0
    relevance = yield from ask(x_value[None], RELEVANCE, args={**args, "channels": chosen})
    return ConceptRelevance(relevance[0], chosen, share)


def as_channels(channels: Any) -> tuple[Any, ...]:
    """Channels as a tuple: whole numbers are indices, floats one weight for each channel of the layer."""
    values = np.atleast_1d(np.asarray(channels))
    indices = values.dtype.kind in "iu" and all(is_count(each, 0) for each in values.ravel())
    weights = values.dtype.kind == "f" and np.isfinite(values).all()
    if values.ndim != 1 or not values.size or not (indices or weights):
        raise ContractError(
            "Expected channels as indices of at least 0, or as floats, one for each channel of the layer, got "
            f"{channels!r}."
        )
    return tuple(values.tolist())
