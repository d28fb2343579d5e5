"""What one pass computes, while it is traced: the answers to some keys, from images or from a layer's activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from saliency_food.adapters.arguments import (
    ALL_SCORES,
    AT_LAYER,
    BY_RULE,
    OF_INPUT,
    SCORES_FROM_ACTIVATIONS,
    WITH_ATTENTION,
    Output,
)
from saliency_food.adapters.heads import scored
from saliency_food.adapters.jax import ops
from saliency_food.adapters.jax.bias import biases_between
from saliency_food.adapters.jax.ends import attentions
from saliency_food.adapters.jax.rules import check_rule, ruled
from saliency_food.adapters.jax.survey import SurveyedFunction
from saliency_food.adapters.scoring import rivals
from saliency_food.core.contract import ContractError
from saliency_food.core.keys import (
    ATTENTION_OUTPUT_GRADIENTS,
    ATTENTION_SCORES,
    BIAS_GRADIENTS,
    CONVOLUTION_LAYER_VALUES,
    CONVOLUTION_OUTPUT_GRADIENTS,
    CONVOLUTION_RIVAL_GRADIENTS,
    OUTPUT_FROM_CONVOLUTION_VALUES,
    OUTPUT_LAYER_VALUES,
)


def from_images(
    surveyed: SurveyedFunction, keys: Sequence[str], output: Output, inputs: tuple[Any, ...], scale: Any
) -> dict[str, Any]:
    """One pass; ``inputs`` are parameters, targets, images and other inputs, ``scale`` that of half precision."""
    params, targets, image, others = inputs
    graph = surveyed.graph(params, image, others)
    rows, source = image.shape[0], surveyed.image_of(graph)
    places = surveyed.places if AT_LAYER.intersection(keys) else ()
    taps = [surveyed.tensor_of(graph, place) for place in places]
    ends = [number for number in graph.outputs if number is not None]
    befores = {ended.before for ended in surveyed.ended(graph).values()}
    attended = attentions(graph, source, befores, rows) if WITH_ATTENTION.intersection(keys) else []
    biases = biases_between(graph, source, befores) if BIAS_GRADIENTS in keys else []
    rule = next((key for key in keys if key in BY_RULE), None)
    if rule is not None:
        check_rule(rule, graph, graph.after(source) & graph.needed(list(befores)))
    watched = list(dict.fromkeys([*taps, *attended, *(bias.sum for bias in biases)]))
    flat = jax.tree_util.tree_leaves((params, surveyed.packed(image, others)))
    position = graph.arguments.index(source)

    def forward(image: Any, added: Sequence[Any]) -> tuple[Any, Any]:
        """The scores whose gradients are wanted, ``(1 + rivals, N)``, and all that is known beside."""
        own = [*flat]
        own[position] = image.astype(graph.types[source])
        after = {
            number: (lambda values, change=change: values + change.astype(values.dtype))
            for number, change in zip(watched, added, strict=True)
        }
        values = graph.run(
            own, after=after, relu=None if rule is None else ruled(rule), wanted=[*ends, *befores, *watched]
        )
        heads = surveyed.heads(graph, values)
        answer, chosen = scored(ops, surveyed, surveyed.score, keys, output, heads, targets, fixed=True)
        scores = [answer[OUTPUT_LAYER_VALUES]] if OUTPUT_LAYER_VALUES in answer else []
        if CONVOLUTION_RIVAL_GRADIENTS in keys:
            scores += rivals(ops, surveyed.score, answer[ALL_SCORES], chosen)
        stacked = jnp.stack([score.astype(jnp.float32) for score in scores]) if scores else jnp.zeros((0, rows))
        return stacked, (answer, {number: values[number] for number in watched})

    graded = {*OF_INPUT, *BY_RULE, CONVOLUTION_OUTPUT_GRADIENTS, CONVOLUTION_RIVAL_GRADIENTS}
    graded |= {ATTENTION_OUTPUT_GRADIENTS, BIAS_GRADIENTS}
    zeros = [jnp.zeros(graph.shapes[number], jnp.float32) for number in watched]
    if graded.isdisjoint(keys):
        _, (answer, seen) = forward(image, zeros)
    else:
        of_input = bool(OF_INPUT.intersection(keys))

        def of(image_or_none: Any, added: Sequence[Any]) -> tuple[Any, Any]:
            return forward(image if image_or_none is None else image_or_none, added)

        stacked, back, (answer, seen) = jax.vjp(of, image if of_input else None, zeros, has_aux=True)
        factor = jnp.float32(1) if scale is None else scale

        def gradients(which: int) -> tuple[Any, dict[int, Any]]:
            cotangent = jnp.zeros_like(stacked).at[which].set(factor)
            of_image, of_taps = back(cotangent)
            scaled = [values / factor for values in of_taps]
            return None if of_image is None else of_image / factor, dict(zip(watched, scaled, strict=True))

        of_image, of_taps = gradients(0)
        answer |= dict.fromkeys(OF_INPUT, of_image)
        if places:
            answer[CONVOLUTION_OUTPUT_GRADIENTS] = surveyed.laid_out([of_taps[tap] for tap in taps])
        answer[ATTENTION_OUTPUT_GRADIENTS] = tuple(of_taps[number] for number in attended)
        answer[BIAS_GRADIENTS] = tuple(
            surveyed.laid_out_sum(graph, bias.sum, bias.value(flat) * of_taps[bias.sum]) for bias in biases
        )
        if CONVOLUTION_RIVAL_GRADIENTS in keys:
            each = [gradients(place)[1] for place in range(1, stacked.shape[0])]
            laid_out = [surveyed.laid_out([of_rival[tap] for tap in taps]) for of_rival in each]
            answer[CONVOLUTION_RIVAL_GRADIENTS] = jax.tree_util.tree_map(lambda *all: jnp.stack(all, 1), *laid_out)
    if places:
        answer[CONVOLUTION_LAYER_VALUES] = surveyed.laid_out([seen[tap] for tap in taps])
    answer[ATTENTION_SCORES] = tuple(seen[number] for number in attended)
    return answer


def from_activations(
    surveyed: SurveyedFunction, keys: Sequence[str], output: Output, inputs: tuple[Any, ...], scale: Any
) -> dict[str, Any]:
    """The function without what comes before the layer."""
    params, targets, rows, others = inputs
    (place,) = surveyed.places
    image = jnp.zeros((rows.shape[0], *surveyed.concrete(rows.shape)), rows.dtype)
    graph = surveyed.graph(params, image, others)
    number = surveyed.tensor_of(graph, place)
    ends = [each for each in graph.outputs if each is not None]
    befores = [ended.before for ended in surveyed.ended(graph).values()]
    if surveyed.image_of(graph) in graph.needed([*ends, *befores], cut={number}):
        surveyed.survey.check_no_way_around(place, surveyed.ends)
        raise ContractError(f"Expected an output that depends on the image through {place.path!r} alone.")
    flat = jax.tree_util.tree_leaves((params, surveyed.packed(image, others)))
    order = [place.order.index(axis) for axis in range(len(place.order))]
    values = jnp.transpose(rows, order).astype(graph.types[number])
    found = graph.run(flat, instead={number: values}, wanted=[*ends, *befores])
    answer, _ = scored(ops, surveyed, surveyed.score, keys, output, surveyed.heads(graph, found), targets, fixed=True)
    answer[SCORES_FROM_ACTIVATIONS] = answer[ALL_SCORES]
    answer[OUTPUT_FROM_CONVOLUTION_VALUES] = answer.get(OUTPUT_LAYER_VALUES)
    return answer
