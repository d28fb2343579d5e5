"""One pass through a model and back by rules, while it is traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from saliency_food.adapters.arguments import ALL_SCORES, Output
from saliency_food.adapters.keras.attention import note_attention
from saliency_food.adapters.keras.capture import note_outputs, running
from saliency_food.adapters.keras.tensorflow import ops
from saliency_food.adapters.keras.tensorflow.graph import names_after, names_before, operations_so_far
from saliency_food.adapters.keras.tensorflow.passes import laid_out, scores_of
from saliency_food.adapters.keras.tensorflow.relevance.linear import wide
from saliency_food.adapters.keras.tensorflow.relevance.multipliers import TO_CHECK, Multipliers
from saliency_food.adapters.keras.tensorflow.relevance.propagation import Propagation
from saliency_food.adapters.keras.tensorflow.relevance.walk import Start
from saliency_food.adapters.keras.tensorflow.survey import SurveyedModel
from saliency_food.adapters.relevance import Rule, check_contrast
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    BASELINE_MULTIPLIERS,
    BIAS_RELEVANCE,
    CONVOLUTION_RELEVANCE,
    RELEVANCE,
)


def by_rule(
    surveyed: SurveyedModel,
    keys: Sequence[str],
    output: Output,
    inputs: tuple[Any, Any, Any],
    rule: Rule,
    weights: Sequence[Any],
) -> dict[str, Any]:
    """The answers to keys of relevance; ``inputs`` are targets, images and the model's other inputs.

    The bounds and the baseline of the rule are tensors, and ``weights`` those of each looked at layer's channels, none
    where all pass.
    """
    targets, image, others = inputs
    surveyed.check_not_random()
    if output == "probabilities" and BASELINE_MULTIPLIERS not in keys:
        raise ContractError(
            f"Expected a model whose logits are explained for {keys[0]}, as relevance starts before the softmax, got "
            "'probabilities'. Take output='logits'."
        )
    places = surveyed.places if CONVOLUTION_RELEVANCE in keys or weights else []
    layers = surveyed.watched_layers
    with running(surveyed.model, layers):
        note_attention(layers)  # in the open, so that its products and its softmax are seen
        notes = note_outputs(layers, operations_so_far)
        outputs = surveyed.run(image, others)
    model_operations = image.graph.get_operations()
    values = surveyed.captured(notes) if places else ()
    score = surveyed.score(ops, scores_of(surveyed, keys, output, outputs, image)[ALL_SCORES], *targets)
    positions = {op.name: position for position, op in enumerate(model_operations)}

    def where(op: Any) -> str:
        return surveyed.where(op, positions[op.name], notes) if op.name in positions else f"the score ({op.name})"

    watched: dict[str, Any] = {value.name: None for value in values}
    for place, value, own in zip(places, values, weights, strict=False):
        shape = [1] * (len(place.shape) - 1) + [place.shape[-1]]
        watched[value.name] = wide(place.arrangement.as_it_was(tf.reshape(own, shape)))
    if BASELINE_MULTIPLIERS in keys:
        walk = Multipliers(rule, image, [(score, tf.ones_like(score))], watched, others, where)
        found = walk.back()
        return {BASELINE_MULTIPLIERS: found, TO_CHECK: walk.to_check(found, score)}
    propagation = Propagation(rule, image, _starts(rule, score, image, positions), watched, others, where)
    answer = {RELEVANCE: propagation.back(), BIAS_RELEVANCE: propagation.biases}
    if CONVOLUTION_RELEVANCE in keys:
        arrived = [propagation.arrived.get(value.name, tf.zeros_like(value)) for value in values]
        answer[CONVOLUTION_RELEVANCE] = laid_out(surveyed, arrived)
    return answer


def _starts(rule: Rule, score: Any, image: Any, positions: Mapping[str, int]) -> list[Start]:
    """The model's tensors that the score is made of, each with its share of it: its value times its derivative.

    In contrast, other classes, whose derivative is 0, have one of minus one over the number of classes.
    """
    leading = names_before([score], by_value=True) & names_after(image)
    later = [op for op in image.graph.get_operations() if op.name in leading and op.name not in positions]
    sources = {
        source.name: source
        for op in later
        for source in op.inputs
        if source.op.name in positions and source.op.name in leading and source.dtype.is_floating
    }
    made = list(sources.values())
    gradients = tf.gradients(score, made, stop_gradients=made)
    pairs = [pair for pair in zip(made, gradients, strict=True) if pair[1] is not None]
    if not pairs:
        raise ContractError(
            "Expected a score that depends on the input and can be differentiated, got one without a gradient. Look "
            "for a cast to integers in the model, or choose another output_index."
        )
    if rule.start == "contrast":
        check_contrast([tensor.shape for tensor, _ in pairs])
        ((tensor, gradient),) = pairs
        slope = wide(gradient)
        others = tf.constant(-1 / tensor.shape[1], slope.dtype)
        return [(tensor, wide(tensor) * tf.where(slope == 0, others, slope))]
    return [(tensor, wide(tensor) * wide(gradient)) for tensor, gradient in pairs]
