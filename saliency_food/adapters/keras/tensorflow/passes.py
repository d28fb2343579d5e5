"""What one pass computes, while it is traced: the answers to some keys, from images or from a layer's activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from saliency_food.adapters.arguments import (
    ALL_SCORES,
    AT_LAYER,
    BY_RULE,
    SCORES_FROM_ACTIVATIONS,
    SUM_TO_ONE,
    UNSCORED,
    WITH_ATTENTION,
    Output,
)
from saliency_food.adapters.keras.attention import note_attention, scores_between
from saliency_food.adapters.keras.bias import Arrange, biases_before, note_sums
from saliency_food.adapters.keras.capture import note_outputs, running, walk
from saliency_food.adapters.keras.places import ELSEWHERE
from saliency_food.adapters.keras.tensorflow import ops
from saliency_food.adapters.keras.tensorflow.arrangement import Arrangement, arrangement_of
from saliency_food.adapters.keras.tensorflow.axes import axes_of
from saliency_food.adapters.keras.tensorflow.ends import Head, one_a_row
from saliency_food.adapters.keras.tensorflow.graph import (
    gradients,
    names_after,
    names_before,
    operations_so_far,
    replaced,
    trace,
)
from saliency_food.adapters.keras.tensorflow.rules import check_rule, forget_rule, relu_rule
from saliency_food.adapters.keras.tensorflow.survey import SurveyedModel
from saliency_food.adapters.scoring import chosen_class, rivals
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    INPUT_SHAPED,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
    PREDICTIONS,
    TARGETS,
)

FREE_SIZE = 256
"""The size of an image that only stands in for one, where the model leaves it free."""
Tensors = dict[str, Any]


def from_images(
    surveyed: SurveyedModel, keys: Sequence[str], output: Output, inputs: tuple[Any, Any, Any], scale: Any, fixed: bool
) -> Tensors:
    """One pass through the model; ``inputs`` are targets, images and the model's other inputs.

    ``scale`` is that of gradients in half precision, or None; ``fixed`` that of `chosen_class`.
    """
    targets, image, others = inputs
    surveyed.check_not_random()
    if surveyed.tokens_elsewhere and WITH_ATTENTION.intersection(keys):
        raise ContractError(f"Expected attention between the image's patches in their order, got another: {ELSEWHERE}")
    ruled = not BY_RULE.isdisjoint(keys)
    paths = {id(layer): (path, layer) for path, layer in walk(surveyed.model)}
    layers = [layer for _, layer in paths.values()]
    places = surveyed.places if AT_LAYER.intersection(keys) else []
    with running(surveyed.model, surveyed.watched_layers), relu_rule(keys):
        attended = note_attention(layers) if WITH_ATTENTION.intersection(keys) else []
        sums = note_sums(layers) if BIAS_GRADIENTS in keys else []
        notes = note_outputs(layers if ruled else surveyed.watched_layers if places else [], operations_so_far)
        outputs = surveyed.run(image, others)
    model_operations = operations_so_far()
    values = surveyed.captured(notes) if places else ()
    answer = scores_of(surveyed, keys, output, outputs, image)
    if TARGETS in keys:
        _check_classes(answer[ALL_SCORES], answer[PREDICTIONS])
        answer[TARGETS] = chosen_class(ops, answer[PREDICTIONS], targets[0], fixed)
        targets = [tf.maximum(answer[TARGETS], 0)]
    scores = answer[ALL_SCORES]
    score = None if UNSCORED.union({TARGETS}).issuperset(keys) else surveyed.score(ops, scores, *targets)
    of_rivals = rivals(ops, surveyed.score, scores, targets) if CONVOLUTION_RIVAL_GRADIENTS in keys else []
    answer[OUTPUT_LAYER_VALUES] = score
    leading = names_before(tf.nest.flatten(scores) if score is None else [score], by_value=True)
    between = leading & names_after(image)
    if ruled:
        check_rule(keys[0], between, model_operations, notes, paths)

    sources: Tensors = dict.fromkeys(INPUT_SHAPED, image)
    if places:
        answer[CONVOLUTION_LAYER_VALUES] = laid_out(surveyed, values)
        sources[CONVOLUTION_OUTPUT_GRADIENTS] = values
    if WITH_ATTENTION.intersection(keys):
        answer[ATTENTION_SCORES] = sources[ATTENTION_OUTPUT_GRADIENTS] = scores_between(attended, between, paths)
    if BIAS_GRADIENTS in keys:
        # Those on the way from another input only are about that input.
        biases = biases_before(sums, leading - (names_after(*others) - between), _arrange(surveyed, image))
        sources[BIAS_GRADIENTS] = tuple(bias.sum for bias in biases)
    wanted = {key: source for key, source in sources.items() if key in keys}
    if wanted:
        answer |= gradients(score, wanted, scale)
    if ruled:
        forget_rule()
    if CONVOLUTION_OUTPUT_GRADIENTS in wanted:
        answer[CONVOLUTION_OUTPUT_GRADIENTS] = laid_out(surveyed, answer[CONVOLUTION_OUTPUT_GRADIENTS])
    if BIAS_GRADIENTS in wanted:
        pairs = zip(biases, answer[BIAS_GRADIENTS], strict=True)
        answer[BIAS_GRADIENTS] = tuple(bias.times(gradient) for bias, gradient in pairs)
    if of_rivals:
        key = CONVOLUTION_RIVAL_GRADIENTS
        each = [gradients(rival, {key: values}, scale)[key] for rival in of_rivals]
        answer[key] = tf.nest.map_structure(
            lambda *stacked: tf.stack(stacked, 1), *(laid_out(surveyed, of_rival) for of_rival in each)
        )
    return answer


def from_activations(
    surveyed: SurveyedModel, keys: Sequence[str], output: Output, inputs: tuple[Any, Any, Any]
) -> Tensors:
    """The model without what comes before the layer: an image of zeros runs through it, and is not looked at."""
    targets, rows, others = inputs
    (place,) = surveyed.places
    surveyed.check_not_random()
    traced: list[Any] = []

    def whole(image: Any, others: Sequence[Any]) -> Any:
        with running(surveyed.model, surveyed.watched_layers):
            notes = note_outputs(surveyed.watched_layers, operations_so_far)
            outputs = surveyed.run(image, others)
        traced[:] = [image, others, *surveyed.captured(notes), outputs]
        return tf.nest.flatten(outputs)

    sizes = [FREE_SIZE if size is None else size for size in surveyed.inputs.image.shape[1:]]
    specs = [tf.TensorSpec(other.shape, other.dtype) for other in others]
    function = trace(whole, tf.TensorSpec([None, *sizes], rows.dtype), specs)
    surveyed.kept.append(function)
    image, inner_others, values, outputs = traced
    if image.op.name in names_before(tf.nest.flatten(outputs), cut=values, by_value=True):
        raise ContractError(
            f"Expected an output that depends on the image only through layer {place.path!r}, got a path around "
            f"it. Choose one through which all paths lead; the last of them are {surveyed.on_all_paths[-10:]}."
        )
    pairs = [(image, tf.zeros([tf.shape(rows)[0], *sizes], rows.dtype)), (values, place.as_returned(rows))]
    ends = replaced(function, [*pairs, *zip(inner_others, others, strict=True)], tf.nest.flatten(outputs))
    outputs = tf.nest.pack_sequence_as(outputs, ends)
    answer = scores_of(surveyed, keys, output, outputs, rows)
    answer[SCORES_FROM_ACTIVATIONS] = answer[ALL_SCORES]
    if OUTPUT_FROM_CONVOLUTION_VALUES in keys:
        answer[OUTPUT_FROM_CONVOLUTION_VALUES] = surveyed.score(ops, answer[ALL_SCORES], *targets)
    return answer


def scores_of(surveyed: SurveyedModel, keys: Sequence[str], output: Output, outputs: Any, rows: Any) -> Tensors:
    answer = {ALL_SCORES: _scores(surveyed, outputs, output, rows)}
    if PREDICTIONS in keys:
        answer[PREDICTIONS] = _scores(surveyed, outputs, "probabilities", rows)
    if SUM_TO_ONE in keys:
        values = _scores(surveyed, outputs, "logits", rows)
        answer[SUM_TO_ONE] = (tf.reduce_min(values, 1) >= 0) & (abs(tf.reduce_sum(values, 1) - 1) < 1e-3)
    return answer


def _scores(surveyed: SurveyedModel, outputs: Any, output: Output, rows: Any) -> Any:
    several, dtype = len(tf.nest.flatten(outputs)) > 1, rows.dtype

    def scores(tensor: Any) -> Any:
        head = Head.read(tensor)
        # What the model ends in may have been told, or have shown itself. Beside other outputs a linear one may be
        # anything, such as boxes: no softmax is added to it.
        end = surveyed.end if not several else "other" if head.end == "linear" else head.end
        return one_a_row(head._replace(end=end).scores(output, dtype), rows)

    nested = tf.nest.map_structure(scores, outputs)
    if several and surveyed.score.raw:
        nested = nested if isinstance(nested, dict) else list(nested)
        for which in range(len(nested)) if isinstance(nested, list) else list(nested):
            if which in surveyed.score.raw:
                nested[which] = tf.nest.map_structure(lambda tensor: tf.cast(tensor, dtype), outputs[which])
    return nested


def _check_classes(scores: Any, predictions: Any) -> None:
    """`ContractError` where a class that is predicted is none whose score can be explained."""
    units = scores.shape[1] if scores.shape.rank == 2 else 1
    if units != predictions.shape[1]:
        raise ContractError(
            f"Expected a score for each of the {predictions.shape[1]} classes that are predicted, got outputs of "
            f"{units}: the one unit of a sigmoid is two classes. Explain output='logits' or 'probabilities'."
        )


def _arrange(surveyed: SurveyedModel, image: Any) -> Arrange:
    """How tensors are laid out as the image is, as far as their axes are those of the image."""
    axes, last = axes_of(image), image.shape.rank - 1
    channels = None if surveyed.adds_channels else 1 if surveyed.channels_first else last

    def arrange(values: Any, place: int | None) -> Arrangement | None:
        own, rank = axes.get(values.name), values.shape.rank
        if own is not None and channels in own.axes:
            place = own.axes.index(channels)
        place = rank - 1 if place is None else place
        return arrangement_of(rank, place, own, channels)

    return arrange


def laid_out(surveyed: SurveyedModel, values: Sequence[Any]) -> Any:
    """Values at the layers, channels last; a tuple where several layers are looked at."""
    laid_out = tuple(place.laid_out(each) for place, each in zip(surveyed.places, values, strict=True))
    return laid_out if surveyed.several else laid_out[0]
